"""What programs ask of the daemon."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, Callable, Iterable, Mapping

import numpy as np

from . import _memory, _schema
from ._clips import Clips
from ._errors import MoteError, ProtocolError
from ._frame import Frame, frame_array_shape
from ._link import Call, Link
from ._memory import Memory

WIRE_VERSION = 1
SYSTEM_SOCKET = "/run/mote/mote.sock"
# How long a daemon may take to answer the greeting.
_GREETING_LIMIT_S = 10
_EMBED_KINDS = {None: 0, "query": 1, "document": 2}


def default_socket() -> str:
    """``$MOTE_SOCKET``, or this user's daemon, or the system's."""
    if path := os.environ.get("MOTE_SOCKET"):
        return path
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        path = os.path.join(folder, "mote", "mote.sock")
        if os.path.exists(path):
            return path
    return SYSTEM_SOCKET


def connect(path: str | os.PathLike | None = None, name: str = "python") -> "Client":
    """Connects to the daemon at ``path`` or at its usual place."""
    return Client(os.fspath(path or default_socket()), name)


class Outputs(dict):
    """Output arrays by name. ``receipt`` tells what computed them; a step of a stream has none,
    only ``compute_us``, ``bytes_copied`` and ``bytes_converted`` (written by passes that make tensors of
    frames, and frames of tensors)."""

    receipt: Any = None
    compute_us: int = 0
    bytes_copied: int = 0
    bytes_converted: int = 0


class Client(Clips):
    """A connection. Several threads may use it at once."""

    def __init__(self, path: str, name: str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_GREETING_LIMIT_S)
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise ConnectionError(f"no daemon answers at {path}: {error}") from error
        self._link = Link(sock)
        hello = _schema.message("Hello")(
            version_min=WIRE_VERSION, version_max=WIRE_VERSION, client_name=name
        )
        try:
            self.welcome, _ = self._link.call("hello", hello)
            sock.settimeout(None)
        except BaseException:
            self._link.close()
            raise
        self._memory = Memory(self._link, self.welcome.limits.inline_bytes_max)

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
        return self._memory.empty(shape, dtype)

    def run(
        self, model: str, *, out: Mapping[str, np.ndarray] | None = None, options=None, **inputs
    ) -> Outputs:
        """Runs a model once: inputs by name, outputs by name. ``options`` as in WorkOptions.

        ``out`` names arrays from ``empty()`` that outputs are written to. Inputs whose names are no
        Python identifiers, or ``out`` or ``options``, go to ``run_with``.
        """
        return self.run_with(model, inputs, out=out, options=options)

    def run_with(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        out: Mapping[str, np.ndarray] | None = None,
        options=None,
    ) -> Outputs:
        """As ``run``, with the inputs in a mapping."""
        body = _schema.message("Infer")(model=model, options=options)
        borrowed: list = []
        over = False
        try:
            self._memory.inputs(body, inputs, borrowed)
            self._memory.targets(body, out or {})
            call = Call(self._link, "infer", body)
            try:
                outputs = _collect(call, out or {})
            finally:
                call.close()
            over = True
            return outputs
        finally:
            self._memory.give_back(borrowed, reusable=over)

    # ---- Text ----

    def generate(
        self,
        model: str,
        prompt: str | Iterable[Mapping[str, Any]],
        *,
        tokens_max: int = 0,
        stop: str | Iterable[str] = (),
        raw: bool = False,
        logprobs: int | None = None,
        logit_bias: Mapping[int, float] | None = None,
        json_schema: Mapping[str, Any] | str | None = None,
        regex: str | None = None,
        reasoning: bool = False,
        reasoning_tokens_max: int | None = None,
        tools: Iterable[Mapping[str, Any]] | str | None = None,
        deterministic: bool = False,
        slide_context: bool = False,
        draft_tokens_max: int | None = None,
        options=None,
        **sampling,
    ) -> "Generation":
        """Streams an answer: an iterator over pieces of text.

        ``prompt`` is one user message, or a list of ``{"role": …, "content": …}``, or with ``raw``
        what the model is to continue as it is. Other keys of a message (``tool_calls``, ``tool_call_id``,
        …) and ``tools`` go to the model's chat template as they are. ``tokens_max`` 0 takes what the context leaves,
        at most 1,024.
        ``sampling``: temperature, top_k, top_p, min_p, repetition_penalty, seed; none is greedy.
        ``logprobs``: keep in the answer's ``tokens`` how likely each token was by the model itself,
        and so many (0 to 20) of the likeliest. ``logit_bias``: what is added to a token's logit first, by
        token id, from -100 (ruled out) to 100 (forced). ``json_schema`` (a schema, or its text) or
        ``regex``: what form the answer must have. ``reasoning``: tell what the model writes between its
        tags ahead of its answer apart, as the answer's ``reasoning``; ``reasoning_tokens_max`` of it at
        most. ``deterministic``: the same tokens whatever other answers there are; give the option
        ``threads_max`` too if threads are not to follow the machine's load. ``slide_context``: go on without
        the oldest part when the context is full. ``draft_tokens_max`` (0 to 16): draft so many tokens
        from the text so far and verify them in one run.
        """
        body = _schema.message("Generate")(
            model=model,
            options=options,
            tokens_max=tokens_max,
            stop=[stop] if isinstance(stop, str) else stop,
            sampling=sampling,
            logprobs=logprobs,
            deterministic=deterministic,
            slide_context=slide_context,
            draft_tokens_max=draft_tokens_max,
        )
        if tools is not None:
            body.tools_json = tools if isinstance(tools, str) else json.dumps(list(tools))
        if reasoning:
            body.reasoning.SetInParent()
            if reasoning_tokens_max is not None:
                body.reasoning.tokens_max = reasoning_tokens_max
        elif reasoning_tokens_max is not None:
            raise ValueError("reasoning_tokens_max takes reasoning=True")
        if json_schema is not None and regex is not None:
            raise ValueError("both json_schema and regex are given")
        if json_schema is not None:
            is_text = isinstance(json_schema, str)
            body.constraint.json_schema = json_schema if is_text else json.dumps(json_schema)
        if regex is not None:
            body.constraint.regex = regex
        for token_id, bias in (logit_bias or {}).items():
            body.logit_bias.add(token_id=token_id, bias=bias)
        if raw:
            body.prompt = prompt
        else:
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            for message in messages:
                others = {key: message[key] for key in message if key not in ("role", "content")}
                body.messages.add(
                    role=message["role"],
                    content=message.get("content") or "",
                    fields_json=json.dumps(others) if others else "",
                )
        return Generation(Call(self._link, "generate", body))

    # ---- Embeddings ----

    def embed(
        self,
        model: str,
        texts: str | Iterable[str],
        *,
        kind: str | None = None,
        dimensions: int | None = None,
        truncate: bool = False,
        on_progress: Callable[[Any], None] | None = None,
        options=None,
    ) -> "Embeddings":
        """Makes a vector of each text: f32 ``[texts, dimensions]``, in their order.

        ``kind``: ``query`` or ``document`` puts the model's prefix before each text. ``dimensions``:
        keep so many of the first, normed again. ``truncate``: cut texts that do not fit the model's
        context, which is an error otherwise. ``on_progress`` is called with ``stage``, ``done`` and
        ``total``; what it raises ends the work.
        """
        if kind not in _EMBED_KINDS:
            raise ValueError(f"{kind!r} is neither 'query' nor 'document'")
        body = _schema.message("Embed")(
            model=model,
            texts=[texts] if isinstance(texts, str) else texts,
            kind=_EMBED_KINDS[kind],
            dimensions=dimensions,
            truncate=truncate,
            options=options,
        )
        if dimensions == 0:
            raise ValueError("dimensions is 0")
        call = Call(self._link, "embed", body)
        try:
            made = None
            while True:
                kind_of, message, fds = call.next()
                if kind_of == "embeddings":
                    vectors = _memory.read(message.vectors, fds, {})
                    made = Embeddings(vectors, list(message.tokens), list(message.truncated))
                elif kind_of == "done" and made is not None:
                    made.receipt = message.receipt
                    return made
                elif kind_of == "done":
                    raise ProtocolError("the daemon ended without vectors")
                elif kind_of == "progress" and on_progress is not None:
                    on_progress(message)
        finally:
            call.close()

    # ---- Streams ----

    def stream(self, model: str, *, options=None) -> "Stream":
        """Opens a stateful stream: a socket straight to the worker."""
        body = _schema.message("OpenStream")(model=model, options=options)
        message, (fd,) = self._link.call("open_stream", body)
        return Stream(socket.socket(fileno=fd), message, self.welcome.limits.inline_bytes_max)

    # ---- Control ----

    def models(self):
        """All models of the catalogue."""
        return self._ask("list_models", "ListModels").models

    def devices(self, refresh: bool = False):
        """What works on this machine, and why the rest does not."""
        return self._ask("list_devices", "ListDevices", refresh=refresh).capabilities

    def explain(self, model: str, *, options=None, measure: bool = False):
        """Where a model would run, and why not elsewhere; with `measure`, after trying all ways anew."""
        return self._ask("explain", "Explain", model=model, options=options, measure=measure)

    def inspect(self, model: str, load: bool = False):
        """A model's files, variants, and (once it is loaded) inputs and outputs."""
        return self._ask("inspect_model", "InspectModel", model=model, load=load)

    def load(self, model: str, *, options=None) -> None:
        """Loads a model ahead of its first use."""
        self._ask("load", "Load", model=model, options=options)

    def unload(self, model: str) -> None:
        """Ends a model's worker."""
        self._ask("unload", "Unload", model=model)

    def pin(self, model: str, pinned: bool = True) -> None:
        """Keeps a model from being evicted for as long as this connection lives."""
        self._ask("pin", "Pin", model=model, pinned=pinned)

    def rescan(self) -> None:
        """Has the daemon read its stores and runtimes again."""
        self._ask("rescan", "Rescan")

    def watch(self) -> "Watch":
        """Watches the daemon: an iterator over what happens in it. A connection watches once at a
        time."""
        return Watch(Call(self._link, "watch", _schema.message("Watch")()))

    def status(self):
        """The daemon at a glance."""
        return self._ask("get_status", "GetStatus")

    def _ask(self, verb: str, name: str, **fields):
        message, _ = self._link.call(verb, _schema.message(name)(**fields))
        return message


