"""Checks that what mote-media writes is what other programs read. Not part of the test suite: it needs

    pip install av==18.1.0 imageio-ffmpeg==0.8.1 pillow==13.0.0 numpy webp==0.4.0

and is run by hand, with the example built before (cargo build -p mote-media --example recode):

    python players.py PATH-TO-RECODE

A clip is written in every format; libdav1d (in PyAV and in FFmpeg), libwebp and Pillow decode it. Frame count, size,
duration, rate and colours must be what was written, and pixels must equal those of mote-media's own reader. Sound must
have as many samples as were written and begin with the first frame.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

import av
import imageio_ffmpeg
import numpy as np
import webp
from PIL import Image

HERE = pathlib.Path(__file__).parent / "data"
sys.path.insert(0, str(HERE))
from make_pattern import FRAMES, HEIGHT, RATE, WIDTH, to_rgb  # noqa: E402

SIZE = FRAMES * HEIGHT * WIDTH * 3
# Samples that the tone of `recode` goes on behind the frames.
TAIL = 123


def raw(path):
    data = np.frombuffer(path.read_bytes(), np.uint8)
    return data.reshape(-1, HEIGHT, WIDTH, 3)


def psnr(a, b):
    squares = ((a.astype(float) - b) ** 2).mean()
    return float("inf") if squares == 0 else 10 * np.log10(255**2 / squares)


def report(name, frames, own, drawn):
    worst = int(np.abs(frames.astype(int) - own).max())
    print(f"{name}: {len(frames)} frames, {psnr(frames, drawn):.1f} dB, differs from our reader by {worst}")
    assert len(frames) == FRAMES and worst == 0, name


def check_av1(path, own, drawn, tail_seconds=0):
    with av.open(str(path)) as clip:
        stream = clip.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.width, context.height) == ("libdav1d", WIDTH, HEIGHT), context.name
        assert stream.average_rate == RATE and (context.color_range, context.colorspace) == (1, 1)
        seconds = FRAMES / RATE + tail_seconds
        assert abs(clip.duration - seconds * 1_000_000) < 1_000_000 / RATE, clip.duration
        decoded = list(clip.decode(video=0))
        times = [frame.time for frame in decoded]
        assert np.allclose(times, np.arange(FRAMES) / RATE, atol=1e-3), times
        report(f"{path.name} by libdav1d", np.stack([to_rgb(frame) for frame in decoded]), own, drawn)
        # Seeking lands on a key frame before the asked time.
        clip.seek(1_200_000)
        assert next(clip.decode(video=0)).time <= 1.2
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", "-i", str(path), "-map", "0", "-f", "null", "-"]
    done = subprocess.run(ffmpeg, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr


def tone(rate, samples):
    time = np.arange(samples) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * hertz * time) for hertz in (440, 660)], 1)


def sound_of(path, codec):
    """Left and right as libavcodec decodes them, when they begin, and at which rate."""
    with av.open(str(path)) as clip:
        assert clip.streams.audio[0].codec_context.name == codec
        frames = list(clip.decode(audio=0))
        duration = clip.duration
    planes = [frame.to_ndarray().reshape(1, -1).reshape(-1, 2) if frame.format.is_packed else frame.to_ndarray().T for frame in frames]
    scale = 32768 if frames[0].format.name.startswith("s16") else 1
    return np.concatenate(planes) / scale, frames[0].time, frames[0].sample_rate, duration


def check_flac(path):
    samples, starts, rate, _ = sound_of(path, "flac")
    wave = tone(rate, 48_000 * FRAMES // RATE + TAIL)
    worst = np.abs(samples - wave).max()
    print(f"{path.name}: {len(samples)} samples of sound, off by {worst:.5f}")
    assert starts == 0 and samples.shape == wave.shape and worst < 1e-3


def check_opus(path, rate):
    """Opus is played at 48 kHz; less its delay and its padding, the tone must be where and as long as it was."""
    want = rate * FRAMES // RATE + TAIL
    wave = tone(48_000, want * 48_000 // rate)
    samples, starts, played, duration = sound_of(path, "opus")
    assert (starts, played) == (0, 48_000) and abs(duration - want * 1_000_000 // rate) <= 1, (starts, played, duration)
    # libopus beside libavcodec's own decoder.
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-xerror", "-c:a", "libopus", "-i", str(path), "-vn", "-f", "f32le", "-"]
    done = subprocess.run(ffmpeg, capture_output=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    reference = np.frombuffer(done.stdout, np.float32).reshape(-1, 2)
    for name, heard in (("libavcodec", samples), ("libopus", reference)):
        assert heard.shape == wave.shape, (heard.shape, wave.shape)
        snr = 10 * np.log10((wave**2).mean(0) / ((heard - wave) ** 2).mean(0))
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))[:, None], 8 * 48_000, axis=0))
        pitch = spectrum.argmax(0) / 8
        print(f"{path.name} by {name}: {len(heard)} samples of sound, {snr.min():.1f} dB, {pitch[0]:.1f} and {pitch[1]:.1f} Hz")
        assert snr.min() > 25 and np.abs(pitch - (440, 660)).max() < 1
    with av.open(str(path)) as clip:
        times = [packet.pts * packet.time_base for packet in clip.demux() if packet.pts is not None]
        # Timestamps of packets of sound are earlier than those of their blocks by the delay.
        assert all(late - early < 0.01 for early, late in zip(times[1:], times)), times
        # After a seek both tracks go on at the same key frame, and the sound is right.
        clip.seek(1_200_000)
        video = clip.streams.video[0]
        at = next(frame.time for frame in clip.decode(video))
        clip.seek(1_200_000)
        sound = next(frame for frame in clip.decode(audio=0))
        assert at <= 1.2 and abs(sound.time - at) <= 0.1, (at, sound.time)


def main():
    recode = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def write(name, source=HERE / "pattern.mp4", *options):
            subprocess.run([recode, *options, str(source), str(folder / name)], check=True, capture_output=True, timeout=300)
            return folder / name

        drawn = raw(write("drawn.rgb"))
        assert drawn.size == SIZE
        for name in ("clip.mp4", "clip.webm"):
            path = write(name)
            check_av1(path, raw(write("own.rgb", path)), drawn)
        path = write("sound.mp4", HERE / "pattern.mp4", "--tone")
        check_av1(path, raw(write("own.rgb", path)), drawn, TAIL / 48_000)
        check_flac(path)
        for rate in (8000, 12_000, 16_000, 24_000, 48_000):
            path = write(f"sound{rate}.webm", HERE / "pattern.mp4", f"--tone={rate}")
            check_av1(path, raw(write("own.rgb", path)), drawn, TAIL / rate)
            check_opus(path, rate)

        path = write("clip.webp")
        with Image.open(path) as image:
            frames, times = [], []
            for index in range(image.n_frames):
                image.seek(index)
                frames.append(np.array(image.convert("RGB")))
                times.append(image.info["duration"])
        report("clip.webp by Pillow", np.stack(frames), drawn, drawn)
        assert times == [1000 // RATE] * FRAMES and image.info["loop"] == 0
        report("clip.webp by libwebp", np.stack(webp.load_images(str(path), "RGB")).astype(np.uint8), drawn, drawn)
        report("clip.webp by our reader", raw(write("own.rgb", path)), drawn, drawn)
        decoder = webp.WebPData.from_buffer(path.read_bytes())
        assert decoder is not None

        path = write("clip.y4m")
        own = raw(write("own.rgb", path))
        ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
        planes = subprocess.run(ffmpeg, check=True, capture_output=True, timeout=120).stdout
        assert planes == write("clip.yuv").read_bytes(), "the planes of Y4M are not those of raw I420"
        seen = subprocess.run([ffmpeg[0], "-i", str(path)], capture_output=True, text=True, timeout=60).stderr
        assert re.search(rf"yuv420p\(tv.*{WIDTH}x{HEIGHT}.*{RATE} fps", seen), seen
        print(f"clip.y4m: FFmpeg reads the planes of clip.yuv, {psnr(own, drawn):.1f} dB")

        with av.open(str(write("clip.gif"))) as clip:
            count = sum(1 for _ in clip.decode(video=0))
        assert count == FRAMES, count
        print(f"clip.gif: {count} frames by libavcodec")


if __name__ == "__main__":
    main()
