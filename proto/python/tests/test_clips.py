"""Clips: what is asked for and told, against a scripted daemon, and real models."""

import gc
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import mote
from mote import _schema
from mote._wire import Frames

PATIENCE_S = 60
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
WIDTH, HEIGHT = 4, 2
CLIP_MODEL = "shapes-clip"
FRAMES, SIDE = 17, 64


class Peer:
    """The daemon's end of a connection."""

    def __init__(self, sock):
        self.frames = Frames(sock, _schema.ClientFrame)

    def next(self):
        """The next request that is no credit: id, verb, message, descriptors."""
        while True:
            frame, fds = self.frames.receive()
            verb = frame.WhichOneof("body")
            if verb != "credit":
                return frame.request_id, verb, getattr(frame, verb), fds

    def reply(self, request_id, kind, fds=(), **fields):
        frame = _schema.ServerFrame(request_id=request_id)
        field = _schema.ServerFrame.DESCRIPTOR.fields_by_name[kind]
        getattr(frame, kind).CopyFrom(_schema.message(field.message_type.name)(**fields))
        getattr(frame, kind).SetInParent()
        self.frames.send(frame, list(fds))

    def done(self, request_id, **receipt):
        self.reply(request_id, "done", receipt=receipt)

    def audio(self, request_id, index, samples, passed=False, **changed):
        tensor = {"name": "audio", "dtype": 1, "shape": samples.shape}
        fds = []
        if passed:
            fds.append(os.memfd_create("audio"))
            os.write(fds[0], samples.tobytes())
            tensor["passed"] = {"bytes": samples.nbytes}
        else:
            tensor["inline"] = samples.tobytes()
        told = {"sample_index": index, "sample_rate": 24_000, "audio": tensor}
        tensor.update({name: changed.pop(name) for name in set(changed) - set(told)})
        self.reply(request_id, "audio", fds, **{**told, **changed})
        close_all(fds)

    def frame(self, request_id, index, pixels, passed=False):
        tensor = {"name": "frame", "dtype": 6, "shape": pixels.shape}
        if not passed:
            return self.reply(
                request_id, "frame", frame_index=index, frame={**tensor, "inline": pixels.tobytes()}
            )
        fd = os.memfd_create("frame")
        os.write(fd, pixels.tobytes())
        tensor["passed"] = {"bytes": pixels.nbytes}
        self.reply(request_id, "frame", [fd], frame_index=index, frame=tensor)
        os.close(fd)


@pytest.fixture
def scripted(tmp_path):
    """``scripted(script)``: a client whose daemon runs ``script(peer)`` after the greeting."""
    running, clients = [], []

    def start(script):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "mote.sock"))
        listener.listen()

        def serve():
            sock = listener.accept()[0]
            # Who waits for what never comes fails, and does not hang.
            sock.settimeout(PATIENCE_S)
            peer = Peer(sock)
            request_id, verb, _, _ = peer.next()
            assert verb == "hello"
            limits = {"inline_bytes_max": 65536}
            peer.reply(request_id, "welcome", version=1, limits=limits)
            try:
                script(peer)
            except BaseException as error:
                failures.append(error)
            finally:
                peer.frames.close()

        failures = []
        thread = threading.Thread(target=serve)
        thread.start()
        running.append((thread, failures))
        clients.append(mote.connect(tmp_path / "mote.sock"))
        os.unlink(tmp_path / "mote.sock")
        listener.close()
        return clients[-1]

    yield start
    for client in clients:
        client.close()
    for thread, failures in running:
        thread.join(PATIENCE_S)
        assert not thread.is_alive() and not failures, failures


def content(fd):
    return os.pread(fd, 100, 0)


def close_all(fds):
    for fd in fds:
        os.close(fd)


# ---- What is asked for ----


