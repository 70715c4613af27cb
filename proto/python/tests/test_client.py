"""The client against a real daemon and real models."""

import gc
import json
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest

import mote

REPOSITORY = Path(__file__).parents[3]
README = Path(__file__).parents[1] / "README.md"
TEXT_MODEL = "smollm2-135m"
# Probabilities in float32: the reference differs by rounding alone.
TOLERANCE = 1e-5
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The client's own limit of buffers on a connection is 64: more than that must have come and gone.
MANY = 100


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


# ---- Tensors ----


def test_a_numpy_array_gives_the_reference(daemon, case):
    outputs = daemon.run("magika", bytes=case("magika", "input0"))
    expected = case("magika", "output0")
    np.testing.assert_allclose(outputs["target_label"], expected, atol=TOLERANCE, rtol=0)
    receipt = outputs.receipt
    assert receipt.model == "magika" and receipt.backend in ("onnxruntime", "tract")
    assert receipt.placement_read_back and sum(share.nodes for share in receipt.placement) > 0
    outputs["target_label"][...] = 0  # The array is the caller's.


def test_both_backends_can_be_required(daemon, case):
    for backend in ("onnxruntime", "tract"):
        options = {"require_backend": backend}
        outputs = daemon.run("magika", bytes=case("magika", "input0"), options=options)
        assert outputs.receipt.backend == backend
        expected = case("magika", "output0")
        np.testing.assert_allclose(outputs["target_label"], expected, atol=TOLERANCE, rtol=0)


def test_arrays_in_any_layout_and_byte_order_go_in_by_value(daemon, case):
    tokens, expected = case("magika", "input0"), case("magika", "output0")
    strided = np.repeat(tokens, 2, axis=1)[:, ::2]
    assert not strided.flags.c_contiguous
    for array in (strided, np.asfortranarray(tokens), tokens.astype(">i4")):
        outputs = daemon.run_with("magika", {"bytes": array})
        np.testing.assert_allclose(outputs["target_label"], expected, atol=TOLERANCE, rtol=0)


def test_arrays_from_empty_travel_without_a_copy(daemon, case):
    picture, expected = case("text_detection_small", "input0"), case("text_detection_small", "output0")
    x, y = daemon.empty(picture.shape), daemon.empty(expected.shape)
    x[...] = picture
    outputs = daemon.run("rapidocr-det", x=x, out={"sigmoid_0.tmp_0": y})
    assert outputs["sigmoid_0.tmp_0"] is y
    assert outputs.bytes_copied == 0
    np.testing.assert_allclose(y, expected, atol=TOLERANCE, rtol=0)


def test_large_arrays_go_in_and_come_out(daemon, case):
    picture, expected = case("text_detection_large", "input0"), case("text_detection_large", "output0")
    assert picture.nbytes > daemon.welcome.limits.inline_bytes_max < expected.nbytes
    for _ in range(3):
        outputs = daemon.run("rapidocr-det", x=picture)
        np.testing.assert_allclose(outputs["sigmoid_0.tmp_0"], expected, atol=TOLERANCE, rtol=0)


def test_outputs_are_only_written_to_memory_of_the_daemon(daemon, case):
    elsewhere = np.empty((3, 214), np.float32)
    with pytest.raises(ValueError, match="target_label"):
        daemon.run("magika", bytes=case("magika", "input0"), out={"target_label": elsewhere})
    with pytest.raises(TypeError, match="bytes"):
        daemon.run("magika", bytes=np.array(["text"]))


# ---- Streams ----


def hear(stream, chunks, expected):
    for chunk, chance in zip(chunks, expected):
        outputs = stream.push(input=chunk)
        np.testing.assert_allclose(outputs["output"], chance, atol=TOLERANCE, rtol=0)


def test_a_stream_keeps_its_state(daemon, case):
    chunks, expected = case("silero_vad", "input0"), case("silero_vad", "output0")
    for _ in range(2):
        with daemon.stream("silero-vad") as stream:
            assert [spec.name for spec in stream.inputs] == ["input"]
            assert [spec.name for spec in stream.outputs] == ["output"]
            hear(stream, chunks, expected)
        assert stream.receipt.steps == len(chunks)
        assert stream.receipt.placement_read_back


