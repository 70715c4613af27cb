"""The carving recipe: a safetensors file that turns a dense model's FFNs into a mixture of experts.

README.md beside this file defines its tensors and metadata. Written by hand so that the same
tensors always give the same bytes.
"""

import json
import struct

import numpy as np

from llama import Routing

FORMAT = "mote-carve-2"
HEADER_BYTES_MAX = 1 << 20
DTYPES = {"U16": np.dtype("<u2"), "F16": np.dtype("<f2")}


def write(path, layers, outer, metadata):
    """`layers`: arrays by name, per layer. `outer`: arrays by name. `metadata`: strings by key."""
    arrays = {}
    for i, layer in enumerate(layers):
        arrays |= {f"layers.{i}.{name}": array for name, array in layer.items()}
    header, body = {"__metadata__": {"format": FORMAT} | metadata}, b""
    for name, array in (arrays | outer).items():
        dtype = "U16" if name.endswith(".permutation") else "F16"
        array = np.ascontiguousarray(array, DTYPES[dtype])
        span = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": span}
        body += array.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def read(path):
    """(layers, outer, metadata) as `write` takes them."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    if size > HEADER_BYTES_MAX:
        raise ValueError(f"safetensors header of {size} bytes is over the limit")
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    if metadata["format"] != FORMAT:
        raise ValueError(f"{path} is not a {FORMAT} recipe")
    layers, outer = {}, {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        array = np.frombuffer(data[start:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        if name.startswith("layers."):
            _, index, name = name.split(".", 2)
            layers.setdefault(int(index), {})[name] = array
        else:
            outer[name] = array
    return [layers[i] for i in range(len(layers))], outer, metadata


def apply(model, layers, outer, metadata, fold=False):
    """Correct and carve a dense `Llama` as the recipe says.

    `fold`: the number of experts per token goes into their down projections, as the importer has
    it; otherwise `model.routing[i].experts_per_token` may be changed afterwards.
    """
    shared, count = int(metadata["shared_neurons"]), int(metadata["experts_per_token"])
    temperature = np.float32(metadata["router_temperature"])
    for i, parts in enumerate(layers):
        layer = model.layers[i]
        for name, array in parts.items():
            if name.endswith(".down"):
                matrix = name.removesuffix(".down")
                layer[matrix] = layer[matrix] + parts[f"{matrix}.up"].astype("f4") @ array.astype("f4")
            elif name in layer:
                layer[name] = array.astype("f4")
        routing = Routing(parts["router"].astype("f4") * temperature, shared, count, fold)
        model.carve(i, parts["permutation"], routing)
        if fold:
            layer["ffn_down"][:, shared:] *= count
    if "output_norm" in outer:
        model.output_norm = outer["output_norm"].astype("f4")