def test_a_clip_is_made_in_memory_and_its_frames_are_arrays(scripted):
    pictures = [np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (7, 9)]
    seen, stages, previews = [], [], []

    def script(peer):
        request_id, verb, clip, (output,) = peer.next()
        assert verb == "generate_clip" and clip.send_frames and clip.preview_every == 1
        assert [(segment.prompt, segment.frames) for segment in clip.segments] == [("a square", 0)]
        assert not clip.HasField("seed") and not clip.HasField("guidance") and clip.output_format == 1
        peer.reply(request_id, "accepted")
        peer.reply(request_id, "progress", stage="denoise", done=1, total=4)
        peer.reply(request_id, "preview", frame_index=1, width=4, height=2, png=PNG_SIGNATURE)
        peer.frame(request_id, 0, pictures[0])
        peer.frame(request_id, 1, pictures[1], passed=True)
        os.write(output, b"clip")
        os.close(output)
        peer.done(request_id, seed=5, step_times_us=[3, 4], scheduler="EulerDiscreteScheduler")

    before = len(os.listdir("/proc/self/fd"))
    clip = scripted(script).generate_clip(
        CLIP_MODEL,
        "a square",
        on_frame=seen.append,
        on_preview=previews.append,
        on_progress=lambda progress: stages.append((progress.stage, progress.done)),
    )
    assert bytes(clip.data) == b"clip" and np.frombuffer(clip.data, np.uint8).size == 4
    assert clip.receipt.seed == 5 and list(clip.receipt.step_times_us) == [3, 4]
    assert stages == [("denoise", 1)] and previews[0].png == PNG_SIGNATURE
    assert len(seen) == 2
    for array, picture in zip(seen, pictures):
        assert array.dtype == np.uint8 and array.flags.writeable
        np.testing.assert_array_equal(array, picture)
    del clip
    gc.collect()
    # The client's own socket, and the daemon's until its thread has ended.
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_sound_is_heard_as_it_is_made_and_told_in_the_receipt(scripted):
    whole = np.linspace(-1, 1, 20, dtype=np.float32).reshape(10, 2)
    heard = []

    def script(peer):
        request_id, _, clip, (output,) = peer.next()
        assert clip.send_audio and not clip.send_frames
        peer.audio(request_id, 0, whole[:3])
        peer.audio(request_id, 3, whole[3:], passed=True)
        os.write(output, b"clip")
        os.close(output)
        told = {"audio_samples_out": 10, "audio_sample_rate": 24_000, "audio_channels": 2, "audio_codec": "opus"}
        peer.done(request_id, **told)

    clip = scripted(script).generate_clip("waves", "rain on a roof", on_audio=heard.append)
    assert [(part.sample_index, part.sample_rate) for part in heard] == [(0, 24_000), (3, 24_000)]
    for part in heard:
        assert part.samples.dtype == np.float32 and part.samples.flags.writeable
    np.testing.assert_array_equal(np.concatenate([part.samples for part in heard]), whole)
    receipt = clip.receipt
    assert (receipt.audio_samples_out, receipt.audio_sample_rate, receipt.audio_channels) == (10, 24_000, 2)
    assert receipt.audio_codec == "opus"


@pytest.mark.parametrize(
    "changed",
    [
        {"sample_rate": 0},
        {"sample_rate": 192_001},
        {"shape": [6]},
        {"shape": [0, 2]},
        {"shape": [4, 2]},
        {"shape": [1 << 40, 2]},
        {"dtype": 3},
        {"dtype": 9},
    ],
)
@pytest.mark.parametrize("passed", [False, True])
def test_sound_that_is_none_ends_the_work_and_leaves_nothing_open(scripted, changed, passed):
    over = threading.Event()

    def script(peer):
        request_id, _, _, fds = peer.next()
        peer.audio(request_id, 0, np.zeros((3, 2), np.float32), passed=passed, **changed)
        target, verb, cancel, _ = peer.next()
        assert verb == "cancel" and cancel.target_request_id == request_id
        close_all(fds)
        over.set()

    client = scripted(script)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(mote.ProtocolError, match="for sound"):
        client.generate_clip("waves", "rain on a roof", on_audio=lambda _: pytest.fail("it was told"))
    assert over.wait(PATIENCE_S)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_what_a_clip_is_made_of_travels_with_it(scripted, tmp_path):
    target, sheet, kept = tmp_path / "out.webm", tmp_path / "out.png", tmp_path / "kept"
    picture = tmp_path / "first.png"
    picture.write_bytes(b"first")

    def script(peer):
        request_id, _, clip, fds = peer.next()
        shots = [(segment.prompt, segment.frames) for segment in clip.segments]
        assert shots == [("a square", 9), ("it turns", 5)]
        assert (clip.negative_prompt, clip.guidance, clip.seed, clip.steps) == ("blur", 2.5, 0, 3)
        assert (clip.width, clip.height, clip.frame_rate) == (64, 32, 12)
        assert (clip.scheduler, clip.strength, clip.output_format) == ("euler", 0.5, 4)
        assert clip.HasField("seed") and clip.encoder_speed == 3 and not clip.send_frames
        assert not clip.send_audio
        assert (clip.first_image, clip.last_image, clip.reference_image) == (True, False, True)
        assert clip.contact_sheet and clip.source and clip.checkpoint
        output, written_sheet, first, reference, source, checkpoint = fds
        assert [content(fd) for fd in (first, reference, source)] == [b"first", b"refer", b"source"]
        os.write(checkpoint, b"steps")
        os.write(output, b"clip")
        os.write(written_sheet, b"sheet")
        close_all(fds)
        peer.done(request_id)

    clip = scripted(script).generate_clip(
        CLIP_MODEL,
        [("a square", 9), "it turns"],
        target,
        frames=5,
        negative_prompt="blur",
        guidance=2.5,
        seed=0,
        steps=3,
        width=64,
        height=32,
        frame_rate=12,
        scheduler="euler",
        strength=0.5,
        first_image=picture,
        reference_image=bytearray(b"refer"),
        source=b"source",
        checkpoint=kept,
        format="webm",
        encoder_speed=3,
        contact_sheet=sheet,
    )
    assert clip.data is None
    assert target.read_bytes() == b"clip" and sheet.read_bytes() == b"sheet"
    assert kept.read_bytes() == b"steps"
    assert sorted(os.listdir(tmp_path)) == ["first.png", "kept", "out.png", "out.webm"]


