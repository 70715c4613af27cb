"""Clips that are transformed, generated and labelled."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import weakref
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Tuple, Union

import numpy as np

from . import _memory, _schema
from ._errors import MoteError, ProtocolError, invalid, limited
from ._files import Pending
from ._link import Call

# Output frames, or steps, per preview when the caller does not say.
PREVIEW_EVERY = 10
STEPS_PER_PREVIEW = 1
# Numbers of ``ClipFormat`` in the schema.
_FORMATS = {"mp4": 1, "gif": 2, "png": 3, "webm": 4, "webp": 5, "rgb8": 6, "y4m": 7}
# Models of this task give one frame for each; others give frames between frames.
_RESTORATION = "frame-restoration"
_INTERPOLATION_FACTOR = 2
# Pixels of a side of a frame.
_SIDE_MAX = 16_384
# Samples a second, channels and bytes of sound that one answer may have, as in the wire's limits.
_SAMPLE_RATE_MAX = 192_000
_CHANNELS_MAX = 8
_AUDIO_BYTES_MAX = 64 << 20
_SAMPLE_BYTES = 4
# Bytes of a prompt, and prompts of one clip that were not told of, likewise.
_PROMPT_BYTES_MAX = 1 << 20
_STEERS_MAX = 32
# The verb of work that can be steered, and the field that refusals are about, as in the daemon's own.
_STEERED_VERB = "generate_clip"
_TARGET = "target_request_id"
_ENDED_FIRST = "the clip had ended when the prompt came"

Path = Union[str, "os.PathLike[str]"]
Picture = Union[Path, bytes, bytearray, memoryview]
Prompt = Union[str, Iterable[Union[str, Tuple[str, int]]]]


class ClipJob:
    """What work on a clip is told while it goes on: hand one over as ``job``, and call its methods from another
    thread or from within a callback.

    It is of one work, and none of its methods waits. What is said ahead of the work is told to it when it begins; work
    that is over hears nothing. What becomes of a prompt is told to ``on_steered`` of ``generate_clip``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Weak, so that work which nobody reads any more is cancelled, whoever keeps its job.
        self._call: weakref.ref[Call] | None = None
        self._early: list[tuple[str, str, dict[str, Any]]] = []
        # Whether prompts have no place any more, and how many were set and not told of.
        self._refuses: str | None = None
        self._untold = 0

    def pause(self) -> None:
        """Halts the work at its next step. It keeps its memory; others may use the device meanwhile. All work on clips
        can be halted."""
        self._tell("pause", "Pause", paused=True)

    def resume(self) -> None:
        """Lets it go on."""
        self._tell("pause", "Pause", paused=False)

    def steer(self, prompt: str) -> None:
        """Another prompt for the shots of a generated clip that have not begun. The first begins with the work.

        ``on_steered`` is told from which shot on it counts, or why it does not: once for each prompt, in their order
        and before the work is over. Raises ``mote.Invalid`` where the work makes no clip of words or is over, and for
        a prompt that holds a NUL; ``mote.LimitExceeded`` for one that is too long, or beyond 32 that were not told of.
        """
        limited("bytes of prompt", len(prompt.encode()), _PROMPT_BYTES_MAX)
        if "\0" in prompt:
            raise invalid("prompt", "it holds a NUL")
        with self._lock:
            if self._refuses is not None:
                raise invalid(_TARGET, self._refuses)
            limited("prompts that were not told of", self._untold + 1, _STEERS_MAX)
            self._untold += 1
            self._say("steer_clip", "SteerClip", prompt=prompt)

    def cancel(self) -> None:
        """Ends the work, which then raises ``mote.Cancelled`` where it is waited for."""
        self._tell("cancel", "Cancel")

    def _tell(self, verb: str, name: str, **fields: Any) -> None:
        with self._lock:
            self._say(verb, name, **fields)

    def _say(self, verb: str, name: str, **fields: Any) -> None:
        if self._call is None:
            self._early.append((verb, name, fields))
        elif (call := self._call()) is not None:
            call.tell(verb, name, **fields)

    def _expect(self, verb: str) -> None:
        """Work of this verb is about to begin."""
        with self._lock:
            if self._call is not None:
                raise ValueError("the job is that of other work already")
            if verb != _STEERED_VERB and self._untold:
                raise invalid(_TARGET, "it generates no clip")

    def _begin(self, verb: str, call: Call) -> None:
        with self._lock:
            if self._call is not None:
                raise ValueError("the job is that of other work already")
            if verb != _STEERED_VERB:
                self._refuses = "it generates no clip"
            self._call, early = weakref.ref(call), self._early
            self._early = []
            for said, name, fields in early:
                call.tell(said, name, **fields)

    def _told(self) -> bool:
        """The daemon tells of a prompt; False when none was set."""
        with self._lock:
            was_set = self._untold > 0
            self._untold -= was_set
            return was_set

    def _end(self) -> int:
        """The work is over; how many prompts were not told of."""
        with self._lock:
            self._refuses = self._refuses or "it has ended"
            untold, self._untold = self._untold, 0
            return untold


