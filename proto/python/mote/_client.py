"""The connection to the daemon."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any, Iterable, Iterator, Mapping

import numpy as np

from . import _memory, _schema
from ._errors import from_status
from ._memory import Buffer
from ._wire import Frames

WIRE_VERSION = 1
SYSTEM_SOCKET = "/run/mote/mote.sock"
# Content frames the daemon may send ahead of what was read.
_CREDIT = 64
# Buffers of finished calls that are kept for the next ones.
_POOL_MAX = 8


def default_socket() -> str:
    """``$MOTE_SOCKET``, or this user's daemon, or the system's."""
    if path := os.environ.get("MOTE_SOCKET"):
        return path
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(folder, "mote", "mote.sock")
    return SYSTEM_SOCKET


def connect(path: str | None = None, name: str = "python") -> "Client":
    """Connects to the daemon at ``path`` or at its usual place."""
    return Client(path or default_socket(), name)


class Outputs(dict):
    """Output arrays by name, with the ``receipt`` of the run."""

    receipt: Any = None


class _Link:
    """Requests and answers over one socket; thread-safe."""

    def __init__(self, sock: socket.socket):
        self._frames = Frames(sock)
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._inbox: dict[int, list] = {}
        self._next_id = 1
        self._buffers: dict[int, Buffer] = {}
        self._pool: list[Buffer] = []

    def close(self) -> None:
        for frames in self._inbox.values():
            for _, fds in frames:
                for fd in fds:
                    os.close(fd)
        self._inbox.clear()
        self._frames.close()
        self._buffers.clear()
        self._pool.clear()

    # ---- Requests ----

    def request(self, verb: str, body, fds: Iterable[int] = ()) -> int:
        """Sends a request and answers its id."""
        with self._sending:
            request_id = self._next_id
            self._next_id += 1
            self._inbox[request_id] = []
            frame = _schema.ClientFrame(request_id=request_id)
            getattr(frame, verb).CopyFrom(body)
            getattr(frame, verb).SetInParent()
            self._frames.send(frame, list(fds))
            return request_id

    def answer(self, request_id: int):
        """The next answer to a request: its kind, message and descriptors."""
        with self._receiving:
            while not self._inbox[request_id]:
                frame, fds = self._frames.receive()
                if frame.request_id in self._inbox:
                    self._inbox[frame.request_id].append((frame, fds))
                    continue
                for fd in fds:
                    os.close(fd)
                # A failure without a request is the connection's own.
                if frame.WhichOneof("body") == "failed" and frame.request_id == 0:
                    raise from_status(frame.failed.status)
            frame, fds = self._inbox[request_id].pop(0)
        kind = frame.WhichOneof("body")
        if kind is None:
            return "unknown", None, fds
        if kind in _schema.CLOSING:
            self._inbox.pop(request_id, None)
        if kind == "failed":
            raise from_status(frame.failed.status)
        return kind, getattr(frame, kind), fds

    def call(self, verb: str, body, fds: Iterable[int] = ()):
        """A request with one answer."""
        request_id = self.request(verb, body, fds)
        while True:
            kind, message, received = self.answer(request_id)
            if kind in _schema.CLOSING:
                return message, received

    # ---- Memory ----

    def register(self, buffer: Buffer) -> int:
        """Makes a buffer known to the daemon and answers its id."""
        for number, known in self._buffers.items():
            if known is buffer:
                return number
        number = max(self._buffers, default=0) + 1
        body = _schema.message("RegisterBuffer")(buffer=number, bytes=buffer.nbytes, writable=True)
        self.call("register_buffer", body, [buffer.fd])
        self._buffers[number] = buffer
        return number

    def empty(self, shape, dtype) -> np.ndarray:
        """An uninitialised array in memory that the daemon maps."""
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        buffer = Buffer(max(nbytes, 1))
        self.register(buffer)
        return buffer.array(shape, dtype)

    def range_of(self, array: np.ndarray):
        """The registered range an array lies in; None when it is in no buffer."""
        if not array.flags.c_contiguous:
            return None
        for number, buffer in self._buffers.items():
            offset = buffer.offset_of(array)
            if offset is not None and offset % _memory.ALIGNMENT_BYTES == 0:
                return _schema.message("BufferRange")(buffer=number, offset=offset, bytes=array.nbytes)
        return None

    def tensor(self, name: str, value, borrowed: list[Buffer], inline_bytes_max: int):
        """An array as a tensor of the wire; large arrays elsewhere go through a pooled buffer."""
        array = np.asarray(value)
        message = _schema.message("Tensor")(
            name=name, dtype=_memory.dtype_number(array.dtype), shape=array.shape
        )
        place = self.range_of(array)
        if place is None and array.nbytes <= inline_bytes_max:
            message.inline = np.ascontiguousarray(array).tobytes()
            return message
        if place is None:
            copy = self._borrow(array.nbytes, borrowed).array(array.shape, array.dtype)
            copy[...] = array
            place = self.range_of(copy)
        message.range.CopyFrom(place)
        return message

    def _borrow(self, nbytes: int, borrowed: list[Buffer]) -> Buffer:
        for index, buffer in enumerate(self._pool):
            if buffer.nbytes >= nbytes:
                borrowed.append(self._pool.pop(index))
                return borrowed[-1]
        buffer = Buffer(nbytes)
        self.register(buffer)
        borrowed.append(buffer)
        return buffer

    def give_back(self, borrowed: list[Buffer]) -> None:
        for buffer in borrowed:
            if len(self._pool) < _POOL_MAX:
                self._pool.append(buffer)
            else:
                number = self.register(buffer)
                del self._buffers[number]
                self.call("unregister_buffer", _schema.message("UnregisterBuffer")(buffer=number))

    def targets(self, out: Mapping[str, np.ndarray]):
        """Output arrays as targets of the wire."""
        targets = []
        for name, array in out.items():
            place = self.range_of(array)
            if place is None:
                raise ValueError(f"out[{name!r}] was not made with empty()")
            target = _schema.message("OutputTarget")(name=name, range=place, shape=array.shape)
            targets.append(target)
        return targets

    def array(self, tensor, fds: list[int], out: Mapping[str, np.ndarray]) -> np.ndarray:
        """A tensor of the wire as an array."""
        dtype, shape = _memory.numpy_dtype(tensor.dtype), tuple(tensor.shape)
        kind = tensor.WhichOneof("data")
        if kind == "inline":
            return np.frombuffer(tensor.inline, dtype).reshape(shape)
        if kind == "passed":
            fd = fds.pop(0)
            try:
                return _memory.view(fd, tensor.passed.bytes, shape, dtype)
            finally:
                os.close(fd)
        given = out[tensor.name]
        if given.shape == shape and given.dtype == dtype:
            return given
        return given.reshape(-1).view(np.uint8)[: tensor.range.bytes].view(dtype).reshape(shape)


class Client:
    """A connection. Usable from several threads; requests of one connection share its buffers."""

    def __init__(self, path: str, name: str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise ConnectionError(f"no daemon answers at {path}: {error}") from error
        self._link = _Link(sock)
        hello = _schema.message("Hello")(
            version_min=WIRE_VERSION, version_max=WIRE_VERSION, client_name=name
        )
        try:
            self.welcome, _ = self._link.call("hello", hello)
        except BaseException:
            self._link.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the daemon cancels what it was still doing for it."""
        self._link.close()

    # ---- Tensors ----

    def empty(self, shape, dtype=np.float32) -> np.ndarray:
        """An array in memory that the daemon maps: it travels without a copy."""
        return self._link.empty(shape, dtype)

    def run(self, model: str, *, out: Mapping[str, np.ndarray] | None = None, options=None, **inputs) -> Outputs:
        """Runs a model once: inputs by name, outputs by name. ``options`` as in WorkOptions.

        Inputs whose names are no Python identifiers go in as ``**{"x:0": array}``.
        """
        out = out or {}
        borrowed: list[Buffer] = []
        try:
            body = _schema.message("Infer")(model=model, options=_options(options))
            limit = self.welcome.limits.inline_bytes_max
            for name, value in inputs.items():
                body.inputs.append(self._link.tensor(name, value, borrowed, limit))
            body.outputs.extend(self._link.targets(out))
            request_id = self._link.request("infer", body)
            outputs = Outputs()
            while True:
                kind, message, fds = self._link.answer(request_id)
                if kind == "tensor":
                    tensor = message.tensor
                    outputs[tensor.name] = self._link.array(tensor, fds, out)
                    self._grant(request_id)
                elif kind == "done":
                    outputs.receipt = message.receipt
                    return outputs
        finally:
            self._link.give_back(borrowed)

    # ---- Text ----

    def generate(self, model: str, prompt, *, options=None, **sampling) -> "Generation":
        """Streams an answer: an iterator of pieces of text.

        ``prompt`` is a string (one user message) or a list of ``{"role": …, "content": …}``.
        Keywords: tokens_max, stop, raw (give the prompt as it is), temperature, top_k, top_p,
        min_p, repetition_penalty, seed.
        """
        body = _schema.message("Generate")(model=model, options=_options(options))
        body.tokens_max = sampling.pop("tokens_max", 0)
        body.stop.extend(sampling.pop("stop", ()))
        if sampling.pop("raw", False):
            body.prompt = prompt
        else:
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            for message in messages:
                body.messages.add(role=message["role"], content=message["content"])
        for name, value in sampling.items():
            setattr(body.sampling, name, value)
        return Generation(self, body)

    # ---- Streams ----

    def stream(self, model: str, *, options=None) -> "Stream":
        """Opens a stateful stream: a socket straight to the worker."""
        body = _schema.message("OpenStream")(model=model, options=_options(options))
        message, fds = self._link.call("open_stream", body)
        return Stream(fds[0], message, self.welcome.limits.inline_bytes_max)

    # ---- Control ----

    def models(self):
        """All models of the catalogue."""
        return self._link.call("list_models", _schema.message("ListModels")())[0].models

    def devices(self, refresh: bool = False):
        """What works on this machine, and why the rest does not."""
        body = _schema.message("ListDevices")(refresh=refresh)
        return self._link.call("list_devices", body)[0].capabilities

    def explain(self, model: str, *, options=None):
        """Where a model would run, and why not elsewhere."""
        body = _schema.message("Explain")(model=model, options=_options(options))
        return self._link.call("explain", body)[0]

    def inspect(self, model: str, load: bool = False):
        """A model's files, variants, inputs and outputs."""
        body = _schema.message("InspectModel")(model=model, load=load)
        return self._link.call("inspect_model", body)[0]

    def load(self, model: str, *, options=None) -> None:
        """Loads a model ahead of its first use."""
        body = _schema.message("Load")(model=model, options=_options(options))
        self._link.call("load", body)

    def unload(self, model: str) -> None:
        """Ends a model's worker."""
        self._link.call("unload", _schema.message("Unload")(model=model))

    def status(self):
        """The daemon at a glance."""
        return self._link.call("get_status", _schema.message("GetStatus")())[0]

    def _grant(self, request_id: int, frames: int = 1) -> None:
        credit = _schema.message("Credit")(target_request_id=request_id, frames=frames)
        self._forget(self._link.request("credit", credit))

    def _cancel(self, request_id: int) -> None:
        cancel = _schema.message("Cancel")(target_request_id=request_id)
        self._forget(self._link.request("cancel", cancel))

    def _forget(self, request_id: int) -> None:
        # Answered with Ok, which nobody waits for.
        self._link._inbox.pop(request_id, None)