def test_a_stream_over_shared_arrays_copies_nothing(daemon, case):
    chunks, expected = case("silero_vad", "input0"), case("silero_vad", "output0")
    with daemon.stream("silero-vad") as stream:
        x, y = stream.empty(chunks.shape[1:]), stream.empty(expected.shape[1:])
        for chunk, chance in zip(chunks, expected):
            x[...] = chunk
            outputs = stream.push(input=x, out={"output": y})
            assert outputs.bytes_copied == 0
            np.testing.assert_allclose(y, chance, atol=TOLERANCE, rtol=0)


def test_a_push_that_does_not_fit_leaves_the_stream_in_order(daemon, case):
    chunks, expected = case("silero_vad", "input0"), case("silero_vad", "output0")
    with daemon.stream("silero-vad") as stream:
        with pytest.raises(mote.Invalid) as refused:
            stream.push(input=chunks[0].astype(np.float64))
        assert refused.value.field == "inputs[input].dtype"
        hear(stream, chunks[:5], expected[:5])


# ---- Text ----


def test_an_answer_keeps_to_a_json_schema_whatever_is_drawn(daemon):
    schema = {
        "type": "object",
        "properties": {
            "animal": {"enum": ["whale", "crab"]},
            "legs": {"type": "integer", "minimum": 0, "maximum": 10},
        },
        "required": ["animal", "legs"],
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": False},
    }
    question = "Describe an animal of the ocean."
    for sampling in ({}, {"temperature": 1.5, "seed": 1}, {"temperature": 1.0, "top_k": 3, "min_p": 0.1, "seed": 2}):
        answer = daemon.generate(TEXT_MODEL, question, json_schema=schema, tokens_max=60, **sampling)
        value = json.loads("".join(answer))
        assert value["animal"] in ("whale", "crab") and 0 <= value["legs"] <= 10
        assert answer.finish == "end_of_answer"


def test_an_answer_matches_a_regular_expression(daemon):
    answer = daemon.generate(TEXT_MODEL, "When did Columbus sail?", regex="In the year [0-9]{4}[.]")
    assert re.fullmatch(r"In the year [0-9]{4}[.]", "".join(answer))
    for constraint, field in (
        ({"regex": "("}, "constraint.regex"),
        ({"json_schema": {"type": "integer", "minimum": 2, "maximum": 1}}, "constraint.json_schema"),
    ):
        with pytest.raises(mote.Invalid) as refused:
            list(daemon.generate(TEXT_MODEL, "Hello", **constraint))
        assert refused.value.field == field


def test_tokens_tell_how_likely_they_were(daemon):
    question = "Count up from one."
    answer = daemon.generate(TEXT_MODEL, question, tokens_max=10, logprobs=4)
    text = "".join(answer)
    assert "".join(token.text for token in answer.tokens) == text
    for token in answer.tokens:
        # Greedy: the token that was taken is the likeliest.
        assert len(token.top) == 4 and token.top[0].id == token.id
        assert token.top[0].logprob == token.logprob <= 0
        assert [top.logprob for top in token.top] == sorted((top.logprob for top in token.top), reverse=True)
    silent = daemon.generate(TEXT_MODEL, question, tokens_max=10)
    assert "".join(silent) == text and silent.tokens == []


def test_a_bias_rules_tokens_out(daemon):
    question = "Count up from one."
    first = daemon.generate(TEXT_MODEL, question, tokens_max=1, logprobs=2)
    list(first)
    (token,) = first.tokens
    other = daemon.generate(TEXT_MODEL, question, tokens_max=1, logit_bias={token.id: -100})
    list(other)
    assert other.token_ids == [token.top[1].id]


def test_tools_are_refused_by_a_template_that_takes_none(daemon):
    with pytest.raises(mote.Invalid) as refused:
        list(daemon.generate(TEXT_MODEL, "Rain?", tools=[{"type": "function", "function": {"name": "sky"}}]))
    assert refused.value.field == "tools"


