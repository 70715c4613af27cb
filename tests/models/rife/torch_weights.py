"""Read a PyTorch checkpoint (zip format) into numpy without PyTorch.

The pickle inside may only name tensors and ordered dictionaries; anything else is refused, so a
hostile checkpoint cannot run code.
"""

import collections
import io
import pickle
import zipfile

import numpy as np

STORAGES = {"FloatStorage": np.dtype("<f4"), "HalfStorage": np.dtype("<f2"), "LongStorage": np.dtype("<i8")}


def _tensor(storage, offset, shape, strides, *_):
    """What torch._utils._rebuild_tensor_v2 does: a strided view of a storage."""
    strides = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, strides, writeable=False)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data, archive, prefix):
        super().__init__(data)
        self.archive, self.prefix = archive, prefix

    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a checkpoint")

    def persistent_load(self, key):
        _, dtype, name, _, _ = key
        return np.frombuffer(self.archive.read(f"{self.prefix}/data/{name}"), dtype)


def load(path):
    """The state dictionary: name -> array."""
    with zipfile.ZipFile(path) as archive:
        inner = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        prefix = inner[: -len("/data.pkl")]
        return dict(_Unpickler(io.BytesIO(archive.read(inner)), archive, prefix).load())
