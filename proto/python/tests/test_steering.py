"""Other prompts for a clip that goes on: what is told of each, against a scripted daemon and a real model."""

import os

import pytest

import mote
from test_clips import CLIP_MODEL, close_all, scripted  # noqa: F401

ENDED_FIRST = mote.Steered(None, "the clip had ended when the prompt came")
STEERS_MAX = 32


def begun(peer):
    request_id, verb, _, fds = peer.next()
    assert verb == "generate_clip"
    os.write(fds[0], b"clip")
    close_all(fds)
    return request_id


def steers(peer, request_id, count):
    for _ in range(count):
        said, verb, steer, _ = peer.next()
        assert (verb, steer.target_request_id) == ("steer_clip", request_id)
        peer.reply(said, "ok")


def test_each_prompt_is_told_of_in_order_and_what_came_too_late_before_the_end(scripted):  # noqa: F811
    def script(peer):
        request_id = begun(peer)
        steers(peer, request_id, 3)
        peer.reply(request_id, "steered", from_segment=2)
        peer.reply(request_id, "steered", why="prompt: has 900 tokens, the model takes 512")
        peer.done(request_id)
        request_id = begun(peer)
        steers(peer, request_id, 1)
        peer.reply(request_id, "failed", status={"message": "shutting down", "shutting_down": {}})

    daemon, job, told = scripted(script), mote.ClipJob(), []
    for prompt in ("a", "b", "c"):
        job.steer(prompt)
    assert daemon.generate_clip(CLIP_MODEL, ["x", "y", "z"], on_steered=told.append, job=job).data
    long = mote.Steered(None, "prompt: has 900 tokens, the model takes 512")
    assert told == [mote.Steered(2, ""), long, ENDED_FIRST]
    with pytest.raises(mote.Invalid, match="has ended") as refused:
        job.steer("d")
    assert refused.value.field == "target_request_id"

    job, told = mote.ClipJob(), []
    job.steer("a")
    with pytest.raises(mote.ShuttingDown):
        daemon.generate_clip(CLIP_MODEL, "x", on_steered=told.append, job=job)
    assert told == [ENDED_FIRST]


def test_what_cannot_be_set_is_refused_at_once(scripted):  # noqa: F811
    def script(peer):
        request_id, verb, _, fds = peer.next()
        assert verb == "label_clip"
        close_all(fds)
        peer.done(request_id)

    daemon = scripted(script)
    job = mote.ClipJob()
    with pytest.raises(mote.LimitExceeded) as refused:
        job.steer("x" * (1 << 20) + "x")
    assert (refused.value.what, refused.value.limit) == ("bytes of prompt", 1 << 20)
    with pytest.raises(mote.Invalid, match="NUL"):
        job.steer("a\0b")
    for _ in range(STEERS_MAX):
        job.steer("a")
    with pytest.raises(mote.LimitExceeded) as refused:
        job.steer("a")
    assert (refused.value.have, refused.value.limit) == (STEERS_MAX + 1, STEERS_MAX)
    # What was said ahead has no place in other work, which is not begun.
    with pytest.raises(mote.Invalid, match="generates no clip"):
        daemon.label_clip("motion", b"clip", job=job)
    job = mote.ClipJob()
    labelling = daemon.label_clip("motion", b"clip", job=job)
    with pytest.raises(mote.Invalid, match="generates no clip"):
        job.steer("a")
    assert list(labelling) == []


def test_what_is_told_unasked_ends_the_work(scripted):  # noqa: F811
    def script(peer):
        for _ in range(2):
            request_id = begun(peer)
            peer.reply(request_id, "steered", from_segment=1)
            _, verb, cancel, _ = peer.next()
            assert (verb, cancel.target_request_id) == ("cancel", request_id)

    daemon = scripted(script)
    for job in (None, mote.ClipJob()):
        with pytest.raises(mote.ProtocolError, match="not set"):
            daemon.generate_clip(CLIP_MODEL, "x", job=job)


def test_a_clip_of_words_tells_from_which_shot_on_a_prompt_counts(daemon):
    job, told = mote.ClipJob(), []
    job.steer("a red square moves up")
    job.steer("a blue disc grows " * 400)

    def late(it):
        told.append(it)
        if len(told) == 2:
            assert it.from_segment is None and "tokens" in it.why

    def on_progress(progress):
        # The second shot, which is the last one, has begun.
        if progress.stage == "denoise" and progress.done > progress.total // 2 and len(told) == 2:
            job.steer("a green digit turns")
            told.append(None)

    shots = ["a red square moves left", "a red square moves right"]
    daemon.generate_clip(CLIP_MODEL, shots, seed=1, on_steered=late, on_progress=on_progress, job=job)
    assert told[0] == mote.Steered(1, "")
    assert told[3].from_segment is None and "segment" in told[3].why, told
    assert len(told) == 4
