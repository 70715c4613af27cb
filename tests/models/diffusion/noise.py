"""Mote's Gaussian noise (backends/pipeline/src/diffusion/noise.rs) in numpy."""

import numpy as np


def philox(counter, key):
    """Philox4x32-10 of Salmon et al. 2011: u32 `[n, 4]` counters, two key words."""
    low32 = np.uint64(0xFFFFFFFF)
    counter = [counter[:, i].astype(np.uint64) for i in range(4)]
    key = [np.uint64(k) for k in key]
    for round_number in range(10):
        if round_number:
            key = [(k + s) & low32 for k, s in zip(key, map(np.uint64, (0x9E3779B9, 0xBB67AE85)))]
        first = np.uint64(0xD2511F53) * counter[0]
        second = np.uint64(0xCD9E8D57) * counter[2]
        shift = np.uint64(32)
        counter = [
            (second >> shift) ^ counter[1] ^ key[0],
            second & low32,
            (first >> shift) ^ counter[3] ^ key[1],
            first & low32,
        ]
    return np.stack(counter, 1)


def gaussian(seed, stream, count):
    """`count` normal values, f32, of a seed and a stream."""
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    low32, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    fixed = [np.full_like(blocks, stream), np.full_like(blocks, 1)]
    counter = np.stack([blocks & low32, blocks >> shift, *fixed], 1)
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32)).astype(np.float64)
    unit = (words + 0.5) / 2.0**32
    radius = np.sqrt(-2.0 * np.log(unit[:, 0::2]))
    angle = 2.0 * np.pi * unit[:, 1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 2)
    return pairs.reshape(-1)[:count].astype(np.float32)