class Generation(Iterator[str]):
    """An answer as it comes. After the last piece: ``receipt`` and ``finish``.

    Leaving early (``close()``, or the end of a ``with`` block) cancels it.
    """

    def __init__(self, client: Client, body):
        self._client = client
        self._request_id: int | None = client._link.request("generate", body)
        self.receipt: Any = None
        self.finish: Any = None
        self.token_ids: list[int] = []

    def __enter__(self) -> "Generation":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __next__(self) -> str:
        while self._request_id is not None:
            request_id = self._request_id
            try:
                kind, message, _ = self._client._link.answer(request_id)
            except BaseException:
                self._request_id = None
                raise
            if kind == "token":
                self._client._grant(request_id)
                self.token_ids.append(message.id)
                if message.text:
                    return message.text
            elif kind == "done":
                self._request_id = None
                self.receipt, self.finish = message.receipt, message.finish
        raise StopIteration

    def close(self) -> None:
        """Cancels what is left of the answer."""
        if self._request_id is not None:
            request_id, self._request_id = self._request_id, None
            self._client._cancel(request_id)
            self._client._forget(request_id)


class Stream:
    """A stateful stream. State lives in the worker until ``close()``."""

    def __init__(self, fd: int, opened, inline_bytes_max: int):
        self._link = _Link(socket.socket(fileno=fd))
        self._inline_bytes_max = inline_bytes_max
        self.inputs, self.outputs = opened.inputs, opened.outputs
        self.receipt: Any = None

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.close()
        else:
            self._link.close()

    def empty(self, shape, dtype=np.float32) -> np.ndarray:
        """An array in memory that the worker maps: it travels without a copy."""
        return self._link.empty(shape, dtype)

    def push(self, *, out: Mapping[str, np.ndarray] | None = None, **inputs) -> Outputs:
        """One step: inputs by name, outputs by name."""
        out = out or {}
        borrowed: list[Buffer] = []
        try:
            body = _schema.message("StreamPush")()
            for name, value in inputs.items():
                body.inputs.append(self._link.tensor(name, value, borrowed, self._inline_bytes_max))
            body.outputs.extend(self._link.targets(out))
            message, fds = self._link.call("stream_push", body)
            outputs = Outputs()
            for tensor in message.outputs:
                outputs[tensor.name] = self._link.array(tensor, fds, out)
            return outputs
        finally:
            self._link.give_back(borrowed)

    def close(self):
        """Ends the stream in good order and answers its receipt."""
        if self.receipt is None:
            done, _ = self._link.call("stream_close", _schema.message("StreamClose")())
            self.receipt = done.receipt
            self._link.close()
        return self.receipt


def _options(options: Mapping[str, Any] | None):
    work = _schema.message("WorkOptions")(**(options or {}))
    if not work.credit:
        work.credit = _CREDIT
    return work
