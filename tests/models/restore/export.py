"""Build the ONNX graphs of AnimeSR and BasicVSR from the weights in their packages.

    python export.py animesr AnimeSR_v2.pth animesr_v2_f16.onnx
    python export.py basicvsr BasicVSR_Vimeo90K_BIx4.pth basicvsr_f16.onnx [FRAMES] [middle]

Graphs are written node by node (numpy and onnx only, no PyTorch), with the builder and the reader of
checkpoints that ../rife has. Architectures:

* AnimeSR v2 (Wu, Wang, Shi, Zhang, Shan: "AnimeSR", 2022): one step of a recurrent net that is given
  the frame with its neighbours, what it made of the frame before, and a hidden state. Three
  resolutions, aligned at their ends.
* BasicVSR (Chan, Wang, Yu, Dong, Loy: "BasicVSR", 2021): features go backward and forward through a window of
  FRAMES frames, 5 when not said, each time warped along the flow that SPyNet (Ranjan, Black, 2017) sees. All
  frames come out, or the middle one.

Weights of 1 KiB and more are stored as float16 behind a Cast to float32, which a runtime folds when
it loads the model, unless the name ends in _f32.onnx.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

RIFE = Path(__file__).parent.parent / "rife"
sys.path.insert(0, str(RIFE))
_spec = importlib.util.spec_from_file_location("rife_export", RIFE / "export.py")
rife_export = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rife_export)

from torch_weights import load  # noqa: E402

SLOPE = 0.1
SCALE = 4
FEATURES = 64
# Residual blocks at full, half and quarter resolution.
ANIMESR_BLOCKS = (5, 3, 2)
BASICVSR_BLOCKS = 30
SPYNET_LEVELS = 6
SPYNET_MULTIPLE = 32


class Graph(rife_export.Graph):
    """The builder of RIFE with what these nets need besides."""

    def weight(self, name, array=None):
        """A weight under its name in the checkpoint; `array` takes its place."""
        array = np.ascontiguousarray(self.weights[name] if array is None else array)
        if name in self.known:
            return name
        self.known.add(name)
        if not self.half or array.nbytes < rife_export.WEIGHT_BYTES_MIN:
            self.initializers.append(onnx.numpy_helper.from_array(array, name))
            return name
        self.initializers.append(onnx.numpy_helper.from_array(array.astype(np.float16), name + ".f16"))
        return self.node("Cast", name + ".f16", output=name, to=TensorProto.FLOAT)

    def conv(self, x, prefix, stride=1, order=None):
        """A convolution that keeps sizes, times 1 / stride; `order` sorts its input channels."""
        array = self.weights[prefix + ".weight"]
        array = array if order is None else array[:, order]
        side = array.shape[-1]
        window = dict(kernel_shape=[side, side], strides=[stride, stride], pads=[side // 2] * 4)
        parameters = self.weight(prefix + ".weight", array), self.weight(prefix + ".bias")
        return self.node("Conv", x, *parameters, **window)

    def leaky(self, x):
        return self.node("LeakyRelu", x, alpha=SLOPE)

    def residual(self, x, prefix):
        inner = self.node("Relu", self.conv(x, prefix + ".conv1"))
        return self.node("Add", x, self.conv(inner, prefix + ".conv2"))

    def shuffle(self, x, factor):
        """Channels to pixels, as torch's PixelShuffle."""
        return self.node("DepthToSpace", x, blocksize=factor, mode="CRD")

    def sizes(self, x):
        """Height and width as int64 [1] each."""
        shape = self.node("Shape", x)
        return [self.slice(shape, at, at + 1, 0) for at in (2, 3)]

    def slice(self, x, start, end, axis):
        return self.node("Slice", x, *[self.constant([it], np.int64) for it in (start, end, axis)])

    def to_float(self, x):
        return self.node("Cast", x, to=TensorProto.FLOAT)

    def resize_to(self, x, channels, sizes):
        """Bilinear, to a height and width, as torch's interpolate(align_corners=False)."""
        front = self.constant([1, channels], np.int64)
        sizes = self.node("Concat", front, *sizes, axis=0)
        mode = dict(mode="linear", coordinate_transformation_mode="half_pixel")
        return self.node("Resize", x, "", "", sizes, **mode)

    def axis_of(self, size):
        """2 / max(size - 1, 1), and the coordinates -1..1 of an axis of int64 [1] pixels."""
        one = self.constant([1], np.int64)
        steps = self.to_float(self.node("Max", self.node("Sub", size, one), one))
        step = self.node("Div", self.constant([2]), steps)
        scalar = self.node("Reshape", size, self.constant(np.zeros(0), np.int64))
        count = self.node("Range", self.constant(0, np.int64), scalar, self.constant(1, np.int64))
        return step, self.node("Sub", self.node("Mul", self.to_float(count), step), self.constant([1]))

    def grid(self, height, width):
        """What `warp_by` needs: the identity grid [1,2,h,w] and flow units [1,2,1,1]."""
        (step_y, y), (step_x, x) = self.axis_of(height), self.axis_of(width)
        plane = self.node("Concat", self.constant([1, 1], np.int64), height, width, axis=0)
        x = self.node("Reshape", x, self.constant([1, 1, 1, -1], np.int64))
        y = self.node("Reshape", y, self.constant([1, 1, -1, 1], np.int64))
        unit = [
            self.node("Reshape", step, self.constant([1, 1, 1, 1], np.int64)) for step in (step_x, step_y)
        ]
        lines = [self.node("Expand", line, plane) for line in (x, y)]
        return self.concat(*lines), self.concat(*unit)

    def warp_by(self, image, flow, grid, padding):
        """`image` sampled where each pixel's `flow` (x, y, in pixels) points."""
        identity, unit = grid
        at = self.node("Add", identity, self.node("Mul", flow, unit))
        at = self.node("Transpose", at, perm=[0, 2, 3, 1])
        return self.node("GridSample", image, at, mode="bilinear", padding_mode=padding, align_corners=1)

    def model(self, name, inputs, outputs):
        body = helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)
        opset = [helper.make_opsetid("", rife_export.OPSET)]
        version = rife_export.IR_VERSION
        return helper.make_model(body, opset_imports=opset, ir_version=version, producer_name="mote")


