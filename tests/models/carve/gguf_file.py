"""Read metadata and tensors of a GGUF file (version 2 or 3, little endian) into numpy.

Layout: the GGUF specification in ggml's docs/gguf.md. Only the tensor types that the pinned
SmolLM2 file holds are decoded: F32, F16, Q4_1 and Q8_0.
"""

import hashlib
import struct
from pathlib import Path

import numpy as np

MAGIC = b"GGUF"
BLOCK_VALUES = 32
STRING_BYTES_MAX = 1 << 24
ARRAY_ITEMS_MAX = 1 << 22

# Value type number -> struct code, for the scalar types.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8


class _Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def unpack(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self):
        size = self.unpack("Q")
        if size > STRING_BYTES_MAX:
            raise ValueError(f"GGUF string of {size} bytes is over the limit")
        raw = self.data[self.at : self.at + size].tobytes()
        self.at += size
        return raw.decode("utf-8")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item_kind, count = self.unpack("I"), self.unpack("Q")
            if count > ARRAY_ITEMS_MAX:
                raise ValueError(f"GGUF array of {count} items is over the limit")
            return [self.value(item_kind) for _ in range(count)]
        return self.unpack(SCALARS[kind])


def _q4_1(raw):
    """value = scale * nibble + minimum; low nibbles are values 0..16, high nibbles 16..32."""
    blocks = raw.reshape(-1, 20)
    scale = blocks[:, 0:2].copy().view("<f2").astype(np.float32)
    minimum = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return nibbles.astype(np.float32) * scale + minimum


def _q8_0(raw):
    """value = scale * int8."""
    blocks = raw.reshape(-1, 34)
    scale = blocks[:, 0:2].copy().view("<f2").astype(np.float32)
    return blocks[:, 2:].copy().view(np.int8).astype(np.float32) * scale


# Type number -> (bytes per block, values per block, decoder from bytes to f32).
TYPES = {
    F32: (4, 1, lambda raw: raw.copy().view("<f4")),
    F16: (2, 1, lambda raw: raw.copy().view("<f2").astype(np.float32)),
    Q4_1: (20, BLOCK_VALUES, _q4_1),
    Q8_0: (34, BLOCK_VALUES, _q8_0),
}


class GgufFile:
    """`fields`: metadata by key. `tensor(name)`: f32 array, shape outermost first ([out, in])."""

    def __init__(self, path):
        self.path = Path(path)
        self.data = np.memmap(self.path, np.uint8, "r")
        cursor = _Cursor(self.data)
        if self.data[:4].tobytes() != MAGIC:
            raise ValueError(f"{path} is not a GGUF file")
        cursor.at = 4
        version, tensors, fields = cursor.unpack("I"), cursor.unpack("Q"), cursor.unpack("Q")
        if version not in (2, 3):
            raise ValueError(f"GGUF version {version} is not supported")
        self.fields = {}
        for _ in range(fields):
            key = cursor.string()
            self.fields[key] = cursor.value(cursor.unpack("I"))
        self.tensors = {}
        for _ in range(tensors):
            name = cursor.string()
            shape = [cursor.unpack("Q") for _ in range(cursor.unpack("I"))]
            self.tensors[name] = (shape[::-1], cursor.unpack("I"), cursor.unpack("Q"))
        align = self.fields.get("general.alignment", 32)
        self.start = -(-cursor.at // align) * align

    def tensor(self, name):
        shape, kind, offset = self.tensors[name]
        block_bytes, block_values, decode = TYPES[kind]
        size = int(np.prod(shape)) // block_values * block_bytes
        raw = np.asarray(self.data[self.start + offset : self.start + offset + size])
        return np.ascontiguousarray(decode(raw).reshape(shape), dtype=np.float32)

    def sha256(self):
        return hashlib.sha256(self.data).hexdigest()