def _collect(call: Call, out: Mapping[str, np.ndarray]) -> Outputs:
    outputs = Outputs()
    while True:
        kind, message, fds = call.next()
        if kind == "tensor":
            outputs[message.tensor.name] = _memory.read(message.tensor, fds, out)
        elif kind == "done":
            receipt = message.receipt
            outputs.receipt, outputs.compute_us = receipt, receipt.compute_us
            outputs.bytes_copied = receipt.bytes_copied
            outputs.bytes_converted = receipt.bytes_converted
            return outputs


class Embeddings:
    """Vectors of texts: ``vectors`` is an array f32 ``[texts, dimensions]``, which ``np.asarray``, ``len``
    and indices read too. ``tokens`` counts those of each text that were computed, ``truncated`` holds the
    places of texts that were cut, ``receipt`` tells what computed them."""

    def __init__(self, vectors: np.ndarray, tokens: list[int], truncated: list[int]):
        self.vectors = vectors
        self.tokens = tokens
        self.truncated = truncated
        self.receipt: Any = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index):
        return self.vectors[index]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.vectors, dtype=dtype, copy=copy)


class Generation:
    """An answer while it is written: an iterator over pieces of its text.

    Closed or dropped before its end, the work is cancelled. ``token_ids`` grows as it is read, and
    where logprobs were asked for ``tokens`` (each with ``id``, ``text``, ``logprob`` and ``top``, a list
    with ``id``, ``text`` and ``logprob``, the likeliest first), and ``reasoning`` where that was asked for
    apart; ``receipt`` and ``finish`` (``end_of_answer``, ``stop_string``, ``tokens_max``,
    ``context_full``) are there after the end.
    """

    def __init__(self, call: Call):
        self._call = call
        self.token_ids: list[int] = []
        self.tokens: list[Any] = []
        self.reasoning = ""
        self.receipt: Any = None
        self.finish: str | None = None

    def __enter__(self) -> "Generation":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self) -> "Generation":
        return self

    def __next__(self) -> str:
        while (answer := self._call.next()) is not None:
            kind, message, _ = answer
            if kind == "token":
                self.token_ids.append(message.id)
                self.reasoning += message.reasoning
                if message.HasField("logprob"):
                    self.tokens.append(message)
                if message.text:
                    return message.text
            elif kind == "done":
                self.receipt = message.receipt
                self.finish = _schema.enum_word("FinishReason", message.finish)
        raise StopIteration

    def close(self) -> None:
        """Cancels what is left of the answer."""
        self._call.close()


