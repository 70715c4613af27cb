"""Frames in memory that the daemon maps: what their bytes mean, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import _schema

# Planes of each format as the shape of an array without gaps: columns and rows per pixel, and the rest.
_PLANES = {
    "rgb8": [(1, 1, (3,))],
    "bgr8": [(1, 1, (3,))],
    "rgba8": [(1, 1, (4,))],
    "nv12": [(1, 1, ()), (2, 2, (2,))],
    "i420": [(1, 1, ()), (2, 2, ()), (2, 2, ())],
    "gray8": [(1, 1, ())],
}
_FLOATS = {
    "f32_nchw": np.float32,
    "f32_nhwc": np.float32,
    "f16_nchw": np.float16,
    "f16_nhwc": np.float16,
}


def frame_array_shape(format: str, width: int, height: int, channels: int = 3):
    """Shape and type of an array that holds a frame without gaps: ``[height, width, 3]`` of RGB, the rows of all
    planes as one vector where there are several, ``[channels, height, width]`` or ``[height, width, channels]``
    of floats."""
    if (dtype := _FLOATS.get(format)) is not None:
        planar = format.endswith("nchw")
        return ((channels, height, width) if planar else (height, width, channels)), dtype
    if format not in _PLANES:
        raise ValueError(f"{format!r} is none of {', '.join([*_PLANES, *_FLOATS])}")
    planes = _PLANES[format]
    if len(planes) == 1:
        return (height, width, *planes[0][2]), np.uint8
    shapes = ((height // down, width // across, *rest) for across, down, rest in planes)
    return (sum(int(np.prod(shape)) for shape in shapes),), np.uint8


@dataclass
class Frame:
    """A frame in an array from ``Stream.empty()`` or ``Stream.frame()``.

    ``format`` is ``rgb8``, ``bgr8``, ``rgba8``, ``nv12``, ``i420``, ``gray8``, or, for a tensor's own numbers,
    ``f32_nchw``, ``f32_nhwc``, ``f16_nchw``, ``f16_nhwc``. ``matrix`` is ``bt601``, ``bt709`` or ``bt2020``,
    ``range`` is ``limited`` or ``full``; they default to BT.601, limited where there is chroma.

    ``planes`` are the offset in the array and the bytes from row to row of each plane; without them, planes
    follow each other without gaps. ``tensor_size`` is the width and height of an input that the model leaves
    open; without it, those of the frame are taken.
    """

    array: np.ndarray
    format: str
    width: int
    height: int
    matrix: str | None = None
    range: str | None = None
    planes: list[tuple[int, int]] | None = None
    tensor_size: tuple[int, int] | None = None

    def plane(self, index: int) -> np.ndarray:
        """One plane of a frame of bytes without gaps, as a view: ``[height, width]`` of luma, of half the size
        with ``[..., 2]`` of NV12's chroma."""
        if self.planes is not None or self.format not in _PLANES:
            raise ValueError("only frames of bytes without gaps have planes as arrays")
        flat, at = self.array.reshape(-1), 0
        for number, (across, down, rest) in enumerate(_PLANES[self.format]):
            shape = (self.height // down, self.width // across, *rest)
            end = at + int(np.prod(shape))
            if number == index:
                return flat[at:end].reshape(shape)
            at = end
        raise IndexError(f"{self.format} has no plane {index}")


def add(message, name: str, frame: Frame, buffer: int, offset: int) -> None:
    """Adds a frame whose array begins at ``offset`` of a registered buffer to a list of a request. What does not
    lie within its array is refused: the daemon sees the buffer, and would read or write the neighbour."""
    _check(frame)
    width, height = frame.tensor_size or (0, 0)
    entry = message.add(
        name=name,
        format=_schema.enum_number("FrameFormat", frame.format),
        width=frame.width,
        height=frame.height,
        buffer=buffer,
        matrix=_schema.enum_number("ColorMatrix", frame.matrix or "unspecified"),
        range=_schema.enum_number("ColorRange", frame.range or "unspecified"),
        tensor_width=width,
        tensor_height=height,
    )
    planes = frame.planes
    if planes is None and offset:
        planes = _dense_planes(frame)
    for start, stride in planes or []:
        entry.planes.add(offset=offset + start, stride=stride)


def _rows(frame: Frame) -> list[tuple[int, int]]:
    """Rows, and bytes of a row, of each plane."""
    if frame.format in _PLANES:
        return [
            (frame.height // down, frame.width // across * int(np.prod(rest, dtype=int)))
            for across, down, rest in _PLANES[frame.format]
        ]
    dtype = _FLOATS.get(frame.format)
    if dtype is None:
        raise ValueError(f"{frame.format!r} is none of {', '.join([*_PLANES, *_FLOATS])}")
    if frame.array.dtype != dtype:
        raise ValueError(f"a frame of {frame.format} is in an array of {frame.array.dtype}")
    row = frame.width * frame.array.itemsize
    channels = frame.array.nbytes // max(row * frame.height, 1)
    planar = frame.format.endswith("nchw")
    return [(frame.height, row)] * channels if planar else [(frame.height, row * channels)]


def _check(frame: Frame) -> None:
    rows = _rows(frame)
    planes = _dense_planes(frame) if frame.planes is None else frame.planes
    for (count, row), (start, stride) in zip(rows, planes):
        end = start + (count - 1) * stride + row
        if start < 0 or stride < 0 or end > frame.array.nbytes:
            raise ValueError(f"a plane ends at byte {end} of an array of {frame.array.nbytes}")


def _dense_planes(frame: Frame) -> list[tuple[int, int]]:
    planes, at = [], 0
    for count, stride in _rows(frame):
        planes.append((at, stride))
        at += count * stride
    return planes
