"""Makes the AV1 fixtures of mote-media from the pattern of make_pattern.py. CC0. Made with PyAV 18.1.0 and the
libaom of imageio-ffmpeg 0.8.1.

av1.webm: 4:2:0, BT.709, limited range, frames hidden and shown later. av1.mp4: 4:4:4 with 10 bits, BT.601, full range.
The .crc files hold, in display order, the CRC-32 of each frame as RGB: libdav1d's planes through the conversion of
src/colour.rs (repeated chroma, 16 fraction bits), samples of 10 bits rounded to 8 before it.
"""

import pathlib
import subprocess
import zlib

import av
import imageio_ffmpeg
import numpy as np

from make_pattern import HEIGHT, RATE, WIDTH, draw, fixed

HERE = pathlib.Path(__file__).parent
CLIPS = {
    "av1.webm": {"frames": 24, "format": "yuv420p", "matrix": 1, "range": 1, "weights": (0.2126, 0.0722)},
    "av1.mp4": {"frames": 8, "format": "yuv444p10le", "matrix": 6, "range": 2, "weights": (0.299, 0.114)},
}


def encode(path, frames, format, matrix, range, **_):
    colour = {1: "bt709", 6: "smpte170m"}[matrix]
    size, rate = ("-s", f"{WIDTH}x{HEIGHT}"), ("-r", str(RATE))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", format]
    command += [*size, *rate, "-color_range", str(range), "-colorspace", colour, "-i", "-", "-color_range", str(range)]
    command += ["-colorspace", colour, "-color_primaries", colour, "-color_trc", colour, "-c:v", "libaom-av1"]
    command += ["-crf", "34", "-cpu-used", "4", "-g", "16", "-lag-in-frames", "12", "-threads", "1", str(path)]
    names = {"dst_colorspace": "ITU709" if matrix == 1 else "ITU601", "dst_color_range": ["", "MPEG", "JPEG"][range]}
    raw = b""
    for index in np.arange(frames):
        frame = av.VideoFrame.from_ndarray(draw(int(index)), format="rgb24").reformat(format=format, **names)
        sample_bytes = 2 if "10" in format else 1
        for plane in frame.planes:
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            raw += rows[:, : plane.width * sample_bytes].tobytes()
    subprocess.run(command, input=raw, check=True, timeout=120)


def planes_of(frame, deep):
    for plane in frame.planes:
        kind = np.uint16 if deep else np.uint8
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width].astype(np.int32)
        yield (rows + 2 >> 2).clip(0, 255) if deep else rows


def to_rgb(frame, format, range, weights, **_):
    kr, kb = weights
    kg = 1 - kr - kb
    y, u, v = planes_of(frame, "10" in format)
    if "420" in format:
        u, v = [plane.repeat(2, 0).repeat(2, 1)[:HEIGHT, :WIDTH] for plane in (u, v)]
    u, v = u - 128, v - 128
    scale = 1 if range == 2 else 255 / 224
    luma = y * fixed(1) if range == 2 else (y - 16) * fixed(255 / 219)
    red = luma + v * fixed(2 * (1 - kr) * scale)
    green = luma - u * fixed(2 * (1 - kb) * kb / kg * scale) - v * fixed(2 * (1 - kr) * kr / kg * scale)
    blue = luma + u * fixed(2 * (1 - kb) * scale)
    return (np.stack([red, green, blue], -1) + 32768 >> 16).clip(0, 255).astype(np.uint8)


def main():
    for name, clip in CLIPS.items():
        encode(HERE / name, **clip)
        with av.open(str(HERE / name)) as container:
            sums = [f"{zlib.crc32(to_rgb(frame, **clip).tobytes()):08x}\n" for frame in container.decode(video=0)]
        assert len(sums) == clip["frames"], (name, len(sums))
        (HERE / f"{name}.crc").write_text("".join(sums))


if __name__ == "__main__":
    main()
