"""Makes the models that tests feed with frames: `halve` takes pictures of 1280×720 and gives half of every number
and the means of 16×16 pixels. Made with onnx 1.23.2.

    python tests/models/frames/make.py
"""

import hashlib
from pathlib import Path

import onnx
from onnx import TensorProto, helper

MANIFEST = '''format = 1
name = "halve"
task = "tensor"
licence = "MIT OR Apache-2.0"
description = "half of every number of a picture, and means of 16×16"

[[variant]]
name = "onnxruntime"
backend = "onnxruntime"
file = "halve.onnx"
precision = "f32"

[[variant]]
name = "tract"
backend = "tract"
file = "halve.onnx"
precision = "f32"

[[input]]
name = "x"
layout = "nchw"
scale = 0.003921569
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]

[[output]]
name = "half"
layout = "nchw"
scale = 0.003921569
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]

[files]
"halve.onnx" = "sha256:{digest}"
'''


def main():
    folder = Path(__file__).parent / "halve"
    folder.mkdir(exist_ok=True)
    value = helper.make_tensor_value_info
    half = helper.make_tensor("factor", TensorProto.FLOAT, [], [0.5])
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "factor"], ["half"]),
            helper.make_node(
                "AveragePool", ["x"], ["means"], kernel_shape=[16, 16], strides=[16, 16]
            ),
        ],
        "halve",
        [value("x", TensorProto.FLOAT, [1, 3, 720, 1280])],
        [
            value("half", TensorProto.FLOAT, [1, 3, 720, 1280]),
            value("means", TensorProto.FLOAT, [1, 3, 45, 80]),
        ],
        [half],
    )
    opset = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="mote")
    onnx.checker.check_model(model)
    onnx.save(model, folder / "halve.onnx")
    digest = hashlib.sha256((folder / "halve.onnx").read_bytes()).hexdigest()
    (folder / "mote.toml").write_text(MANIFEST.format(digest=digest))


if __name__ == "__main__":
    main()
