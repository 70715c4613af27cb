"""Bytes of a file to the input of the magika model, as README.md beside this file defines it."""

import numpy as np

BEGIN, END, BLOCK, PADDING, BYTES_MIN = 1024, 1024, 4096, 256, 8


def tokens(content):
    """int32 [2048], or None where the file is too short for the model."""
    begin = list(content[:BLOCK].lstrip()[:BEGIN])
    end = list(content[-BLOCK:].rstrip()[-END:])
    if len(begin) < BYTES_MIN:
        return None
    begin += [PADDING] * (BEGIN - len(begin))
    end = [PADDING] * (END - len(end)) + end
    return np.array(begin + end, np.int32)
