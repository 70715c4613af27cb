"""The carving recipe: a safetensors file that turns a dense model's FFNs into a mixture of experts.

Per layer l: `layers.{l}.permutation` u16 [neurons] and `layers.{l}.router` f16 [experts, hidden].
README.md beside this file defines them and the metadata. Written by hand so that the same tensors
always give the same bytes.
"""

import json
import struct

import numpy as np

FORMAT = "mote-carve-1"
HEADER_BYTES_MAX = 1 << 20
DTYPES = {"U16": np.dtype("<u2"), "F16": np.dtype("<f2")}


def write(path, layers, metadata):
    """`layers`: (permutation, router) per layer. `metadata`: strings by key."""
    tensors = {}
    for i, (permutation, router) in enumerate(layers):
        tensors[f"layers.{i}.permutation"] = ("U16", np.asarray(permutation, "<u2"))
        tensors[f"layers.{i}.router"] = ("F16", np.asarray(router, "<f2"))
    header, at = {"__metadata__": {"format": FORMAT} | metadata}, 0
    for name, (dtype, array) in tensors.items():
        span = [at, at + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": span}
        at = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(array.tobytes() for _, array in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def read(path):
    """(layers, metadata) as `write` takes them."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    if size > HEADER_BYTES_MAX:
        raise ValueError(f"safetensors header of {size} bytes is over the limit")
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    if metadata["format"] != FORMAT:
        raise ValueError(f"{path} is not a {FORMAT} recipe")
    arrays = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        arrays[name] = np.frombuffer(data[start:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    count = len(arrays) // 2
    return [(arrays[f"layers.{i}.permutation"], arrays[f"layers.{i}.router"]) for i in range(count)], metadata
