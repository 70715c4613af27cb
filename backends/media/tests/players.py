"""Checks that what mote-media writes is what other programs read. Not part of the test suite: it needs

    pip install av==18.1.0 imageio-ffmpeg==0.8.1 pillow==13.0.0 numpy webp==0.4.0

and is run by hand, with the example built before (cargo build -p mote-media --example recode):

    python players.py PATH-TO-RECODE

A clip is written in every format; libdav1d (in PyAV and in FFmpeg), libwebp and Pillow decode it. Frame count, size,
duration, rate and colours must be what was written, and pixels must equal those of mote-media's own reader. Sound must
have as many samples as were written and begin with the first frame; sound that is kept must decode to the same samples
at the same times as in the clip that it comes from. Sound of every kind is coded by PyAV's encoders, Vorbis by FFmpeg.
"""

import fractions
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


def with_sound(path, encoder, rate=48_000, layout="stereo", delay=0.0, frames_late=0.0, seconds=FRAMES / RATE):
    """The pattern, as it is coded in MP4 and as AV1 in other containers, and a chirp."""
    time = np.arange(round(seconds * rate)) / rate
    channels = len(av.AudioLayout(layout).channels)
    chirp = np.stack([0.3 * np.sin(2 * np.pi * (300 + 200 * time + 97 * channel) * time) for channel in range(channels)])
    sound = av.AudioFrame.from_ndarray(chirp.astype(np.float32), format="fltp", layout=layout)
    sound.sample_rate, sound.pts, sound.time_base = rate, round(delay * rate), fractions.Fraction(1, rate)
    with av.open(str(HERE / "pattern.mp4")) as source, av.open(str(path), "w") as clip:
        is_copied = path.suffix in (".mp4", ".mov")
        if is_copied:
            video = clip.add_stream_from_template(source.streams.video[0])
        else:
            video = clip.add_stream("libsvtav1", rate=RATE, options={"preset": "12", "svtav1-params": "lp=1"})
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = clip.add_stream(encoder, rate=rate)
        audio.layout = layout
        coder = audio.codec_context
        resampler = av.AudioResampler(coder.format.name, layout, rate, coder.frame_size or 1024)
        packets = [packet for frame in resampler.resample(sound) + resampler.resample(None) for packet in audio.encode(frame)]
        packets += audio.encode(None)
        if is_copied:
            coded = [packet for packet in source.demux(video=0) if packet.dts is not None]
        else:
            pictures = [frame.reformat(format="yuv420p") for frame in source.decode(video=0)]
            for index, picture in enumerate(pictures):
                picture.pts, picture.time_base, picture.pict_type = index, fractions.Fraction(1, RATE), 0
            coded = [packet for picture in [*pictures, None] for packet in video.encode(picture)]
        for packet in coded:
            late = round(frames_late / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + late, packet.dts + late, video
        packets += coded
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            clip.mux(packet)
    return path


def heard(path):
    """Samples as libavcodec decodes them, when they begin after the first frame, samples per second, and the codec."""
    with av.open(str(path)) as clip:
        shown = min(frame.time for frame in clip.decode(video=0))
    with av.open(str(path)) as clip:
        stream = clip.streams.audio[0]
        frames = list(clip.decode(audio=0))
        gap = max(abs(b.time - a.time - a.samples / a.sample_rate) for a, b in zip(frames, frames[1:]))
        assert gap < 2e-3, gap
        name = stream.codec_context.name
    channels = len(frames[0].layout.channels)
    samples = np.concatenate([f.to_ndarray().reshape(-1, channels) if f.format.is_packed else f.to_ndarray().T for f in frames])
    return samples.astype(float), frames[0].time - shown, frames[0].sample_rate, name


def check_kept(source, path, said, exact=True):
    """The sound of a clip and of its copy; ends that players of MP4 do not cut (Opus) may be longer."""
    (want, starts, rate, codec), (have, again, same, name) = heard(source), heard(path)
    assert (same, name) == (rate, codec) and "kept" in said, (name, said)
    # What is heard before the first frame is left out.
    early = round(max(0.0, -starts) * rate)
    want = want[early:]
    assert abs(again - max(0.0, starts)) < 1e-3, (starts, again)
    both = min(len(want), len(have))
    worst = np.abs(want[:both] - have[:both]).max()
    scale = max(np.abs(want).max(), 1e-9)
    print(f"{source.name} to {path.name}: {len(have)} of {len(want)} samples of {name}, off by {worst / scale:.5f}, {again:.4f} s in")
    assert worst == 0 if exact else worst < 0.1 * scale
    assert abs(len(want) - len(have)) < (1 if path.suffix == source.suffix else 960), (len(want), len(have))


def check_sound_is_kept(folder, keep):
    kinds = {"aac": "mp4", "libmp3lame": "mp4", "alac": "mov", "flac": "mp4", "ac3": "mp4", "eac3": "mp4", "libopus": "mp4"}
    for encoder, ending in kinds.items():
        source = with_sound(folder / f"{encoder}.{ending}", encoder)
        path, said = keep(f"kept-{encoder}.mp4", source)
        check_kept(source, path if ending == "mp4" else path.rename(folder / f"kept-{encoder}.mov"), said)
    for name, options in {
        "six": {"layout": "5.1"},
        "slow": {"rate": 8000, "layout": "mono"},
        "late": {"delay": 0.5},
        "early": {"frames_late": 0.8},
        "long": {"seconds": 4.1},
    }.items():
        for encoder in ("aac", "libopus"):
            if (name, encoder) == ("slow", "libopus"):
                continue
            source = with_sound(folder / f"{encoder}-{name}.mp4", encoder, **options)
            # Decoders that begin elsewhere are right after a while, but for noise that they make up.
            check_kept(source, *keep(f"kept-{encoder}-{name}.mp4", source), exact=name != "early")
    for name, encoder, options in (
        ("opus.webm", "libopus", {}),
        ("late.webm", "libopus", {"delay": 0.333}),
        ("early.webm", "libopus", {"frames_late": 0.8}),
        ("six.webm", "libopus", {"layout": "5.1"}),
        ("aac.mkv", "aac", {}),
        ("flac.mkv", "flac", {"rate": 44_100}),
    ):
        source = with_sound(folder / name, encoder, **options)
        for ending in ("webm", "mp4") if encoder == "libopus" else ("mp4",):
            check_kept(source, *keep(f"kept-{name}.{ending}", source), exact=name != "early.webm")
    vorbis = folder / "vorbis.webm"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(folder / "opus.webm"), "-c:v", "copy"]
    subprocess.run([*ffmpeg, "-c:a", "libvorbis", "-ar", "44100", str(vorbis)], check=True, timeout=120)
    check_kept(vorbis, *keep("kept-vorbis.webm", vorbis))
    # What a format does not take is told.
    for source, ending in ((folder / "aac.mp4", "webm"), (vorbis, "mp4"), (folder / "aac.mp4", "gif")):
        path, said = keep(f"lost.{ending}", source)
        with av.open(str(path)) as clip:
            assert "lost" in said and not clip.streams.audio, said
    # Half of the frames have half of the sound.
    for name, ending in (("aac.mp4", "mp4"), ("libopus.mp4", "webm"), ("opus.webm", "webm")):
        path, said = keep(f"half.{ending}", folder / name, 10)
        have, want = heard(path), heard(folder / name)
        assert "19200 samples" in said and len(have[0]) - 19_200 in range(1024), (said, len(have[0]))
        assert have[1] == 0 and (have[0][:19_200] == want[0][:19_200]).all()
        with av.open(str(path)) as clip:
            assert abs(clip.duration - 400_000) < 1000, clip.duration


def main():
    recode = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)

        def write(name, source=HERE / "pattern.mp4", *options):
            subprocess.run([recode, *options, str(source), str(folder / name)], check=True, capture_output=True, timeout=300)
            return folder / name

        def keep(name, source, frames=None):
            option = "--sound" if frames is None else f"--sound={frames}"
            done = subprocess.run([recode, option, str(source), str(folder / name)], check=True, capture_output=True, text=True, timeout=300)
            return folder / name, done.stderr.splitlines()[0]

        check_sound_is_kept(folder, keep)
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
