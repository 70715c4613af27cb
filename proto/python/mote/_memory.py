"""Memory that the daemon maps too, and numpy arrays over it."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import weakref
from typing import Mapping

import numpy as np

from . import _frame, _schema
from ._errors import ProtocolError
from ._link import Link

# Offsets of tensors in a buffer are multiples of this.
ALIGNMENT_BYTES = 64
# Buffers of finished calls that are kept for the next ones.
_POOL_MAX = 8
# Bytes of all inputs that travel in one frame; further ones go through a buffer.
_FRAME_INLINE_BYTES_MAX = 1 << 20

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


def numpy_dtype(number: int) -> np.dtype:
    """The numpy type of a wire number."""
    dtype = _DTYPES.get(number)
    if dtype is None:
        raise TypeError(f"numpy has no type for element type {number} of the wire")
    return dtype


class Buffer:
    """A memfd that is sealed against resizing and mapped here and in the daemon."""

    def __init__(self, number: int, nbytes: int):
        self.number = number
        self.nbytes = -(-max(nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self.fd = os.memfd_create("mote-buffer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, self.nbytes)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self._memory = mmap.mmap(self.fd, self.nbytes)
        except BaseException:
            self.close_fd()
            raise
        self.address = np.frombuffer(self._memory, np.uint8).__array_interface__["data"][0]

    def close_fd(self) -> None:
        """Closes the descriptor; the memory stays mapped."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def array(self, shape, dtype) -> np.ndarray:
        """An array at the start of the buffer. All views of it share its base, which nothing else
        has: when that is gone, nobody sees the memory any more."""
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        base = np.frombuffer(self._memory, np.uint8)
        return base[:nbytes].view(dtype).reshape(shape)

    def offset_of(self, array: np.ndarray) -> int | None:
        """Where an array lies in this buffer; None when it lies elsewhere."""
        start = array.__array_interface__["data"][0] - self.address
        return start if 0 <= start and start + array.nbytes <= self.nbytes else None


