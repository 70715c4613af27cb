"""Makes the tiny graph that `mote bench ipc` runs: the mean of a picture-sized tensor.

    python make_reduce.py ../../daemon/cli/src/bench/reduce.onnx

It reads every byte of a 602,112-byte input and computes next to nothing, so that what is left is the
way there and back.
"""

import sys

from onnx import TensorProto, helper, save

x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 224, 224])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 1])
node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[0, 1, 2, 3], keepdims=1)
graph = helper.make_graph([node], "reduce", [x], [y])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1])