def test_what_cannot_be_asked_for_is_not_sent(scripted, tmp_path):
    daemon = scripted(lambda peer: None)
    with pytest.raises(ValueError, match="mp4, gif"):
        daemon.generate_clip(CLIP_MODEL, "a square", format="avi")
    with pytest.raises(ValueError, match="prompt"):
        daemon.generate_clip(CLIP_MODEL, [])
    with pytest.raises(FileNotFoundError):
        daemon.generate_clip(CLIP_MODEL, "a square", tmp_path / "out.mp4", source=tmp_path / "none.mp4")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("task, factor", [("frame-restoration", 0), ("frame-interpolation", 2)])
def test_the_model_says_how_many_frames_there_are_for_each(scripted, tmp_path, task, factor):
    def script(peer):
        request_id, verb, request, _ = peer.next()
        assert (verb, request.model, request.load) == ("inspect_model", "m", False)
        peer.reply(request_id, "model_details", model={"name": "m", "task": task})
        for wanted in (factor, 4):
            request_id, verb, clip, fds = peer.next()
            assert verb == "transform_clip"
            assert (clip.factor, clip.tile_side_max, clip.output_format) == (wanted, 128, 7)
            close_all(fds)
            peer.done(request_id)

    source, target = tmp_path / "in.y4m", tmp_path / "out.y4m"
    source.touch()
    daemon = scripted(script)
    daemon.transform_clip("m", source, target, format="y4m", tile_side_max=128)
    daemon.transform_clip("m", source, target, format="y4m", tile_side_max=128, factor=4)


# ---- What is said to work that goes on ----


def test_a_job_is_told_of_from_callbacks_from_threads_and_ahead(scripted):
    begun = threading.Event()

    def script(peer):
        request_id, verb, _, fds = peer.next()
        assert verb == "generate_clip"
        os.write(fds[0], b"clip")
        close_all(fds)
        _, verb, steer, _ = peer.next()
        assert (verb, steer.target_request_id, steer.prompt) == ("steer_clip", request_id, "ahead")
        peer.reply(request_id, "progress", stage="denoise", done=1, total=4)
        for paused in (True, False):
            said, verb, pause, _ = peer.next()
            assert (verb, pause.target_request_id, pause.paused) == ("pause", request_id, paused)
            peer.reply(said, "ok")
        _, verb, steer, _ = peer.next()
        assert (verb, steer.prompt) == ("steer_clip", "a blue disc")
        peer.reply(request_id, "steered", from_segment=0)
        peer.reply(request_id, "steered", why="prompt: no segment follows")
        peer.done(request_id)
        # Nothing is said to work that is over.
        request_id, verb, _, fds = peer.next()
        assert verb == "label_clip"
        close_all(fds)
        peer.done(request_id)

    daemon, job = scripted(script), mote.ClipJob()
    job.steer("ahead")

    def on_progress(_):
        job.pause()
        begun.set()

    def other():
        assert begun.wait(PATIENCE_S)
        job.resume()
        job.steer("a blue disc")

    thread = threading.Thread(target=other)
    thread.start()
    steered = []
    told = {"on_progress": on_progress, "on_steered": steered.append}
    assert daemon.generate_clip(CLIP_MODEL, "a square", **told, job=job).data
    thread.join()
    assert steered == [mote.Steered(0, ""), mote.Steered(None, "prompt: no segment follows")]
    job.pause()
    assert list(daemon.label_clip("motion", b"clip")) == []