def test_a_deterministic_answer_shares_no_run_and_one_that_quotes_takes_fewer(daemon):
    prompt = "Repeat after me: one two three four five six seven. One two three four five six seven. One two"
    plain = daemon.generate(TEXT_MODEL, prompt, raw=True, tokens_max=30, deterministic=True)
    list(plain)
    assert plain.receipt.shared_steps == 0
    drafted = daemon.generate(TEXT_MODEL, prompt, raw=True, tokens_max=30, draft_tokens_max=8)
    list(drafted)
    receipt = drafted.receipt
    assert 0 < receipt.accepted_tokens <= receipt.drafted_tokens
    assert receipt.steps < plain.receipt.steps
    with pytest.raises(mote.Invalid) as refused:
        list(daemon.generate(TEXT_MODEL, prompt, deterministic=True, draft_tokens_max=8))
    assert refused.value.field == "draft_tokens_max"


def test_a_window_slides_when_asked(daemon):
    prompt = "river " * 2_100
    with pytest.raises(mote.ContextOverflow):
        list(daemon.generate(TEXT_MODEL, prompt, raw=True, tokens_max=4))
    answer = daemon.generate(TEXT_MODEL, prompt, raw=True, tokens_max=4, slide_context=True)
    list(answer)
    assert answer.receipt.dropped_tokens > 500 and len(answer.token_ids) == 4


def test_a_model_that_does_not_reason_answers(daemon):
    answer = daemon.generate(TEXT_MODEL, "Hello", tokens_max=5, reasoning=True, reasoning_tokens_max=3)
    assert "".join(answer) and answer.reasoning == ""
    assert answer.receipt.reasoning_tokens == 0


def test_an_answer_comes_in_pieces_and_is_the_same_each_time(daemon):
    answers = []
    for _ in range(2):
        answer = daemon.generate(TEXT_MODEL, "Write two sentences about the ocean.", tokens_max=100)
        pieces = list(answer)
        assert len(pieces) > 10
        assert answer.finish == "end_of_answer"
        assert answer.receipt.generated_tokens == len(answer.token_ids)
        answers.append("".join(pieces))
    assert answers[0] == answers[1]
    assert "ocean" in answers[0]


def test_an_answer_longer_than_its_credit_goes_on(daemon):
    options = {"credit": 4}
    answer = daemon.generate(TEXT_MODEL, "Count up from one.", tokens_max=40, temperature=1.0, seed=3, options=options)
    text = "".join(answer)
    wide = daemon.generate(TEXT_MODEL, "Count up from one.", tokens_max=40, temperature=1.0, seed=3)
    assert "".join(wide) == text
    assert wide.token_ids == answer.token_ids


