"""A camera loop: a model sees frames where the camera put them, at its own pace.

    python proto/python/examples/camera.py [MODEL [FRAMES]]

A synthetic camera draws NV12 frames of 1280×720 into a ring of buffers that the daemon maps. Each is named to the
model (selfie-segmentation, unless another is named), which reads it there; its outputs are written to memory of
ours as well. The program prints frames per second, how long a frame took, and what was copied: nothing.
"""

import sys
import time

import numpy as np

import mote

WIDTH, HEIGHT = 1280, 720
# Frames that the camera has room for.
RING = 3


def draw(number, frame):
    """A light square that goes its way over a darker ramp."""
    luma, chroma = frame.plane(0), frame.plane(1)
    luma[...] = np.linspace(40, 140, HEIGHT, dtype=np.uint8)[:, None]
    left = number * 8 % (WIDTH - 200)
    luma[260:460, left : left + 200] = 220
    chroma[...] = (120, 140)


def main(model="selfie-segmentation", frames="200"):
    took, copied, converted, compute_us = [], 0, 0, 0
    with mote.connect() as daemon, daemon.stream(model) as stream:
        name = stream.inputs[0].name
        out = {
            spec.name: stream.empty(tuple(spec.shape), mote.numpy_dtype(spec.dtype))
            for spec in stream.outputs
            if min(spec.shape) > 0
        }
        ring = [stream.frame("nv12", WIDTH, HEIGHT) for _ in range(RING)]
        began = time.perf_counter()
        for number in range(int(frames)):
            frame = ring[number % RING]
            draw(number, frame)
            pushed = time.perf_counter()
            result = stream.push_with({name: frame}, out=out)
            took.append(time.perf_counter() - pushed)
            copied += result.bytes_copied
            converted += result.bytes_converted
            compute_us += result.compute_us
        elapsed = time.perf_counter() - began
    count = len(took)
    p50, p99 = np.percentile(took, [50, 99]) * 1e3
    print(
        f"{count} frames, {count / elapsed:.1f} frames/s, {p50:.2f} ms p50, {p99:.2f} ms p99"
        f" ({compute_us / count / 1e3:.2f} ms in the library)"
    )
    print(f"bytes per frame: {copied // count} copied, {converted // count} converted")
    print(stream.receipt.backend, "on", stream.receipt.device.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