class Event:
    """Something that happened in the daemon, ``at_ms`` milliseconds after it started.

    The fields of its ``kind`` are attributes: ``worker_started`` (``pid``, ``model``, ``flavour``),
    ``worker_ended`` (``pid``, ``model``, ``signal``, ``exit_code``, ``expected``), ``model_loaded``
    (``model``, ``load_us``), ``model_unloaded`` (``model``), ``job_started`` (``job``, ``model``),
    ``job_ended`` (``job``, ``model``, ``outcome``), ``events_dropped`` (``count``). An event of a
    later version has the kind ``unknown``.
    """

    def __init__(self, message):
        self.at_ms: int = message.at_ms
        kind = message.WhichOneof("kind")
        self.kind: str = kind or "unknown"
        if kind is not None:
            detail = getattr(message, kind)
            for field in detail.DESCRIPTOR.fields:
                setattr(self, field.name, getattr(detail, field.name))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"Event({fields})"


class Watch:
    """What happens in the daemon, for as long as it is read: an iterator that waits for the next
    ``Event``. A reader that is too slow loses events, and is told how many.

    ``close()`` ends it, from another thread too.
    """

    def __init__(self, call: Call):
        self._call = call
        self._closed = False

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self) -> "Watch":
        return self

    def __next__(self) -> Event:
        try:
            while (answer := self._call.next()) is not None:
                kind, message, _ = answer
                if kind == "event":
                    return Event(message)
        except MoteError:
            # What ends the wait of a reader when it is closed from elsewhere.
            if not self._closed:
                raise
        raise StopIteration

    def close(self) -> None:
        """Ends the watch."""
        self._closed = True
        self._call.close()