def test_an_answer_ends_before_its_stop_string(daemon):
    question = "Write two sentences about the ocean."
    whole = "".join(daemon.generate(TEXT_MODEL, question, tokens_max=32))
    stop = whole[len(whole) // 2 :][:7]
    answer = daemon.generate(TEXT_MODEL, question, tokens_max=32, stop=stop)
    assert "".join(answer) == whole[: whole.index(stop)]
    assert answer.finish == "stop_string"


def running(daemon):
    status = daemon.status()
    return status.jobs_running + status.jobs_queued


def wait_until_idle(daemon):
    done = threading.Event()
    for _ in range(1000):
        if running(daemon) == 0:
            return
        done.wait(0.01)
    pytest.fail("the daemon is still at work")


@pytest.mark.parametrize("leave", ["close", "drop", "with"])
def test_an_answer_that_is_left_is_cancelled(daemon, leave):
    prompt = "Tell a long story about a lighthouse."
    answer = daemon.generate(TEXT_MODEL, prompt, tokens_max=1000, temperature=1.0, seed=1)
    pieces = [next(answer) for _ in range(3)]
    assert len(pieces) == 3 and running(daemon) == 1
    if leave == "close":
        answer.close()
        assert list(answer) == []
    elif leave == "with":
        with answer:
            pass
    del answer
    wait_until_idle(daemon)
    assert "".join(daemon.generate(TEXT_MODEL, "Hello", tokens_max=5))


def test_threads_share_a_connection(daemon, case):
    tokens, expected = case("magika", "input0"), case("magika", "output0")
    # An answer nobody reads meanwhile must not hold up the others.
    unread = daemon.generate(TEXT_MODEL, "Tell a story.", tokens_max=200, temperature=1.0, seed=2)
    wrong = []

    def work():
        for _ in range(10):
            outputs = daemon.run("magika", bytes=tokens)
            label = outputs.get("target_label")
            if label is None or not np.allclose(label, expected, atol=TOLERANCE, rtol=0):
                wrong.append(outputs)

    def read():
        if not "".join(daemon.generate(TEXT_MODEL, "Hello", tokens_max=20)):
            wrong.append("no answer")

    threads = [threading.Thread(target=target) for target in (work, work, read)]
    for thread in threads:
        thread.start()
    first = next(unread)
    for thread in threads:
        thread.join()
    assert first and not wrong
    unread.close()


def test_closing_wakes_a_thread_that_waits(socket_path):
    client = mote.connect(socket_path)
    answer = client.generate(TEXT_MODEL, "Tell a story.", tokens_max=1000, temperature=1.0, seed=4)
    seen, ended = threading.Event(), []

    def read():
        with pytest.raises(mote.ProtocolError):
            for _ in answer:
                seen.set()
        ended.append(True)

    thread = threading.Thread(target=read)
    thread.start()
    assert seen.wait(60)
    client.close()
    thread.join(60)
    assert ended == [True]


# ---- Embeddings ----

EMBEDDING_MODEL = "tiny-bert"


def golden_vectors():
    folder = REPOSITORY / "tests" / "models" / "embedding" / "bert"
    texts = json.loads((folder / "golden.json").read_text())["texts"]
    vectors = np.array([text["mean"] for text in texts])
    return [text["text"] for text in texts], vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_texts_become_the_vectors_of_transformers(daemon):
    texts, expected = golden_vectors()
    made = daemon.embed(EMBEDDING_MODEL, texts)
    assert made.vectors.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=1e-5, rtol=0)
    assert len(made) == len(texts) == len(made.tokens) == made.receipt.texts
    assert made.truncated == [] and made.receipt.prompt_tokens == sum(made.tokens)
    one = daemon.embed(EMBEDDING_MODEL, texts[0])
    np.testing.assert_allclose(one[0], expected[0], atol=1e-5, rtol=0)
    few = daemon.embed(EMBEDDING_MODEL, texts, dimensions=8)
    assert few.vectors.shape == (len(texts), 8)
    np.testing.assert_allclose(np.linalg.norm(few, axis=1), 1, atol=1e-5)
    prefixed = daemon.embed(EMBEDDING_MODEL, ["crab"], kind="query")
    np.testing.assert_array_equal(prefixed, daemon.embed(EMBEDDING_MODEL, ["the crab"]))


def test_many_texts_come_as_passed_memory_with_progress(daemon):
    seen = []
    made = daemon.embed(EMBEDDING_MODEL, ["crab", "the whale"] * 500, on_progress=seen.append)
    assert made.vectors.nbytes > daemon.welcome.limits.inline_bytes_max
    np.testing.assert_allclose(made[::2], np.tile(made[0], (500, 1)), atol=1e-5)
    done = [progress.done for progress in seen if progress.stage == "embed"]
    assert done and done == sorted(done) and done[-1] < 1000


def test_texts_that_cannot_be_embedded_are_refused(daemon):
    long = " ".join(["whale"] * 40)
    with pytest.raises(mote.ContextOverflow) as refused:
        daemon.embed(EMBEDDING_MODEL, ["crab", long])
    assert (refused.value.text, refused.value.context_tokens) == (1, 24)
    made = daemon.embed(EMBEDDING_MODEL, ["crab", long], truncate=True)
    assert made.truncated == [1] and made.tokens == [3, 24]
    for texts, fields, field in (
        ([], {}, "texts"),
        (["crab", ""], {}, "texts[1]"),
        (["cr\0ab"], {}, "texts[0]"),
        (["crab"], {"dimensions": 33}, "dimensions"),
    ):
        with pytest.raises(mote.Invalid) as refused:
            daemon.embed(EMBEDDING_MODEL, texts, **fields)
        assert refused.value.field == field
    with pytest.raises(mote.LimitExceeded):
        daemon.embed(EMBEDDING_MODEL, ["crab"] * 1025)
    with pytest.raises(mote.Invalid) as refused:
        daemon.embed("magika", ["crab"])
    assert refused.value.field == "model"
    with pytest.raises(ValueError, match="kind|query"):
        daemon.embed(EMBEDDING_MODEL, ["crab"], kind="answer")


# ---- Clips ----


def bikes():
    return Path(os.environ["MOTE_CACHE"]) / "files/sample-clips/bikes.mp4"


