"""Read a PyTorch checkpoint (the zip format, and the one before it) into numpy without PyTorch.

The pickle inside may only name tensors and ordered dictionaries; anything else is refused, so a
hostile checkpoint cannot run code.
"""

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

# What the older format begins with, each in a pickle of its own.
OLD_MAGIC, OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {"FloatStorage": np.dtype("<f4"), "HalfStorage": np.dtype("<f2"), "LongStorage": np.dtype("<i8")}


def _tensor(storage, offset, shape, strides, *_):
    """What torch._utils._rebuild_tensor_v2 does: a strided view of a storage."""
    strides = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


class _Unpickler(pickle.Unpickler):
    """`storage_of(dtype, key, elements)` gives what tensors lie in."""

    def __init__(self, file, storage_of):
        super().__init__(file)
        self.storage_of = storage_of

    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a checkpoint")

    def persistent_load(self, key):
        _, dtype, name, _, elements, *_ = key
        return self.storage_of(dtype, name, elements)


def load(path):
    """What was saved, as a rule the state dictionary: name -> array."""
    if zipfile.is_zipfile(path):
        return _load_zip(path)
    with open(path, "rb") as file:
        return _load_old(file, Path(path).stat().st_size)


def _load_zip(path):
    with zipfile.ZipFile(path) as archive:
        inner = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        prefix = inner[: -len("/data.pkl")]
        read = lambda dtype, name, _: np.frombuffer(archive.read(f"{prefix}/data/{name}"), dtype)
        return dict(_Unpickler(io.BytesIO(archive.read(inner)), read).load())


def _load_old(file, size):
    """The tensors come first and the storages that they lie in behind them."""
    refuse = lambda *_: pickle.UnpicklingError("this is no checkpoint")
    magic, protocol, _ = (_Unpickler(file, refuse).load() for _ in range(3))
    if (magic, protocol) != (OLD_MAGIC, OLD_PROTOCOL):
        raise refuse()
    storages = {}

    def storage(dtype, name, elements):
        if not 0 <= elements * dtype.itemsize <= size:
            raise pickle.UnpicklingError(f"storage {name} is larger than the file")
        return storages.setdefault(name, np.zeros(elements, dtype))

    saved = dict(_Unpickler(file, storage).load())
    for name in _Unpickler(file, refuse).load():
        (elements,) = struct.unpack("<q", file.read(8))
        if elements != len(storages[name]):
            raise pickle.UnpicklingError(f"storage {name} has {elements} elements")
        values = np.fromfile(file, storages[name].dtype, elements)
        storages[name][: len(values)] = values
    return saved
