"""Measure the restorers on a real clip.

    python quality.py CLIP.mp4 --animesr animesr/animesr_v2_f16.onnx --basicvsr basicvsr_f16.onnx

Frames are shrunk to a quarter with an anti-aliased filter (Pillow's BICUBIC, as the weights of BasicVSR
were trained on), and enlarged again: PSNR to the frames as they were, in the middle of the
picture (8 pixels at each edge left out), and for bicubic enlargement beside it. AnimeSR was trained on drawn
frames that were compressed and blurred: it is there to be compared, not to win. Prints how much memory
a run takes per pixel, too, as the difference between two sizes, for mote.toml. Pinned: numpy 2.4.6,
onnxruntime 1.31.1, pillow 13.0.0, av 18.1.0.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime
from PIL import Image

from streams import SCALE, animesr, basicvsr, session

FRAMES = 12
MARGIN = 8
# Of frames whose memory is compared.
SIDES = {"AnimeSR": [64, 160], "BasicVSR": [32, 96]}


def frames(path, width, height):
    """The first frames as u8 [n, height, width, 3]: a part of each, of a size that SCALE divides."""
    out = []
    for frame in av.open(path).decode(video=0):
        image = frame.to_ndarray(format="rgb24")
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        out.append(image[top : top + height, left : left + width])
        if len(out) == FRAMES:
            break
    return np.stack(out)


def resized(clip, width, height, method):
    images = [Image.fromarray(frame).resize((width, height), method) for frame in clip]
    return np.stack([np.asarray(image) for image in images])


def psnr(clip, truth):
    """Mean over frames of the PSNR of u8 [n, h, w, 3]."""
    inside = slice(MARGIN, -MARGIN)
    difference = clip[:, inside, inside].astype(np.float64) - truth[:, inside, inside]
    return np.mean(10 * np.log10(255**2 / np.mean(difference**2, (1, 2, 3))))


def to_bytes(made):
    return np.round(np.clip(made, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def peak(model, side):
    """Bytes that one run on frames of side x side takes beside the loaded model, in a process of its own."""
    program = [sys.executable, __file__, "--peak", model, str(side)]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


def run_once(path, side):
    model = session(path)
    shapes = {"frames": (1, 9, side, side), "prev_sr": (1, 3, side * SCALE, side * SCALE)}
    shapes |= {"state": (1, 64, side, side), "clip": (1, 5, 3, side, side)}
    inputs = {it.name: np.zeros(shapes[it.name], np.float32) for it in model.get_inputs()}
    before = resident("VmRSS")
    # The kernel's record begins anew.
    Path("/proc/self/clear_refs").write_text("5")
    model.run(None, inputs)
    print(resident("VmHWM") - before)


def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) << 10


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", nargs="?")
    parser.add_argument("--animesr")
    parser.add_argument("--basicvsr")
    parser.add_argument("--peak", nargs=2)
    parser.add_argument("--size", default="384x256")
    options = parser.parse_args()
    if options.peak:
        return run_once(options.peak[0], int(options.peak[1]))
    width, height = map(int, options.size.split("x"))
    truth = frames(options.clip, width, height)
    small = resized(truth, width // SCALE, height // SCALE, Image.Resampling.BICUBIC)
    print(f"onnxruntime {onnxruntime.__version__}, {len(truth)} frames of {width}x{height}")
    print(f"bicubic {psnr(resized(small, width, height, Image.Resampling.BICUBIC), truth):.2f} dB")
    for name, path, run in [("AnimeSR", options.animesr, animesr), ("BasicVSR", options.basicvsr, basicvsr)]:
        if path:
            print(f"{name} {psnr(to_bytes(run(path, small)), truth):.2f} dB", flush=True)
            sides = SIDES[name]
            peaks = [peak(path, side) for side in sides]
            print(f"{name} takes {(peaks[1] - peaks[0]) / (sides[1] ** 2 - sides[0] ** 2):.0f} bytes per pixel")


if __name__ == "__main__":
    main()