class Memory:
    """The buffers that are registered on one link."""

    def __init__(self, link: Link, inline_bytes_max: int):
        self._link = link
        self._inline_bytes_max = inline_bytes_max
        self._lock = threading.Lock()
        self._last_number = 0
        self._buffers: dict[int, Buffer] = {}
        self._pool: list[Buffer] = []

    def empty(self, shape, dtype) -> np.ndarray:
        """An array whose buffer is registered for as long as the array or a view of it lives."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer = self._register(nbytes)
        array = buffer.array(shape, dtype)
        over = weakref.finalize(array.base, _retire, weakref.ref(self), buffer.number)
        over.atexit = False
        return array

    def _register(self, nbytes: int) -> Buffer:
        with self._lock:
            self._last_number += 1
            number = self._last_number
        buffer = Buffer(number, nbytes)
        try:
            body = _schema.message("RegisterBuffer")(buffer=number, bytes=buffer.nbytes, writable=True)
            self._link.call("register_buffer", body, [buffer.fd])
        finally:
            buffer.close_fd()
        self._buffers[number] = buffer
        return buffer

    def retire(self, number: int) -> None:
        """Takes a buffer back from the daemon. Finalisers may call it."""
        if self._buffers.pop(number, None) is not None:
            body = _schema.message("UnregisterBuffer")(buffer=number)
            self._link.post("unregister_buffer", body)

    def _range_of(self, array: np.ndarray):
        """The registered range an array lies in; None when it is in no buffer."""
        if not array.flags.c_contiguous:
            return None
        for buffer in list(self._buffers.values()):
            offset = buffer.offset_of(array)
            if offset is not None and offset % ALIGNMENT_BYTES == 0:
                return _schema.message("BufferRange")(
                    buffer=buffer.number, offset=offset, bytes=array.nbytes
                )
        return None

    def inputs(self, message, arrays: Mapping[str, object], borrowed: list[Buffer]) -> None:
        """Adds arrays to a request; those that are large and elsewhere are copied to a buffer."""
        inline_bytes = 0
        for name, value in arrays.items():
            array = np.asarray(value)
            native = array.dtype.newbyteorder("=")
            if native not in _NUMBERS:
                raise TypeError(f"{name} is of {array.dtype}, which cannot be sent")
            array = array.astype(native, copy=False)
            tensor = message.inputs.add(name=name, dtype=_NUMBERS[native], shape=array.shape)
            place = self._range_of(array)
            if place is None and array.nbytes <= self._inline_bytes_max:
                inline_bytes += array.nbytes
                if inline_bytes <= _FRAME_INLINE_BYTES_MAX:
                    tensor.inline = array.tobytes()
                    continue
            if place is None:
                buffer = self._borrow(array.nbytes)
                borrowed.append(buffer)
                buffer.array(array.shape, native)[...] = array
                place = _schema.message("BufferRange")(buffer=buffer.number, bytes=array.nbytes)
            tensor.range.CopyFrom(place)

    def frames(self, message, frames: Mapping[str, _frame.Frame]) -> None:
        """Adds frames to a list of a request."""
        for name, frame in frames.items():
            array = frame.array
            found = self._place_of(array) if array.flags.c_contiguous else None
            if found is None:
                raise ValueError(f"the frame for {name} is in no contiguous array from empty()")
            _frame.add(message, name, frame, *found)

    def _place_of(self, array: np.ndarray) -> tuple[int, int] | None:
        for buffer in list(self._buffers.values()):
            offset = buffer.offset_of(array)
            if offset is not None:
                return buffer.number, offset
        return None

    def targets(self, message, out: Mapping[str, np.ndarray]) -> None:
        """Adds the arrays that outputs are to be written to."""
        for name, array in out.items():
            place = self._range_of(array)
            if place is None:
                raise ValueError(f"out[{name!r}] is no contiguous array from empty()")
            message.outputs.add(name=name, range=place, shape=array.shape)

    def _borrow(self, nbytes: int) -> Buffer:
        with self._lock:
            fitting = [buffer for buffer in self._pool if buffer.nbytes >= nbytes]
            if fitting:
                smallest = min(fitting, key=lambda buffer: buffer.nbytes)
                self._pool.remove(smallest)
                return smallest
        return self._register(nbytes)

    def give_back(self, borrowed: list[Buffer], reusable: bool) -> None:
        """Ends a loan. After a failure the daemon may still read a buffer, so it is not reusable."""
        for buffer in borrowed:
            with self._lock:
                kept = reusable and len(self._pool) < _POOL_MAX
                if kept:
                    self._pool.append(buffer)
            if not kept:
                self.retire(buffer.number)


def _retire(memory: "weakref.ref[Memory]", number: int) -> None:
    alive = memory()
    if alive is not None:
        alive.retire(number)


def read(tensor, fds: list[int], out: Mapping[str, np.ndarray]) -> np.ndarray:
    """A tensor of the wire as an array: the caller's own when it was written there."""
    dtype, shape = numpy_dtype(tensor.dtype), tuple(tensor.shape)
    kind = tensor.WhichOneof("data")
    if kind == "inline":
        return np.frombuffer(tensor.inline, dtype).reshape(shape).copy()
    if kind == "passed" and fds:
        return _read_passed(fds.pop(0), shape, dtype)
    if kind == "range" and tensor.name in out:
        given = out[tensor.name]
        if given.shape == shape and given.dtype == dtype:
            return given
        written = given.reshape(-1).view(np.uint8)[: tensor.range.bytes]
        return written.view(dtype).reshape(shape)
    raise ProtocolError(f"the daemon does not say where {tensor.name} is")


def _read_passed(fd: int, shape, dtype) -> np.ndarray:
    # A mapping would hold a descriptor for as long as the array lives.
    array = np.empty(shape, dtype)
    view, done = memoryview(array.reshape(-1).view(np.uint8)), 0
    try:
        while done < len(view):
            read_bytes = os.preadv(fd, [view[done:]], done)
            if read_bytes == 0:
                raise ProtocolError(f"passed memory ends after {done} of {len(view)} bytes")
            done += read_bytes
    finally:
        os.close(fd)
    return array