@dataclass(frozen=True)
class Clip:
    """A clip that was generated: ``receipt`` tells what computed it, with ``seed``, ``scheduler``,
    ``step_times_us`` and ``resumed_steps``, and of its sound ``audio_samples_out`` (of each channel; 0 where there is
    none), ``audio_sample_rate``, ``audio_channels`` and ``audio_codec``, which is empty where the file's format does
    not take it: then what was made is not in it. ``data`` holds the file where no target was named, as a read-only
    ``mmap`` of the very memory the daemon wrote: what takes bytes takes it, ``np.frombuffer`` too."""

    receipt: Any
    data: mmap.mmap | None = None


@dataclass(frozen=True, eq=False)
class ClipAudio:
    """Sound of a clip: ``samples`` are f32 ``[samples, channels]`` from -1 to 1, the first of which is the
    ``sample_index``-th of each channel from the clip's beginning. ``sample_rate`` are samples a second of each
    channel; it and the channels are the same throughout a clip."""

    samples: np.ndarray
    sample_index: int
    sample_rate: int


@dataclass(frozen=True)
class Steered:
    """What became of a prompt that was set while a clip was made: it is for the shot ``from_segment``, counted from 0,
    and all that follow; or that is None, and ``why`` says why the prompt is not taken."""

    from_segment: int | None
    why: str


@dataclass(frozen=True)
class Label:
    """A class: its number in the model, its name (empty where the model brings none), and its score."""

    class_id: int
    label: str
    score: float