def test_a_job_cancels_and_is_that_of_one_work_at_a_time(scripted):
    def script(peer):
        request_id, _, _, fds = peer.next()
        close_all(fds)
        # The other work is refused before it is asked for.
        _, verb, cancel, _ = peer.next()
        assert (verb, cancel.target_request_id) == ("cancel", request_id)
        peer.reply(request_id, "failed", status={"message": "cancelled", "cancelled": {}})

    daemon, job = scripted(script), mote.ClipJob()
    labelling = daemon.label_clip("motion", b"clip", job=job)
    with pytest.raises(ValueError, match="other work"):
        daemon.generate_clip(CLIP_MODEL, "a square", job=job)
    job.cancel()
    with pytest.raises(mote.Cancelled):
        next(labelling)


# ---- Labels ----


def seen(index):
    label = {"class": 2, "label": "left", "score": 0.75}
    place = {"label": {"class": 1, "label": "square", "score": 0.5}, "x0": 1, "y0": 2, "x1": 3.5, "y1": 4}
    return {"frame_index": index, "frame_count": 2, "time_us": 40_000, "labels": [label], "boxes": [place]}


def test_labels_are_read_as_they_are_found(scripted, tmp_path):
    source, count = tmp_path / "in.mp4", 200
    source.write_bytes(b"clip")

    def script(peer):
        request_id, verb, clip, (fd,) = peer.next()
        assert verb == "label_clip" and content(fd) == b"clip"
        os.close(fd)
        assert (clip.every, clip.frames_max, clip.labels_max) == (2, 400, 5)
        assert clip.score_min == pytest.approx(0.1)
        assert clip.options.credit == 4
        credit = clip.options.credit
        for index in range(count):
            while credit == 0:
                frame, _ = peer.frames.receive()
                assert frame.credit.target_request_id == request_id
                credit += frame.credit.frames
            credit -= 1
            peer.reply(request_id, "labels", **seen(2 * index))
        peer.reply(request_id, "progress", stage="label", done=400, total=400)
        peer.done(request_id, frames_in=400)

    stages = []
    labelling = scripted(script).label_clip(
        "motion",
        source,
        every=2,
        frames_max=400,
        labels_max=5,
        score_min=0.1,
        on_progress=lambda progress: stages.append(progress.stage),
        options={"credit": 4},
    )
    told = list(labelling)
    assert [frame.frame_index for frame in told] == list(range(0, 2 * count, 2))
    assert told[0].labels == [mote.Label(2, "left", 0.75)]
    assert told[0].boxes == [mote.LabelBox(1, "square", 0.5, 1.0, 2.0, 3.5, 4.0)]
    assert (told[0].frame_count, told[0].time_us) == (2, 40_000)
    assert labelling.receipt.frames_in == 400 and stages == ["label"]


def test_labels_that_nobody_reads_any_more_are_cancelled(scripted):
    def script(peer):
        request_id, _, _, fds = peer.next()
        close_all(fds)
        peer.reply(request_id, "labels", **seen(0))
        _, verb, cancel, _ = peer.next()
        assert (verb, cancel.target_request_id) == ("cancel", request_id)

    job = mote.ClipJob()
    labelling = scripted(script).label_clip("motion", b"clip", job=job)
    assert next(labelling).frame_index == 0
    del labelling
    gc.collect()
    job.pause()


# ---- Real models ----


def test_a_clip_shows_what_it_is_asked_for_and_is_the_same_each_time(daemon, tmp_path):
    frames, steps = [], []
    clip = daemon.generate_clip(
        CLIP_MODEL,
        "a red square moves left",
        seed=7,
        format="rgb8",
        on_frame=frames.append,
        on_preview=lambda preview: steps.append(preview.frame_index),
    )
    pixels = np.frombuffer(clip.data, np.uint8).reshape(FRAMES, SIDE, SIDE, 3)
    np.testing.assert_array_equal(pixels, np.stack(frames))
    receipt = clip.receipt
    assert receipt.frames_out == FRAMES and receipt.seed == 7 and receipt.scheduler
    assert len(receipt.step_times_us) == receipt.steps and receipt.resumed_steps == 0
    assert steps == sorted(steps) and steps[-1] == len(receipt.step_times_us)
    again = daemon.generate_clip(CLIP_MODEL, "a red square moves left", tmp_path / "out.rgb", seed=7, format="rgb8")
    assert again.data is None
    assert (tmp_path / "out.rgb").read_bytes() == bytes(clip.data)
    other = daemon.generate_clip(CLIP_MODEL, "a red square moves left", seed=8, format="rgb8")
    assert bytes(other.data) != bytes(clip.data)


