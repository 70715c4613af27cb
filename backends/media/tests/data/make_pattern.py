"""Makes pattern.mp4 and pattern.crc, the H.264 fixture of mote-media. CC0.

Needs PyAV (with libx264) and numpy. The clip is a drawn pattern in High profile with B frames that other B frames
refer to, several references, weighted prediction, 8x8 transforms, CABAC, and a size that fills no macroblock.
pattern.crc holds, in display order, the CRC-32 of each frame as RGB: libavcodec's planes through the conversion of
src/colour.rs (BT.709, limited range, repeated chroma, 16 fraction bits).
"""

import pathlib
import zlib

import av
import numpy as np

WIDTH, HEIGHT, FRAMES, RATE = 106, 74, 40, 25
HERE = pathlib.Path(__file__).parent


def draw(index):
    """A frame of the pattern: moving gradients, a bouncing square, a fade and a little noise."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    red = (x * 2 + index * 5) % 256
    green = (y * 3 + index * 2) % 256
    blue = 128 + 100 * np.sin((x + y + index * 3) / 9.0)
    frame = np.stack([red, green, blue], -1).astype(np.float64)
    left, top = abs((index * 4) % 160 - 80), abs((index * 3) % 100 - 50)
    frame[top : top + 20, left : left + 20] = (250, 240, 20)
    frame *= 0.4 + 0.6 * min(1.0, index / 12)
    frame += np.random.default_rng(index).normal(0, 3, frame.shape)
    return frame.clip(0, 255).astype(np.uint8)


def encode(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.color_range = 1
        stream.options = {
            "profile": "high",
            "crf": "22",
            "x264-params": "bframes=5:b-pyramid=normal:b-adapt=0:ref=4:keyint=24:min-keyint=24:weightp=2:weightb=1"
            ":8x8dct=1:direct=temporal:scenecut=0:threads=1:colorprim=bt709:transfer=bt709:colormatrix=bt709:range=tv",
        }
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(draw(index), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def fixed(value):
    return int(round(value * 65536))


def to_rgb(frame):
    kr, kb = 0.2126, 0.0722
    kg = 1 - kr - kb
    planes = [
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].astype(np.int32)
        for plane in frame.planes
    ]
    luma = (planes[0] - 16) * fixed(255 / 219)
    u, v = [plane.repeat(2, 0).repeat(2, 1)[:HEIGHT, :WIDTH] - 128 for plane in planes[1:]]
    scale = 255 / 224
    red = luma + v * fixed(2 * (1 - kr) * scale)
    green = luma - u * fixed(2 * (1 - kb) * kb / kg * scale) - v * fixed(2 * (1 - kr) * kr / kg * scale)
    blue = luma + u * fixed(2 * (1 - kb) * scale)
    return (np.stack([red, green, blue], -1) + 32768 >> 16).clip(0, 255).astype(np.uint8)


def main():
    clip = HERE / "pattern.mp4"
    encode(clip)
    with av.open(str(clip)) as container:
        sums = [f"{zlib.crc32(to_rgb(frame).tobytes()):08x}\n" for frame in container.decode(video=0)]
    assert len(sums) == FRAMES
    (HERE / "pattern.crc").write_text("".join(sums))


if __name__ == "__main__":
    main()
