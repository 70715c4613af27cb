"""Measure an exported RIFE on a real clip: predict every second frame from its neighbours.

    python check.py rife40_f16.onnx CLIP.mp4 [OTHER.onnx]

Prints the mean PSNR against the true frames for RIFE and for a plain blend, and the largest
difference to another model where one is given. Frames are centre-cropped to a multiple of 32.
"""

import sys

import av
import numpy as np
import onnxruntime

FRAMES = 41
MULTIPLE = 32


def frames(path):
    """The first FRAMES frames as f32 [1,3,h,w] in 0..1."""
    out = []
    for frame in av.open(path).decode(video=0):
        image = frame.to_ndarray(format="rgb24")
        height, width = (size // MULTIPLE * MULTIPLE for size in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        image = image[top : top + height, left : left + width]
        out.append(np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255)
        if len(out) == FRAMES:
            break
    return out


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def psnr(image, truth):
    return -10 * np.log10(np.mean((image - truth) ** 2))


def main():
    clip, sessions = frames(sys.argv[2]), [session(path) for path in [sys.argv[1]] + sys.argv[3:]]
    rife, blend, difference = [], [], 0.0
    half = np.full((1, 1, 1, 1), 0.5, np.float32)
    for before, truth, after in zip(clip[0::2], clip[1::2], clip[2::2]):
        outputs = [s.run(None, {"img0": before, "img1": after, "timestep": half})[0] for s in sessions]
        difference = max(difference, *(np.abs(outputs[0] - other).max() for other in outputs))
        rife.append(psnr(outputs[0], truth))
        blend.append(psnr((before + after) / 2, truth))
    print(f"onnxruntime {onnxruntime.__version__}, {len(rife)} frames of {clip[0].shape}")
    print(f"RIFE {np.mean(rife):.2f} dB, blend {np.mean(blend):.2f} dB, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