def test_a_paused_clip_halts_and_goes_on_to_the_same_frames(daemon):
    whole = daemon.generate_clip(CLIP_MODEL, "a blue disc grows", seed=3, format="rgb8")
    job, done, resumed = mote.ClipJob(), [], []

    def resume():
        resumed.append(time.monotonic())
        job.resume()

    def note(progress):
        if progress.stage == "denoise" and progress.done > 0:
            done.append(time.monotonic())

    # Said before it begins, so that it is halted before its first step is done.
    job.pause()
    threading.Timer(0.7, resume).start()
    halted = daemon.generate_clip(
        CLIP_MODEL, "a blue disc grows", seed=3, format="rgb8", on_progress=note, job=job
    )
    assert bytes(halted.data) == bytes(whole.data)
    # One step may have been under way.
    assert len([at for at in done if at < resumed[0]]) <= 1
    assert len([at for at in done if at >= resumed[0]]) >= 3


def test_a_clip_that_was_left_goes_on_from_its_checkpoint(daemon, tmp_path):
    # Steps enough that there are some left when the cancel comes.
    asked = {"model": CLIP_MODEL, "prompt": "a green digit turns", "seed": 5, "steps": 24, "format": "rgb8"}
    whole = daemon.generate_clip(**asked)
    job, kept = mote.ClipJob(), tmp_path / "kept"

    def leave(preview):
        if preview.frame_index >= 2:
            job.cancel()

    with pytest.raises(mote.Cancelled):
        daemon.generate_clip(**asked, checkpoint=kept, on_preview=leave, job=job)
    resumed = daemon.generate_clip(**asked, checkpoint=kept)
    assert resumed.receipt.resumed_steps >= 1
    assert bytes(resumed.data) == bytes(whole.data)


def test_shots_follow_each_other_and_the_next_one_is_steered(daemon):
    job = mote.ClipJob()
    shots = ["a red square moves left", "a red square moves right"]
    told = daemon.generate_clip(CLIP_MODEL, shots, seed=1, format="rgb8")
    assert told.receipt.frames_out > FRAMES
    job.steer("a red square moves up")
    steered = daemon.generate_clip(CLIP_MODEL, shots, seed=1, format="rgb8", job=job)
    assert len(steered.data) == len(told.data)
    first = FRAMES * SIDE * SIDE * 3 // 2
    assert steered.data[:first] == told.data[:first]
    assert steered.data[-first:] != told.data[-first:]


def test_a_generated_clip_is_labelled(daemon):
    clip = daemon.generate_clip(CLIP_MODEL, "a red square moves left", seed=7, format="y4m")
    with daemon.label_clip("shapes", bytes(clip.data), every=4) as labelling:
        told = list(labelling)
    assert [frame.frame_index for frame in told] == [0, 4, 8, 12, 16]
    assert labelling.receipt.frames_in == FRAMES
    boxes = [box for frame in told for box in frame.boxes]
    assert all(0 <= box.x0 <= box.x1 <= SIDE and 0 <= box.y0 <= box.y1 <= SIDE for box in boxes)
    assert all(0 <= box.score <= 1 and box.label for box in boxes)
    times = [frame.time_us for frame in told]
    assert times == sorted(times) and times[0] == 0


def test_clips_that_cannot_be_made_leave_no_file(daemon, tmp_path):
    target = tmp_path / "out.mp4"
    for fields, error in (
        ({"steps": 100_000}, mote.LimitExceeded),
        ({"frames": 1_000_000}, mote.LimitExceeded),
        ({"width": 1_000_000}, mote.LimitExceeded),
        ({"strength": 0.5}, mote.Invalid),
        ({"scheduler": "no such"}, mote.Invalid),
        ({"first_image": b"no picture"}, mote.MoteError),
        ({"model": "rife"}, mote.Invalid),
        ({"model": "no such model"}, mote.ModelNotFound),
    ):
        with pytest.raises(error):
            daemon.generate_clip(**{"model": CLIP_MODEL, "prompt": "a square", "target": target, **fields})
        assert os.listdir(tmp_path) == []


def test_a_clip_of_another_kind_is_written_as_it(daemon, tmp_path):
    bikes = Path(os.environ["MOTE_CACHE"]) / "files/sample-clips/bikes.mp4"
    heads = {"webm": b"\x1aE\xdf\xa3", "webp": b"RIFF", "y4m": b"YUV4MPEG2"}
    for format, head in heads.items():
        target = tmp_path / f"out.{format}"
        receipt = daemon.transform_clip("rife", bikes, target, format=format, frames_max=2, width_max=64)
        assert receipt.frames_out == 3 and target.read_bytes().startswith(head)