def test_a_clip_gets_a_frame_between_each_two(daemon, tmp_path):
    target, sheet = tmp_path / "out.gif", tmp_path / "out.png"
    stages, previews = set(), []
    receipt = daemon.transform_clip(
        "rife",
        bikes(),
        target,
        format="gif",
        contact_sheet=sheet,
        frames_max=3,
        width_max=160,
        on_progress=lambda progress: stages.add(progress.stage),
        on_preview=previews.append,
        preview_every=2,
    )
    assert (receipt.frames_in, receipt.frames_out) == (3, 5)
    assert target.read_bytes().startswith(b"GIF89a")
    assert sheet.read_bytes().startswith(PNG_SIGNATURE)
    assert stages
    assert [preview.frame_index for preview in previews] == [0, 2, 4]
    assert all(preview.png.startswith(PNG_SIGNATURE) for preview in previews)
    assert {preview.width for preview in previews} == {160}
    assert sorted(os.listdir(tmp_path)) == ["out.gif", "out.png"]


def test_a_clip_that_fails_leaves_no_file_and_touches_none(daemon, tmp_path):
    target, sheet = tmp_path / "out.mp4", tmp_path / "out.png"
    target.write_bytes(b"an older clip")

    def refuse(_):
        raise KeyError("seen enough")

    failures = [
        ({"model": "no such model"}, mote.ModelNotFound),
        ({"model": "magika"}, mote.Invalid),
        ({"on_preview": refuse, "preview_every": 1}, KeyError),
        ({"on_progress": refuse}, KeyError),
    ]
    for changed, error in failures:
        settings = {"model": "rife", "width_max": 160, **changed}
        with pytest.raises(error):
            daemon.transform_clip(source=bikes(), target=target, contact_sheet=sheet, **settings)
        assert target.read_bytes() == b"an older clip"
        assert os.listdir(tmp_path) == ["out.mp4"]
    wait_until_idle(daemon)
    os.umask(mask := os.umask(0))
    daemon.transform_clip("rife", bikes(), target, frames_max=2, width_max=160)
    assert target.read_bytes()[4:8] == b"ftyp"
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


# ---- Refusals ----


def test_refusals_are_typed_and_the_connection_goes_on(daemon, case):
    tokens = case("magika", "input0")
    with pytest.raises(mote.ModelNotFound) as refused:
        daemon.run("magica", bytes=tokens)
    assert refused.value.model == "magica" and "magika" in refused.value.similar
    for inputs, field in [
        ({"bytes": tokens.astype(np.float32)}, "inputs[bytes].dtype"),
        ({"bytes": tokens[:, :100]}, "inputs[bytes].shape"),
        ({"octets": tokens}, "inputs[octets].name"),
        ({}, "inputs[bytes]"),
    ]:
        with pytest.raises(mote.Invalid) as refused:
            daemon.run_with("magika", inputs)
        assert refused.value.field == field
    with pytest.raises(mote.NoBackend) as refused:
        daemon.run("magika", bytes=tokens, options={"require_provider": "CUDAExecutionProvider"})
    assert len(refused.value.rejected) > 0
    with pytest.raises(mote.ContextOverflow) as refused:
        list(daemon.generate(TEXT_MODEL, "word " * 3000))
    assert refused.value.prompt_tokens > refused.value.context_tokens == 2048
    assert daemon.run("magika", bytes=tokens)["target_label"].shape == (3, 214)


def test_a_closed_connection_says_so(socket_path, case):
    client = mote.connect(socket_path)
    client.close()
    client.close()
    with pytest.raises(mote.ProtocolError):
        client.run("magika", bytes=case("magika", "input0"))
    with pytest.raises(ConnectionError):
        mote.connect(socket_path.with_name("nobody.sock"))


# ---- Control ----


def test_the_daemon_tells_of_itself(daemon):
    assert {"magika", TEXT_MODEL} <= {model.name for model in daemon.models()}
    assert any(device.works for device in daemon.devices())
    assert daemon.explain("magika").chosen.backend
    assert daemon.explain("magika", measure=True).chosen.backend
    daemon.load("magika")
    assert [spec.name for spec in daemon.inspect("magika").inputs] == ["bytes"]
    daemon.pin("magika")
    daemon.pin("magika", False)
    daemon.unload("magika")
    assert daemon.status().connections >= 1