def _apart(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Frame]]:
    """Arrays, and frames."""
    frames = {name: value for name, value in given.items() if isinstance(value, Frame)}
    return {name: value for name, value in given.items() if name not in frames}, frames


class Stream:
    """A stateful stream. Its state lives in the worker until ``close()``."""

    def __init__(self, sock: socket.socket, opened, inline_bytes_max: int):
        self._link = Link(sock)
        self._memory = Memory(self._link, inline_bytes_max)
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
        return self._memory.empty(shape, dtype)

    def frame(self, format: str, width: int, height: int, **more) -> Frame:
        """A frame without gaps in memory that the worker maps; ``more`` are further fields of ``Frame``, and
        ``channels`` (3) of floats."""
        channels = more.pop("channels", 3)
        shape, dtype = frame_array_shape(format, width, height, channels)
        return Frame(self.empty(shape, dtype), format, width, height, **more)

    def push(self, *, out: Mapping[str, np.ndarray] | None = None, **inputs) -> Outputs:
        """One step: inputs by name, outputs by name. An input may be a ``Frame``."""
        return self.push_with(inputs, out=out)

    def push_with(
        self,
        inputs: Mapping[str, Any],
        *,
        out: Mapping[str, np.ndarray | Frame] | None = None,
    ) -> Outputs:
        """As ``push``, with the inputs in a mapping. What is a ``Frame`` is read and written where it lies:
        an output that goes to one is not among the arrays of the answer."""
        body = _schema.message("StreamPush")()
        borrowed: list = []
        over = False
        try:
            arrays, frames = _apart(inputs)
            targets, frame_targets = _apart(out or {})
            self._memory.inputs(body, arrays, borrowed)
            self._memory.targets(body, targets)
            self._memory.frames(body.frames, frames)
            self._memory.frames(body.frame_outputs, frame_targets)
            result, fds = self._link.call("stream_push", body)
            over = True
        finally:
            self._memory.give_back(borrowed, reusable=over)
        outputs = Outputs()
        for tensor in result.outputs:
            outputs[tensor.name] = _memory.read(tensor, fds, targets)
        outputs.compute_us, outputs.bytes_copied = result.compute_us, result.bytes_copied
        outputs.bytes_converted = result.bytes_converted
        return outputs

    def close(self):
        """Ends the stream in good order and answers its receipt."""
        if self.receipt is None:
            try:
                done, _ = self._link.call("stream_close", _schema.message("StreamClose")())
                self.receipt = done.receipt
            finally:
                self._link.close()
        return self.receipt