def value(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def unshuffled(front, channels, factor):
    """The order of input channels where `channels` of them, behind `front`, went from pixels to channels by
    SpaceToDepth, which has the offsets outermost, and not by torch's PixelUnshuffle."""
    pixels = np.arange(channels * factor**2).reshape(channels, factor**2).T.ravel()
    return lambda count: np.r_[:front, front + pixels, front + len(pixels) : count]


def animesr(weights, half):
    """frames [1,9,h,w], prev_sr [1,3,4h,4w], state [1,64,h,w] -> sr [1,3,4h,4w], next_state [1,64,h,w]."""
    graph = Graph(weights, half)
    cell = "recurrent_cell."
    up = lambda x, factor: graph.resize(x, factor)
    add = lambda *parts: parts[0] if len(parts) == 1 else graph.node("Add", add(*parts[:-1]), parts[-1])
    pixels = graph.node("SpaceToDepth", "prev_sr", blocksize=SCALE)
    x = graph.concat("frames", pixels, "state")
    count = weights[cell + "conv_s1_first.0.weight"].shape[1]
    order = unshuffled(9, 3, SCALE)(count)
    full = graph.leaky(graph.conv(x, cell + "conv_s1_first.0", order=order))
    part = graph.leaky(graph.conv(full, cell + "conv_s2_first.0", stride=2))
    quarter = graph.leaky(graph.conv(part, cell + "conv_s4_first.0", stride=2))
    all_blocks, part_blocks, quarter_blocks = ANIMESR_BLOCKS
    part_runs, quarter_runs = False, False
    for block in range(all_blocks):
        from_part = [up(part, 2)] if part_runs else []
        from_quarter = [up(quarter, 4)] if quarter_runs else []
        full = graph.residual(add(full, *from_part, *from_quarter), f"{cell}body_s1_first.{block}")
        if block >= all_blocks - part_blocks:
            from_quarter = [up(quarter, 2)] if quarter_runs else []
            at = block - all_blocks + part_blocks
            part = graph.residual(add(part, *from_quarter), f"{cell}body_s2_first.{at}")
            part_runs = True
        if block >= all_blocks - quarter_blocks:
            at = block - all_blocks + quarter_blocks
            quarter = graph.residual(quarter, f"{cell}body_s4_first.{at}")
            quarter_runs = True
    x = graph.concat(full, up(part, 2), up(quarter, 4))
    x = graph.conv(graph.leaky(graph.conv(x, cell + "fusion.0")), cell + "fusion.2")
    image = graph.shuffle(graph.channels(x, 0, 3 * SCALE**2), SCALE)
    base = graph.resize(graph.channels("frames", 3, 6), SCALE)
    graph.node("Add", image, base, output="sr")
    state = graph.channels(x, 3 * SCALE**2, 3 * SCALE**2 + FEATURES)
    graph.node("LeakyRelu", state, output="next_state", alpha=SLOPE)
    inputs = [
        value("frames", 1, 9, "h", "w"),
        value("prev_sr", 1, 3, "h4", "w4"),
        value("state", 1, FEATURES, "h", "w"),
    ]
    outputs = [value("sr", 1, 3, "h4", "w4"), value("next_state", 1, FEATURES, "h", "w")]
    return graph.model("animesr_v2", inputs, outputs)


class Flow:
    """SPyNet between frames of a window: from coarse to fine, each level adds to the flow."""

    def __init__(self, graph, frames):
        self.graph = graph
        multiple, less = (graph.constant([it], np.int64) for it in (SPYNET_MULTIPLE, SPYNET_MULTIPLE - 1))
        self.sizes = graph.sizes(frames[0])
        up = lambda size: graph.node("Div", graph.node("Add", size, less), multiple)
        self.padded = [graph.node("Mul", up(size), multiple) for size in self.sizes]
        ratio = [graph.node("Div", *map(graph.to_float, pair)) for pair in zip(self.sizes, self.padded)]
        ratio = [graph.node("Reshape", it, graph.constant([1, 1, 1, 1], np.int64)) for it in ratio[::-1]]
        self.ratio = graph.concat(*ratio)
        self.pyramids = [self.pyramid(frame) for frame in frames]
        self.grids = [graph.grid(*graph.sizes(level)) for level in self.pyramids[0]]

    def pyramid(self, frame):
        """The frame at all levels, the coarsest first."""
        graph = self.graph
        x = graph.resize_to(frame, 3, self.padded)
        mean, std = (graph.weight(f"spynet.{name}") for name in ("mean", "std"))
        levels = [graph.node("Div", graph.node("Sub", x, mean), std)]
        for _ in range(SPYNET_LEVELS - 1):
            window = dict(kernel_shape=[2, 2], strides=[2, 2])
            levels.insert(0, graph.node("AveragePool", levels[0], **window))
        return levels

    def between(self, one, other):
        """Flow [1,2,h,w] by which frame `other` is warped to frame `one`."""
        graph, flow = self.graph, None
        for level in range(SPYNET_LEVELS):
            reference, source = self.pyramids[one][level], self.pyramids[other][level]
            if flow is None:
                flow = graph.node("Mul", graph.channels(reference, 0, 2), graph.constant([0]))
                warped = source
            else:
                scales = graph.constant([1, 1, 2, 2])
                mode = dict(mode="linear", coordinate_transformation_mode="align_corners")
                flow = graph.times(graph.node("Resize", flow, "", scales, **mode), 2)
                warped = graph.warp_by(source, flow, self.grids[level], "border")
            x = graph.concat(reference, warped, flow)
            for layer in range(5):
                x = graph.conv(x, f"spynet.basic_module.{level}.basic_module.{2 * layer}")
                x = x if layer == 4 else graph.node("Relu", x)
            flow = graph.node("Add", x, flow)
        return graph.node("Mul", graph.resize_to(flow, 2, self.sizes), self.ratio)


def basicvsr(weights, half, frames, middle):
    """clip [1,frames,3,h,w] -> sr [1,frames,3,4h,4w], or [1,3,4h,4w] of the middle frame."""
    graph = Graph(weights, half)
    images = []
    for at in range(frames):
        image = graph.slice("clip", at, at + 1, 1)
        images.append(graph.node("Squeeze", image, graph.constant([1], np.int64)))
    flow = Flow(graph, images)
    grid = graph.grid(*flow.sizes)
    zero = graph.node("Mul", graph.channels(images[0], 0, 1), graph.constant([0]))
    zero = graph.concat(*[zero] * FEATURES)

    def propagate(numbers, trunk):
        """Features of each frame, each with those of the frame before it in `numbers`."""
        made, before = {}, None
        for at in numbers:
            feature = zero
            if before is not None:
                feature = graph.warp_by(made[before], flow.between(at, before), grid, "zeros")
            x = graph.leaky(graph.conv(graph.concat(images[at], feature), f"{trunk}.main.0"))
            for block in range(BASICVSR_BLOCKS):
                x = graph.residual(x, f"{trunk}.main.2.{block}")
            made[at], before = x, at
        return made

    wanted = [frames // 2] if middle else list(range(frames))
    backward = propagate(range(frames - 1, wanted[0] - 1, -1), "backward_trunk")
    forward = propagate(range(wanted[-1] + 1), "forward_trunk")
    made = []
    for at in wanted:
        x = graph.leaky(graph.conv(graph.concat(backward[at], forward[at]), "fusion"))
        x = graph.leaky(graph.shuffle(graph.conv(x, "upconv1"), 2))
        x = graph.leaky(graph.shuffle(graph.conv(x, "upconv2"), 2))
        x = graph.conv(graph.leaky(graph.conv(x, "conv_hr")), "conv_last")
        made.append(graph.node("Add", x, graph.resize(images[at], SCALE)))
    if middle:
        graph.node("Identity", made[0], output="sr")
        outputs = [value("sr", 1, 3, "h4", "w4")]
    else:
        made = [graph.node("Unsqueeze", it, graph.constant([1], np.int64)) for it in made]
        graph.node("Concat", *made, output="sr", axis=1)
        outputs = [value("sr", 1, frames, 3, "h4", "w4")]
    return graph.model("basicvsr", [value("clip", 1, frames, 3, "h", "w")], outputs)


def main():
    name, weights, out, *more = sys.argv[1:]
    weights, half = load(weights), not out.endswith("_f32.onnx")
    if name == "animesr":
        model = animesr(weights, half)
    else:
        frames = int(more[0]) if more else 5
        model = basicvsr(weights["params"], half, frames, "middle" in more)
    onnx.checker.check_model(model)
    onnx.save(model, out)
    print(f"wrote {out}, {model.ByteSize()} bytes, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
