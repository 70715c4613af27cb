"""Speak a wake word with espeak-ng and write the features that okay_nabu.tflite listens to.

    python make_features.py okay_nabu_features.npy

Needs espeak-ng (Debian) and pymicro-features (PyPI). Output: int8 [steps, 1, 3, 40], one step is
30 ms: three frames of 40 mel bands, quantised with the model's input scale and zero point.
"""

import io
import subprocess
import sys
import wave

import numpy as np
from pymicro_features import MicroFrontend

SEED = 0
SAMPLE_RATE_HZ = 16000
FRAME_BYTES = 320
FRAMES_PER_STEP = 3
SCALE, ZERO_POINT = 0.10196078568696976, -128
PHRASE = ["espeak-ng", "-v", "en-us", "-s", "140", "--stdout", "okay nah boo"]


def speak():
    """The phrase as f64 samples at SAMPLE_RATE_HZ, with soft noise and silence around it."""
    with wave.open(io.BytesIO(subprocess.run(PHRASE, capture_output=True, check=True).stdout)) as file:
        rate, spoken = file.getframerate(), np.frombuffer(file.readframes(1 << 22), "<i2")
    count = len(spoken) * SAMPLE_RATE_HZ // rate
    spoken = np.interp(np.arange(count) * rate / SAMPLE_RATE_HZ, np.arange(len(spoken)), spoken)
    padded = np.concatenate([np.zeros(SAMPLE_RATE_HZ), spoken, np.zeros(SAMPLE_RATE_HZ // 2)])
    return padded + np.random.default_rng(SEED).standard_normal(len(padded)) * 30


def main():
    pcm, frontend, frames = speak().clip(-32768, 32767).astype("<i2").tobytes(), MicroFrontend(), []
    for at in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES):
        result = frontend.process_samples(pcm[at : at + FRAME_BYTES])
        if result.features:
            frames.append(result.features)
    steps = len(frames) // FRAMES_PER_STEP
    codes = np.round(np.array(frames[: steps * FRAMES_PER_STEP]) / SCALE + ZERO_POINT)
    np.save(sys.argv[1], codes.clip(-128, 127).astype(np.int8).reshape(steps, 1, FRAMES_PER_STEP, 40))
    print(f"{steps} steps, seed {SEED}")


if __name__ == "__main__":
    main()