# ---- Events ----


def test_a_watch_tells_of_work_as_it_happens(daemon, socket_path, case):
    daemon.load("magika")
    daemon.unload("magika")
    with daemon.watch() as watch, mote.connect(socket_path) as other:
        # Its answer comes after the watch has begun.
        daemon.status()
        other.run("magika", bytes=case("magika", "input0"))
        with pytest.raises(mote.Invalid):
            other.run("magika", bytes=case("magika", "input0")[:, :7])
        other.unload("magika")
        events = []
        while not {"worker_ended", "model_unloaded"} <= {event.kind for event in events}:
            events.append(next(watch))
    events = [event for event in events if getattr(event, "model", None) in (None, "magika")]
    kinds = [event.kind for event in events]
    assert kinds.index("worker_started") < kinds.index("model_loaded") < kinds.index("job_ended")
    times = [event.at_ms for event in events]
    assert times == sorted(times)
    started = [event.job for event in events if event.kind == "job_started"]
    ended = {event.job: event.outcome for event in events if event.kind == "job_ended"}
    assert list(ended) == started
    assert list(ended.values()) == ["ok", "invalid"]
    worker, gone = events[kinds.index("worker_started")], events[kinds.index("worker_ended")]
    assert worker.pid == gone.pid > 0 and gone.expected
    assert "worker_ended" in repr(gone) and "magika" in repr(gone)


def test_one_connection_watches_once_at_a_time(daemon):
    first = daemon.watch()
    with pytest.raises(mote.Invalid):
        next(daemon.watch())
    first.close()
    assert list(first) == []
    with daemon.watch() as second:
        daemon.load("magika")
        daemon.unload("magika")
        assert next(second).at_ms > 0


def test_closing_a_watch_wakes_its_reader(daemon):
    watch, waiting, seen = daemon.watch(), threading.Event(), []

    def read():
        waiting.set()
        seen.append([event.kind for event in watch])

    thread = threading.Thread(target=read)
    thread.start()
    assert waiting.wait(60)
    watch.close()
    thread.join(60)
    assert len(seen) == 1
    assert daemon.status().connections >= 1


# ---- Leaks ----


def test_nothing_is_held_after_use(daemon, case):
    tokens, picture = case("magika", "input0"), case("text_detection_small", "input0")
    shape = case("text_detection_small", "output0").shape

    def use():
        daemon.run("magika", bytes=tokens)
        daemon.run("rapidocr-det", x=picture)
        array = daemon.empty(shape)
        daemon.run("rapidocr-det", x=picture, out={"sigmoid_0.tmp_0": array})
        with pytest.raises(mote.Invalid):
            daemon.run("rapidocr-det", x=picture.astype(np.float64))
        with daemon.stream("silero-vad") as stream:
            stream.push(input=stream.empty((1, 576)))

    use()
    before, buffers = descriptors(), daemon.status().buffers
    for _ in range(10):
        use()
    assert descriptors() == before
    assert daemon.status().buffers == buffers


def test_arrays_give_their_memory_back_and_views_keep_it(daemon):
    before = descriptors()
    for _ in range(MANY):
        daemon.empty((16, 16))
    view = daemon.empty((16, 16))[8:, ::2].T
    gc.collect()
    view[...] = 7
    assert daemon.status().buffers == 1
    assert np.all(view == 7)
    del view
    assert descriptors() == before
    assert daemon.status().buffers == 0


def test_connections_come_and_go(socket_path):
    mote.connect(socket_path).close()
    before = descriptors()
    for _ in range(20):
        with mote.connect(socket_path) as client:
            client.empty((4,))
            client.generate(TEXT_MODEL, "Hello", tokens_max=3)
    assert descriptors() == before


# ---- Documentation ----


def test_the_examples_of_the_readme_run(socket_path, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MOTE_SOCKET", str(socket_path))
    monkeypatch.chdir(tmp_path)
    os.symlink(bikes(), "in.mp4")
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    said = capsys.readouterr().out
    assert "onnxruntime" in said and "frame 10: 320×" in said and "job_ended magika" in said
    assert "left it there\n" in said and "frames of (64, 64, 3)" in said and "0.00 s: " in said