@dataclass(frozen=True)
class LabelBox(Label):
    """A class and where it is, in pixels of the frame from its upper left corner."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class FrameLabels:
    """What is seen in ``frame_count`` frames from ``frame_index`` on, of which the first is shown ``time_us``
    microseconds from the beginning: ``labels`` of the whole frame and ``boxes``, the likeliest first."""

    frame_index: int
    frame_count: int
    time_us: int
    labels: list[Label] = field(default_factory=list)
    boxes: list[LabelBox] = field(default_factory=list)


class Labelling:
    """What is seen in a clip, as it is found: an iterator over ``FrameLabels``. Closed or dropped before its
    end, the work is cancelled. ``receipt`` is there after the end."""

    def __init__(self, call: Call, on_progress: Callable[[Any], None] | None):
        self._call = call
        self._on_progress = on_progress
        self.receipt: Any = None

    def __enter__(self) -> "Labelling":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __iter__(self) -> "Labelling":
        return self

    def __next__(self) -> FrameLabels:
        while (answer := self._call.next()) is not None:
            kind, message, fds = answer
            _close(fds)
            if kind == "labels":
                return _frame_labels(message)
            if kind == "done":
                self.receipt = message.receipt
            elif kind == "progress" and self._on_progress is not None:
                self._on_progress(message)
        raise StopIteration

    def close(self) -> None:
        """Cancels what is left."""
        self._call.close()


class Clips:
    """What a client asks of clips."""

    _link: Any
    inspect: Callable[..., Any]

    def transform_clip(
        self,
        model: str,
        source: Path,
        target: Path,
        *,
        factor: int | None = None,
        format: str = "mp4",
        contact_sheet: Path | None = None,
        on_progress: Callable[[Any], None] | None = None,
        on_preview: Callable[[Any], None] | None = None,
        preview_every: int = PREVIEW_EVERY,
        job: ClipJob | None = None,
        options=None,
        **settings,
    ):
        """Reads a clip, writes one with ``factor`` times as many frames, and answers the receipt.

        ``factor`` is 2 or 4 with models that give frames between frames, and 0 with those that restore frames,
        which give one for each; without it, it is 2 or 0, as the model has it. ``format``: mp4, webm (AV1), gif,
        webp (animated, lossless), png (PNG files one after another), rgb8 (frames one after another) or y4m.
        ``settings``: frames_max, width_max, height_max, frame_rate, encoder_speed, tile_side_max, as in
        TransformClip. The clip's sound stays where the format takes it, as it is: mp4 most kinds, webm Opus and
        Vorbis. The receipt tells of sound, and with an empty ``audio_codec`` that it is not in the file.

        ``on_progress`` is called with ``stage``, ``done``, ``total`` and ``remaining_ms``. ``on_preview`` is
        called with a small picture of about every ``preview_every``-th frame: ``png``, ``width``, ``height``
        and ``frame_index``. What either raises ends the work. ``job`` pauses, resumes and cancels it. Files
        appear complete or not at all.
        """
        output_format = _format(format)
        if factor is None:
            task = self.inspect(model).model.task
            factor = 0 if task == _RESTORATION else _INTERPOLATION_FACTOR
        body = _schema.message("TransformClip")(
            model=model,
            factor=factor,
            output_format=output_format,
            contact_sheet=contact_sheet is not None,
            preview_every=0 if on_preview is None else preview_every,
            options=options,
            **settings,
        )
        told = {"progress": on_progress, "preview": on_preview}
        with ExitStack() as files:
            read = files.enter_context(open(source, "rb"))
            written = [files.enter_context(Pending(path)) for path in (target, contact_sheet) if path is not None]
            fds = [read.fileno(), *(pending.fd for pending in written)]
            call = self._clip_call(files, "transform_clip", body, fds, job)
            receipt = _follow(call, told, job)
            for pending in written:
                pending.keep()
            return receipt

    def generate_clip(
        self,
        model: str,
        prompt: Prompt,
        target: Path | None = None,
        *,
        frames: int = 0,
        negative_prompt: str = "",
        guidance: float | None = None,
        seed: int | None = None,
        steps: int = 0,
        width: int = 0,
        height: int = 0,
        frame_rate: int = 0,
        scheduler: str = "",
        first_image: Picture | None = None,
        last_image: Picture | None = None,
        reference_image: Picture | None = None,
        source: Picture | None = None,
        strength: float | None = None,
        checkpoint: Path | None = None,
        format: str = "mp4",
        encoder_speed: int | None = None,
        contact_sheet: Path | None = None,
        on_progress: Callable[[Any], None] | None = None,
        on_preview: Callable[[Any], None] | None = None,
        preview_every: int = STEPS_PER_PREVIEW,
        on_frame: Callable[[np.ndarray], None] | None = None,
        on_audio: Callable[[ClipAudio], None] | None = None,
        on_steered: Callable[[Steered], None] | None = None,
        job: ClipJob | None = None,
        options=None,
    ) -> Clip:
        """Makes a clip of words, pictures or another clip, and waits for it.

        ``prompt`` is what it shows; several, or pairs of a prompt and a number of frames, are shots one after
        the other, each going on from where the one before ended. ``frames`` counts for those that do not say.
        Numbers that are 0 and what is None or empty are as the model wants them. The clip goes to ``target``,
        or, without one, to memory: the answer's ``data``.

        ``negative_prompt`` is what it shall not show, and counts with ``guidance`` (0 to 100; 1 is none). The
        same ``seed`` gives the same frames; without one the receipt tells the one that was drawn. ``scheduler``
        is a class of diffusers, or flow-match-euler, euler, ddim, lcm or dpmpp-2m.

        ``first_image``, ``last_image`` and ``reference_image`` are PNG files, and ``source`` is a clip, of which
        ``strength`` (above 0, at most 1) is made anew: their paths, or their bytes.

        ``checkpoint`` is a file that keeps the work so far. When that ends early, the same request goes on from
        it, to the same frames; it is empty when the clip is done.

        ``format`` as in ``transform_clip``. ``on_progress`` is called with ``stage`` (``denoise``: steps), ``done``,
        ``total`` and ``remaining_ms``; ``on_preview`` after about every ``preview_every``-th step, with what the
        clip is expected to become: ``png``, ``width``, ``height`` and ``frame_index``, the steps done;
        ``on_frame`` with each frame, in order, as soon as it is decoded: u8 ``[height, width, 3]``, each once, also
        where a worker died; ``on_audio`` with the sound, in order, as soon as it is made, where the model makes any:
        ``samples``, f32 ``[samples, channels]``, ``sample_index``, the first of them, and ``sample_rate``. The file has
        it, too, where its format takes sound (mp4, webm). What they raise ends the work. ``job`` pauses,
        resumes, steers and cancels it; ``on_steered`` is called with what became of each prompt that it set:
        ``from_segment``, the first shot that has it, or None and ``why``. Files appear complete or not at all.
        """
        body = _schema.message("GenerateClip")(
            model=model,
            segments=_segments(prompt, frames),
            negative_prompt=negative_prompt,
            guidance=guidance,
            seed=seed,
            steps=steps,
            width=width,
            height=height,
            frame_rate=frame_rate,
            scheduler=scheduler,
            strength=strength,
            output_format=_format(format),
            encoder_speed=encoder_speed,
            contact_sheet=contact_sheet is not None,
            first_image=first_image is not None,
            last_image=last_image is not None,
            reference_image=reference_image is not None,
            source=source is not None,
            checkpoint=checkpoint is not None,
            preview_every=0 if on_preview is None else preview_every,
            send_frames=on_frame is not None,
            send_audio=on_audio is not None,
            options=options,
        )
        told = {
            "progress": on_progress,
            "preview": on_preview,
            "frame": on_frame,
            "audio": on_audio,
            "steered": on_steered,
        }
        with ExitStack() as files:
            # In the order of the schema.
            read = [
                _open(files, given)
                for given in (first_image, last_image, reference_image, source)
                if given is not None
            ]
            if checkpoint is not None:
                read.append(_keep(files, os.open(checkpoint, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)))
            written = [files.enter_context(Pending(path)) for path in (target, contact_sheet) if path is not None]
            fds = [pending.fd for pending in written]
            memory = None if target is not None else _memfd(files)
            if memory is not None:
                fds.insert(0, memory)
            call = self._clip_call(files, "generate_clip", body, [*fds, *read], job)
            receipt = _follow(call, told, job)
            for pending in written:
                pending.keep()
            return Clip(receipt, None if memory is None else _mapped(memory))

    def label_clip(
        self,
        model: str,
        source: Picture,
        *,
        frames_max: int = 0,
        every: int = 0,
        frame_rate: int = 0,
        labels_max: int = 0,
        score_min: float | None = None,
        on_progress: Callable[[Any], None] | None = None,
        job: ClipJob | None = None,
        options=None,
    ) -> Labelling:
        """Tells what is seen in a clip: an iterator over ``FrameLabels``.

        ``source`` is a file's path or its bytes. ``frames_max``: read so many frames; ``every``: look at every
        n-th only; ``frame_rate``: of an input that does not say. ``labels_max`` and ``score_min``: tell so many
        labels of a frame, and none below this score; without them, as the model has it. ``on_progress`` is called
        while the answer is read; ``job`` pauses, resumes and cancels the work.
        """
        body = _schema.message("LabelClip")(
            model=model,
            frames_max=frames_max,
            every=every,
            frame_rate=frame_rate,
            labels_max=labels_max,
            score_min=score_min,
            options=options,
        )
        with ExitStack() as files:
            if job is not None:
                job._expect("label_clip")
            call = Call(self._link, "label_clip", body, [_open(files, source)])
            labelling = Labelling(call, on_progress)
            if job is not None:
                job._begin("label_clip", call)
            return labelling

    def _clip_call(self, files: ExitStack, verb: str, body, fds: list[int], job: ClipJob | None) -> Call:
        if job is not None:
            job._expect(verb)
        call = Call(self._link, verb, body, fds)
        files.callback(call.close)
        if job is not None:
            job._begin(verb, call)
            files.callback(job._end)
        return call


def _format(name: str) -> int:
    if name not in _FORMATS:
        raise ValueError(f"{name!r} is none of {', '.join(_FORMATS)}")
    return _FORMATS[name]


def _segments(prompt: Prompt, frames: int) -> list:
    segment = _schema.message("ClipSegment")
    shots = [prompt] if isinstance(prompt, str) else prompt
    pairs = ((shot, frames) if isinstance(shot, str) else shot for shot in shots)
    segments = [segment(prompt=text, frames=count) for text, count in pairs]
    if not segments:
        raise ValueError("there is no prompt")
    return segments


def _keep(files: ExitStack, fd: int) -> int:
    files.callback(os.close, fd)
    return fd


def _memfd(files: ExitStack) -> int:
    return _keep(files, os.memfd_create("mote-clip", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))


def _open(files: ExitStack, given: Picture) -> int:
    """A descriptor of a file, or of bytes as if they were one."""
    if not isinstance(given, (bytes, bytearray, memoryview)):
        return files.enter_context(open(given, "rb")).fileno()
    fd, view = _memfd(files), memoryview(given).cast("B")
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _mapped(memory: int) -> mmap.mmap:
    # The worker may still have it open: nothing must cut it while it is mapped here.
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    if os.fstat(memory).st_size == 0:
        raise ProtocolError("the daemon ended without a clip")
    return mmap.mmap(memory, 0, access=mmap.ACCESS_READ)


def _follow(call: Call, told: dict[str, Callable[[Any], None] | None], job: ClipJob | None):
    """Tells what happens until the work is over, and answers its receipt."""
    while True:
        try:
            kind, message, fds = call.next()
        except MoteError:
            _tell_untold(job, told)
            raise
        if kind == "done":
            _tell_untold(job, told)
            return message.receipt
        # Read in any case: its descriptor is closed by that.
        if kind == "frame":
            content = _frame(message, fds)
        elif kind == "audio":
            content = _audio(message, fds)
        elif kind == "steered":
            _close(fds)
            content = _steered(message, job)
        else:
            _close(fds)
            content = message
        if (tell := told.get(kind)) is not None:
            tell(content)


def _steered(message, job: ClipJob | None) -> Steered:
    if job is None or not job._told():
        raise ProtocolError("the daemon told of a prompt that was not set")
    return Steered(message.from_segment if message.HasField("from_segment") else None, message.why)


def _tell_untold(job: ClipJob | None, told: dict[str, Callable[[Any], None] | None]) -> None:
    """The work is over: what the daemon did not tell of prompts is that they came too late."""
    untold = 0 if job is None else job._end()
    if (tell := told.get("steered")) is not None:
        for _ in range(untold):
            tell(Steered(None, _ENDED_FIRST))


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _frame(message, fds: list[int]) -> np.ndarray:
    shape = list(message.frame.shape)
    if len(shape) != 3 or shape[2] != 3 or not all(0 < side <= _SIDE_MAX for side in shape[:2]):
        _close(fds)
        raise ProtocolError(f"the daemon sent {shape} for a frame")
    frame = _memory.read(message.frame, fds, {})
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ProtocolError(f"the daemon sent {frame.dtype} {frame.shape} for a frame")
    return frame


def _audio(message, fds: list[int]) -> ClipAudio:
    """Sound, checked before memory is taken for it."""
    tensor, rate = message.audio, message.sample_rate
    shape = list(tensor.shape)
    fits = len(shape) == 2 and shape[0] > 0 and 0 < shape[1] <= _CHANNELS_MAX and 0 < rate <= _SAMPLE_RATE_MAX
    need_bytes = _SAMPLE_BYTES * shape[0] * shape[1] if fits else 0
    have_bytes = len(tensor.inline) or tensor.passed.bytes
    is_f32 = tensor.dtype == _schema.enum_number("DType", "f32")
    if not fits or not is_f32 or need_bytes != have_bytes or need_bytes > _AUDIO_BYTES_MAX:
        _close(fds)
        raise ProtocolError(f"the daemon sent {shape} in {have_bytes} bytes at {rate} Hz for sound")
    return ClipAudio(_memory.read(tensor, fds, {}), message.sample_index, rate)


def _frame_labels(message) -> FrameLabels:
    def fields(label) -> tuple[int, str, float]:
        return getattr(label, "class"), label.label, label.score

    return FrameLabels(
        message.frame_index,
        message.frame_count,
        message.time_us,
        [Label(*fields(label)) for label in message.labels],
        [LabelBox(*fields(box.label), box.x0, box.y0, box.x1, box.y1) for box in message.boxes],
    )
