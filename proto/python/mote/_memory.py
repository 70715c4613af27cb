"""Memory that the daemon maps too."""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np

# Offsets of tensors in a buffer are multiples of this.
ALIGNMENT_BYTES = 64

_DTYPES = {
    1: np.dtype(np.float32),
    2: np.dtype(np.float16),
    4: np.dtype(np.float64),
    5: np.dtype(np.int8),
    6: np.dtype(np.uint8),
    7: np.dtype(np.int16),
    8: np.dtype(np.uint16),
    9: np.dtype(np.int32),
    10: np.dtype(np.uint32),
    11: np.dtype(np.int64),
    12: np.dtype(np.uint64),
    13: np.dtype(np.bool_),
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}


def dtype_number(dtype: np.dtype) -> int:
    """The wire's number of a numpy type."""
    number = _NUMBERS.get(np.dtype(dtype).newbyteorder("="))
    if number is None:
        raise TypeError(f"arrays of {dtype} cannot be sent")
    return number


def numpy_dtype(number: int) -> np.dtype:
    """The numpy type of a wire number."""
    dtype = _DTYPES.get(number)
    if dtype is None:
        raise TypeError(f"numpy has no type for element type {number} of the wire")
    return dtype


def view(fd: int, nbytes: int, shape, dtype) -> np.ndarray:
    """An array over a descriptor's memory; it stays mapped while the array lives."""
    if nbytes == 0:
        return np.empty(shape, dtype)
    memory = mmap.mmap(fd, nbytes, prot=mmap.PROT_READ)
    return np.frombuffer(memory, dtype=dtype, count=int(np.prod(shape, dtype=np.int64))).reshape(shape)


class Buffer:
    """A memfd that is sealed against resizing and mapped here and in the daemon."""

    def __init__(self, nbytes: int):
        if nbytes <= 0:
            raise ValueError("a buffer holds at least one byte")
        self.nbytes = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.fd = os.memfd_create("mote-buffer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, self.nbytes)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._memory = mmap.mmap(self.fd, self.nbytes)
        except BaseException:
            os.close(self.fd)
            raise
        self._all = np.frombuffer(self._memory, np.uint8)
        self.address = self._all.__array_interface__["data"][0]

    def array(self, shape, dtype, offset: int = 0) -> np.ndarray:
        """An array over the buffer at a byte offset, which must be a multiple of 64."""
        if offset % ALIGNMENT_BYTES:
            raise ValueError(f"offset {offset} is not a multiple of {ALIGNMENT_BYTES}")
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if offset + nbytes > self.nbytes:
            raise ValueError(f"{nbytes} bytes at {offset} leave a buffer of {self.nbytes}")
        return self._all[offset : offset + nbytes].view(dtype).reshape(shape)

    def offset_of(self, array: np.ndarray) -> int | None:
        """Where an array lies in this buffer; None when it lies elsewhere."""
        start = array.__array_interface__["data"][0] - self.address
        if 0 <= start and start + array.nbytes <= self.nbytes:
            return start
        return None

    def close(self) -> None:
        """Closes the descriptor; arrays over the buffer stay valid."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self):
        self.close()
