"""What frames become as tensors, and tensors as frames: written plainly, to compare `mote-pipeline` with.

    python tests/models/frames/reference.py

writes `cases.json` and `cases.bin` beside itself; `backends/pipeline/tests/frames.rs` reads them. Made with numpy
2.4.6 on Python 3.11; the numbers need nothing of numpy but arithmetic in 32 bits, rounded after each step.

Weights of red and blue, and the limited range: Recommendations ITU-R BT.601-7, BT.709-6, BT.2020-2.
"""

import json
import math
from pathlib import Path

import numpy as np

F = np.float32
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
LEVELS = {"limited": (16.0, 235.0), "full": (0.0, 255.0)}
PACKED = {"rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2))}


# ---- Colours ----


def clamp(value):
    return min(max(value, F(0)), F(255))


def weights(matrix):
    red, blue = WEIGHTS[matrix]
    return F(red), F(1.0 - red - blue), F(blue)


def luma(pixel, matrix):
    red, green, blue = weights(matrix)
    return F(F(F(pixel[0] * red) + F(pixel[1] * green)) + F(pixel[2] * blue))


def from_level(byte, levels):
    black, white = LEVELS[levels]
    return F(F(F(byte) - F(black)) * F(255.0 / (white - black)))


def to_level(value, levels):
    black, white = LEVELS[levels]
    return F(F(value * F((white - black) / 255.0)) + F(black))


def colour(y, cb, cr, matrix, levels):
    """A pixel of luma and chroma."""
    red, blue = WEIGHTS[matrix]
    green = 1.0 - red - blue
    gain = 255.0 / 224.0 if levels == "limited" else 1.0
    y, cb, cr = from_level(y, levels), F(F(cb) - F(128)), F(F(cr) - F(128))
    add_red = F(cr * F(gain * 2.0 * (1.0 - red)))
    add_green = F(
        F(cb * F(-gain * 2.0 * blue * (1.0 - blue) / green))
        + F(cr * F(-gain * 2.0 * red * (1.0 - red) / green))
    )
    add_blue = F(cb * F(gain * 2.0 * (1.0 - blue)))
    return [clamp(F(y + add)) for add in (add_red, add_green, add_blue)]


def chroma(pixel, matrix, levels):
    """Cb and Cr of a pixel, not rounded."""
    red, blue = WEIGHTS[matrix]
    gain = 255.0 / 224.0 if levels == "limited" else 1.0
    y = luma(pixel, matrix)
    cb = F(F(128) + F(F(pixel[2] - y) * F(1.0 / (gain * 2.0 * (1.0 - blue)))))
    cr = F(F(128) + F(F(pixel[0] - y) * F(1.0 / (gain * 2.0 * (1.0 - red)))))
    return cb, cr


def byte(value):
    """The nearest byte, halves to even."""
    return int(np.rint(clamp(value)))


# ---- A frame as numbers ----


def at(memory, planes, plane, y, x, dtype="u1"):
    offset, stride = planes[plane]
    size = np.dtype(dtype).itemsize
    start = offset + y * stride + x * size
    return np.frombuffer(memory[start : start + size], dtype)[0]


def pixels(memory, frame, channels):
    """f32 [height, width, channels]: 0..255 of formats of bytes, the numbers of the others."""
    form, planes = frame["format"], frame["planes"]
    matrix, levels = frame["matrix"], frame["range"]
    height, width = frame["height"], frame["width"]
    out = np.zeros((height, width, channels), F)
    for y in range(height):
        for x in range(width):
            if form in PACKED:
                size, places = PACKED[form]
                read = [at(memory, planes, 0, y, size * x + place) for place in places]
                pixel = [clamp(from_level(value, levels)) for value in read]
                out[y, x] = pixel if channels == 3 else luma(pixel, matrix)
            elif form == "gray8" or (channels == 1 and form in ("nv12", "i420")):
                out[y, x] = clamp(from_level(at(memory, planes, 0, y, x), levels))
            elif form in ("nv12", "i420"):
                if form == "nv12":
                    cb, cr = (at(memory, planes, 1, y // 2, x // 2 * 2 + i) for i in (0, 1))
                else:
                    cb, cr = (at(memory, planes, i, y // 2, x // 2) for i in (1, 2))
                out[y, x] = colour(at(memory, planes, 0, y, x), cb, cr, matrix, levels)
            else:
                dtype = "<f4" if form.startswith("f32") else "<f2"
                planar = form.endswith("nchw")
                for c in range(channels):
                    plane, place = (c, x) if planar else (0, x * channels + c)
                    out[y, x, c] = F(at(memory, planes, plane, y, place, dtype))
    return out


# ---- Scaling ----


def neighbours(pixel, source, target, kind):
    """The first pixel of the source that counts, and the weights of it and those behind it."""
    if kind == "area" and target < source:
        start, end = pixel * source, (pixel + 1) * source
        first, last = start // target, (end - 1) // target
        covered = [
            min(end, (i + 1) * target) - max(start, i * target) for i in range(first, last + 1)
        ]
        return first, [F(c / source) for c in covered]
    centre = (pixel + 0.5) * source / target - 0.5
    before = math.floor(centre)
    weight = F(centre - before)
    if before < 0 or weight == 0 or before + 1 > source - 1:
        return min(max(before, 0), source - 1), [F(1)]
    return before, [F(F(1) - weight), weight]


def weighed(values, first, counts):
    total = (values[first] * counts[0]).astype(F)
    for i, count in enumerate(counts[1:], 1):
        total = (total + (values[first + i] * count).astype(F)).astype(F)
    return total


def scaled(picture, height, width, kind):
    """Rows first, then columns."""
    rows = np.stack(
        [weighed(picture, *neighbours(y, picture.shape[0], height, kind)) for y in range(height)]
    )
    columns = rows.transpose(1, 0, 2)
    columns = np.stack(
        [weighed(columns, *neighbours(x, picture.shape[1], width, kind)) for x in range(width)]
    )
    return columns.transpose(1, 0, 2)


def fitted(fit, width, height, into_width, into_height):
    """Where a picture lies in a tensor: x, y, width, height."""
    wide, high = into_width, into_height
    if fit == "letterbox":
        if width * into_height >= height * into_width:
            high = min(max((2 * height * into_width + width) // (2 * width), 1), into_height)
        else:
            wide = min(max((2 * width * into_height + height) // (2 * height), 1), into_width)
    return (into_width - wide) // 2, (into_height - high) // 2, wide, high


# ---- Tensors ----


def stored(values, dtype):
    if dtype in ("u8", "i8"):
        low, high = (0, 255) if dtype == "u8" else (-128, 127)
        return np.rint(np.clip(values, F(low), F(high))).astype(np.uint8 if low == 0 else np.int8)
    return values.astype({"f32": F, "f16": np.float16}[dtype])


def tensor(memory, frame, hint, dtype, channels, height, width):
    picture = pixels(memory, frame, channels)
    x, y, wide, high = fitted(hint["fit"], frame["width"], frame["height"], width, height)
    picture = scaled(picture, high, wide, hint["filter"])
    order = [2, 1, 0] if hint["order"] == "bgr" and channels == 3 else list(range(channels))
    floats = frame["format"].startswith("f")
    out = np.zeros((height, width, channels), F)
    for c in range(channels):
        scale, mean, std = (float(F(v)) for v in (hint["scale"], hint["mean"][c], hint["std"][c]))
        gain, offset = F(scale / std), F(-mean / std)
        out[:, :, c] = F(F(F(hint["pad"][order[c]]) * gain) + offset)
        inside = picture[:, :, c] if floats else picture[:, :, order[c]]
        if not floats:
            inside = ((inside * gain).astype(F) + offset).astype(F)
        out[y : y + high, x : x + wide, c] = inside
    out = stored(out, dtype)
    return np.ascontiguousarray(out if hint["layout"] == "nhwc" else out.transpose(2, 0, 1))


def written(memory, frame, hint, values):
    """Writes a tensor [height, width, channels] to a frame."""
    form, planes = frame["format"], frame["planes"]
    matrix, levels = frame["matrix"], frame["range"]
    height, width, channels = values.shape

    def put(plane, y, x, value, dtype="u1"):
        offset, stride = planes[plane]
        value = np.array([value], dtype).tobytes()
        start = offset + y * stride + x * len(value)
        memory[start : start + len(value)] = value

    if form.startswith("f"):
        dtype = "<f4" if form.startswith("f32") else "<f2"
        for y, x, c in np.ndindex(height, width, channels):
            plane, place = (c, x) if form.endswith("nchw") else (0, x * channels + c)
            put(plane, y, place, values[y, x, c], dtype)
        return
    order = [2, 1, 0] if hint["order"] == "bgr" and channels == 3 else list(range(channels))
    picture = np.zeros((height, width, 3), F)
    for c in range(channels):
        scale, mean, std = (float(F(v)) for v in (hint["scale"], hint["mean"][c], hint["std"][c]))
        gain, offset = F(std / scale), F(mean / scale)
        values32 = values[:, :, c].astype(F)
        colours = np.clip(((values32 * gain).astype(F) + offset).astype(F), F(0), F(255))
        picture[:, :, order[c]] = colours
    if channels == 1:
        picture[:, :, 1:] = picture[:, :, :1]
    for y, x in np.ndindex(height, width):
        pixel = picture[y, x]
        if form in PACKED:
            size, places = PACKED[form]
            for c, place in enumerate(places):
                put(0, y, size * x + place, byte(to_level(pixel[c], levels)))
            if size == 4:
                put(0, y, 4 * x + 3, 255)
            continue
        gray = pixel[0] if channels == 1 else luma(pixel, matrix)
        put(0, y, x, byte(to_level(gray, levels)))
        if form != "gray8" and y % 2 == 1 and x % 2 == 1:
            four = picture[y - 1 : y + 1, x - 1 : x + 1]
            upper, lower = F(1) * (four[0, 0] + four[0, 1]), F(1) * (four[1, 0] + four[1, 1])
            mean = ((upper + lower) * F(0.25)).astype(F)
            cb, cr = (byte(value) for value in chroma(mean, matrix, levels))
            if form == "nv12":
                put(1, y // 2, x - 1, cb)
                put(1, y // 2, x, cr)
            else:
                put(1, y // 2, x // 2, cb)
                put(2, y // 2, x // 2, cr)


# ---- Cases ----


def shapes(form, width, height, channels):
    """Bytes of a row and rows, of each plane."""
    if form in PACKED:
        return [(PACKED[form][0] * width, height)]
    if form.startswith("f"):
        row = width * (4 if form.startswith("f32") else 2)
        planar = form.endswith("nchw")
        return [(row, height)] * channels if planar else [(row * channels, height)]
    chroma_planes = {
        "gray8": [],
        "nv12": [(width, height // 2)],
        "i420": [(width // 2, height // 2)] * 2,
    }
    return [(width, height), *chroma_planes[form]]


def spaced(form, width, height, channels):
    """Planes with gaps between them and between rows, and the bytes up to their end."""
    planes, end = [], 8
    for row, rows in shapes(form, width, height, channels):
        planes.append((end, row + 8))
        end += (row + 8) * rows + 16
    return planes, end


PLAIN = {
    "layout": "nchw",
    "scale": 1 / 255,
    "mean": [0.0] * 3,
    "std": [1.0] * 3,
    "order": "rgb",
    "fit": "stretch",
    "filter": "bilinear",
    "pad": [0, 0, 0],
}
NORMED = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
BYTES = ["rgb8", "bgr8", "rgba8", "nv12", "i420", "gray8"]
FLOATS = ["f32_nchw", "f32_nhwc", "f16_nchw", "f16_nhwc"]


class Cases:
    def __init__(self):
        self.random = np.random.default_rng(6)
        self.data = bytearray()
        self.cases = []

    def keep(self, content):
        start = len(self.data)
        self.data += content
        return [start, len(self.data)]

    def frame(self, form, width, height, matrix, levels, channels):
        planes, size = spaced(form, width, height, channels)
        fields = {"format": form, "width": width, "height": height, "planes": planes}
        return fields | {"matrix": matrix, "range": levels}, size

    def input(self, form, size, into, *, matrix="bt601", levels="full", channels=3, dtype="f32", **hint):
        (width, height), hint = size, PLAIN | hint
        frame, count = self.frame(form, width, height, matrix, levels, channels)
        if form.startswith("f"):
            memory = self.random.normal(size=count // 4 + 1).astype("<f4").tobytes()[:count]
            if form.startswith("f16"):
                memory = self.random.normal(size=count // 2 + 1).astype("<f2").tobytes()[:count]
        else:
            memory = self.random.integers(0, 256, count, np.uint8).tobytes()
        out = tensor(memory, frame, hint, dtype, channels, into[1], into[0])
        self.cases.append(
            {"kind": "input", "frame": frame, "hint": hint, "dtype": dtype, "shape": [1, *out.shape]}
            | {"memory": self.keep(memory), "tensor": self.keep(out.tobytes())}
        )

    def output(self, form, size, *, matrix="bt601", levels="full", channels=3, dtype="f32", **hint):
        (width, height), hint = size, PLAIN | hint
        frame, count = self.frame(form, width, height, matrix, levels, channels)
        values = self.random.uniform(-0.2, 1.2, (height, width, channels))
        if dtype in ("u8", "i8"):
            values = values * 100
        values = stored(values.astype(F), dtype)
        memory = bytearray(b"\x07" * count)
        written(memory, frame, hint, values)
        laid = values if hint["layout"] == "nhwc" else values.transpose(2, 0, 1)
        del hint["fit"], hint["filter"], hint["pad"]
        self.cases.append(
            {"kind": "output", "frame": frame, "hint": hint, "dtype": dtype, "shape": [1, *laid.shape]}
            | {"memory": self.keep(memory), "tensor": self.keep(laid.tobytes())}
        )


def main():
    cases = Cases()
    for form in BYTES:
        for levels in LEVELS:
            matrices = WEIGHTS if form in ("nv12", "i420") else ["bt601"]
            for matrix in matrices:
                cases.input(form, (6, 4), (6, 4), matrix=matrix, levels=levels)
            for matrix in WEIGHTS if form != "gray8" else ["bt601"]:
                cases.input(form, (6, 2), (6, 2), matrix=matrix, levels=levels, channels=1)
                cases.output(form, (6, 4), matrix=matrix, levels=levels)
            cases.output(form, (4, 2), matrix="bt709", levels=levels, channels=1)
    for form in ["nv12", "i420", "rgb8", "bgr8", "rgba8", "gray8", *FLOATS]:
        for into in [(5, 3), (20, 13), (10, 3), (4, 8)]:
            for kind in ["bilinear", "area"]:
                cases.input(form, (10, 8), into, levels="limited", filter=kind, **NORMED)
        for layout in ["nchw", "nhwc"]:
            cases.input(form, (12, 4), (8, 8), fit="letterbox", pad=[114, 20, 30], layout=layout)
            cases.input(form, (4, 12), (9, 7), fit="letterbox", order="bgr", layout=layout, **NORMED)
    for dtype in ["f16", "u8", "i8"]:
        for layout in ["nchw", "nhwc"]:
            scale = 1.0 if dtype == "u8" else 0.5
            for into in [(8, 6), (5, 4)]:
                cases.input("nv12", (8, 6), into, dtype=dtype, layout=layout, scale=scale, levels="limited")
            scale = 1 / 255 if dtype == "f16" else 0.5
            cases.output("i420", (8, 6), dtype=dtype, layout=layout, scale=scale, levels="limited")
            cases.output("rgba8", (5, 3), dtype=dtype, layout=layout, scale=scale, order="bgr", **NORMED)
    for form in FLOATS:
        cases.output(form, (5, 3), layout="nhwc")
        cases.output(form, (5, 3), layout="nchw", channels=1)
        cases.input(form, (6, 4), (3, 2), channels=1, layout="nhwc")
    folder = Path(__file__).parent
    text = ",\n".join(json.dumps(case) for case in cases.cases)
    (folder / "cases.json").write_text(f"[\n{text}\n]\n")
    (folder / "cases.bin").write_bytes(cases.data)
    print(len(cases.cases), "cases,", len(cases.data), "bytes")


if __name__ == "__main__":
    main()
