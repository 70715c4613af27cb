"""Frames in and out of streams, against tensors that numpy makes."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import mote

WIDTH, HEIGHT = 1280, 720
EXAMPLE = Path(__file__).parents[1] / "examples" / "camera.py"
# The same operations in 32 bits, in another order.
TOLERANCE = 2e-6
ONNXRUNTIME = {"require_backend": "onnxruntime"}


def filmed(number, frame):
    """A picture of noise that moves."""
    random = np.random.default_rng(number)
    frame.plane(0)[...] = random.integers(16, 236, (HEIGHT, WIDTH), np.uint8)
    frame.plane(1)[...] = random.integers(16, 241, (HEIGHT // 2, WIDTH // 2, 2), np.uint8)


def tensor_of(frame):
    """BT.709 in the limited range as f32 [1, 3, height, width] in 0..1."""
    luma = (frame.plane(0).astype(np.float64) - 16) / 219
    chroma = (frame.plane(1).astype(np.float64) - 128) / 224
    cb, cr = (chroma[..., i].repeat(2, 0).repeat(2, 1) for i in (0, 1))
    red, blue = luma + 1.5748 * cr, luma + 1.8556 * cb
    green = (luma - 0.2126 * red - 0.0722 * blue) / 0.7152
    return np.stack([red, green, blue]).clip(0, 1)[None].astype(np.float32)


def test_a_camera_loop_copies_nothing_and_gives_what_numpy_tensors_give(daemon):
    with daemon.stream("halve", options=ONNXRUNTIME) as stream:
        ring = [stream.frame("nv12", WIDTH, HEIGHT, matrix="bt709") for _ in range(3)]
        means, half = stream.empty((1, 3, 45, 80)), stream.frame("f32_nchw", WIDTH, HEIGHT)
        for number in range(6):
            frame = ring[number % 3]
            filmed(number, frame)
            outputs = stream.push(x=frame, out={"means": means, "half": half})
            assert outputs.bytes_copied == 0
            assert outputs.bytes_converted == half.array.nbytes
            assert list(outputs) == ["means"] and outputs["means"] is means
            wanted = daemon.run("halve", x=tensor_of(frame), options=ONNXRUNTIME)
            np.testing.assert_allclose(means, wanted["means"], atol=TOLERANCE, rtol=0)
            np.testing.assert_allclose(half.array, wanted["half"][0], atol=TOLERANCE, rtol=0)
    assert stream.receipt.bytes_copied == 0
    assert stream.receipt.bytes_converted == 6 * half.array.nbytes


def test_a_frame_that_is_a_tensor_already_is_neither_copied_nor_converted(daemon):
    with daemon.stream("halve", options=ONNXRUNTIME) as stream:
        floats = stream.frame("f32_nchw", WIDTH, HEIGHT)
        means, half = stream.empty((1, 3, 45, 80)), stream.frame("f32_nchw", WIDTH, HEIGHT)
        for number in range(3):
            values = np.random.default_rng(number).random(floats.array.shape, np.float32)
            floats.array[...] = values
            outputs = stream.push(x=floats, out={"means": means, "half": half})
            assert (outputs.bytes_copied, outputs.bytes_converted) == (0, 0)
            wanted = daemon.run("halve", x=values[None], options=ONNXRUNTIME)
            np.testing.assert_array_equal(means, wanted["means"])
            np.testing.assert_array_equal(half.array, wanted["half"][0])


def test_a_picture_is_scaled_into_the_size_that_is_asked_for(daemon):
    """Text detection leaves its size open."""
    with daemon.stream("rapidocr-det", options=ONNXRUNTIME) as stream:
        frame = stream.frame("rgb8", 640, 360, tensor_size=(320, 160))
        frame.array[...] = np.random.default_rng(1).integers(0, 256, (360, 640, 3), np.uint8)
        result = stream.push(x=frame)["sigmoid_0.tmp_0"]
    pixels = frame.array.astype(np.float64)
    rows = (np.arange(160) + 0.5) * 360 / 160 - 0.5
    above, weight = rows.astype(int), (rows % 1)[:, None, None]
    pixels = pixels[above] * (1 - weight) + pixels[np.minimum(above + 1, 359)] * weight
    pixels = (pixels[:, 0::2] + pixels[:, 1::2]) / 2
    tensor = ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None].astype(np.float32)
    wanted = daemon.run("rapidocr-det", x=tensor, options=ONNXRUNTIME)["sigmoid_0.tmp_0"]
    np.testing.assert_allclose(result, wanted, atol=1e-3, rtol=0)


def test_an_output_is_written_as_a_frame_of_bytes(daemon):
    with daemon.stream("halve", options=ONNXRUNTIME) as stream:
        frame = stream.frame("rgb8", WIDTH, HEIGHT)
        frame.array[...] = np.random.default_rng(2).integers(0, 128, frame.array.shape) * 2
        half = stream.frame("bgr8", WIDTH, HEIGHT)
        outputs = stream.push(x=frame, out={"half": half})
        assert "half" not in outputs
        np.testing.assert_array_equal(half.array[..., ::-1], frame.array // 2)


def test_a_frame_may_lie_anywhere_in_an_array(daemon):
    """A picture with a border, and two frames of one array."""
    with daemon.stream("halve", options=ONNXRUNTIME) as stream:
        wide = stream.empty((HEIGHT + 2, WIDTH + 4, 3), np.uint8)
        wide[...] = np.random.default_rng(3).integers(0, 256, wide.shape, np.uint8)
        stride = wide.strides[0]
        inside = mote.Frame(wide, "rgb8", WIDTH, HEIGHT, planes=[(stride + 6, stride)])
        two = stream.empty((2, HEIGHT, WIDTH, 3), np.uint8)
        two[1] = wide[1:-1, 2:-2]
        second = mote.Frame(two[1], "rgb8", WIDTH, HEIGHT)
        first = stream.push(x=inside)["means"]
        np.testing.assert_array_equal(first, stream.push(x=second)["means"])


def test_frames_that_do_not_hold_are_refused_by_field(daemon):
    with daemon.stream("halve", options=ONNXRUNTIME) as stream:
        with pytest.raises(ValueError, match="a plane ends at byte 921600 of an array of 100"):
            stream.push(x=mote.Frame(stream.empty((100,), np.uint8), "nv12", WIDTH, HEIGHT))
        with pytest.raises(mote.Invalid) as refused:
            stream.push(x=mote.Frame(stream.empty((HEIGHT, WIDTH, 3), np.uint8), "rgb8", WIDTH, HEIGHT, planes=[(0, 3)]))
        assert refused.value.field == "frames[x].planes[0].stride"
        with pytest.raises(ValueError, match="x is in no contiguous array"):
            stream.push(x=mote.Frame(np.zeros(100, np.uint8), "gray8", 10, 10))
        with pytest.raises(ValueError, match="none of rgb8"):
            stream.frame("yuyv", WIDTH, HEIGHT)
        frame = stream.frame("nv12", WIDTH, HEIGHT, matrix="bt709", range="full")
        filmed(0, frame)
        stream.push(x=frame)


def test_the_camera_loop_of_the_examples_runs(socket_path, monkeypatch, capsys):
    monkeypatch.setenv("MOTE_SOCKET", str(socket_path))
    runpy.run_path(str(EXAMPLE))["main"]("face-detection", "20")
    said = capsys.readouterr().out
    assert re.search(r"^20 frames, [\d.]+ frames/s, [\d.]+ ms p50", said)
    assert "bytes per frame: 0 copied, 196608 converted" in said
