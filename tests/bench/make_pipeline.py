"""Makes a random pipeline in diffusers' layout, large enough that its graphs take all the time.

    python make_pipeline.py FOLDER

An LTX-like one that `tests/bench/clip` measures: a text encoder, a denoiser of self-attention,
cross-attention and feed-forward blocks over tokens, and a decoder of convolutions in space and time. Nobody
trained it, and it shows nothing. Written with onnx 1.23.2 and numpy 2.4.6.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

TINY = Path(__file__).resolve().parents[1] / "models/diffusion/ltx"
SEED = 20_261_128
OPSET = 20
VOCABULARY, TEXT_WIDTH, PROMPT_TOKENS = 17, 256, 32
# Of the denoiser.
WIDTH, HEADS, LAYERS = 384, 6, 4
# Of the autoencoder; frames and pixels along a side per latent.
CHANNELS, RATIO, DECODER_WIDTH = 32, 8, 64
SIZE, FRAMES, STEPS = 128, 17, 4

MANIFEST = f"""format = 1
name = "bench-clip"
task = "clip-generation"
licence = "MIT OR Apache-2.0"
description = "a random pipeline to measure with"

[[variant]]
name = "onnxruntime"
backend = "onnxruntime"
file = "transformer/model.onnx"
precision = "f32"
memory_bytes = 1073741824

[variant.parts]
text_encoder = "text_encoder/model.onnx"
vae_decoder = "vae_decoder/model.onnx"

[generation]
width = {SIZE}
height = {SIZE}
frames = {FRAMES}
frame_rate = 24
steps = {STEPS}
guidance = 1.0
prompt_tokens = {PROMPT_TOKENS}
"""


class Graph:
    """Nodes and weights as they are added; every method answers the name of what it made."""

    def __init__(self, random):
        self.random, self.nodes, self.weights = random, [], []

    def op(self, kind, *inputs, **attributes):
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value, dtype=np.float32):
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def drawn(self, *shape, fan):
        return self.constant(self.random.standard_normal(shape) / np.sqrt(fan))

    def numbers(self, *values):
        return self.constant(values, np.int64)

    def linear(self, x, wide, to):
        return self.op("MatMul", x, self.drawn(wide, to, fan=wide))

    def norm(self, x, width):
        return self.op("LayerNormalization", x, self.constant(np.ones(width)), axis=-1)

    def heads(self, x):
        split = self.op("Reshape", x, self.numbers(0, 0, HEADS, WIDTH // HEADS))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def attention(self, x, context, context_width, bias=None):
        normed = self.norm(x, WIDTH)
        context = normed if context is None else context
        q = self.heads(self.linear(normed, WIDTH, WIDTH))
        k, v = (self.heads(self.linear(context, context_width, WIDTH)) for _ in range(2))
        turned = self.op("Transpose", k, perm=[0, 1, 3, 2])
        scores = self.op("MatMul", self.op("Mul", q, self.constant((WIDTH / HEADS) ** -0.5)), turned)
        scores = scores if bias is None else self.op("Add", scores, bias)
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        joined = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = self.op("Reshape", joined, self.numbers(0, 0, WIDTH))
        return self.op("Add", x, self.linear(joined, WIDTH, WIDTH))

    def feed_forward(self, x):
        inner = self.op("Gelu", self.linear(self.norm(x, WIDTH), WIDTH, 4 * WIDTH), approximate="tanh")
        return self.op("Add", x, self.linear(inner, 4 * WIDTH, WIDTH))

    def conv(self, x, channels, to, side):
        kernel = self.drawn(to, channels, side, side, side, fan=channels * side**3)
        return self.op("Conv", x, kernel, kernel_shape=[side] * 3, pads=[side // 2] * 6)

    def swish(self, x):
        return self.op("Mul", x, self.op("Sigmoid", x))

    def write(self, file, inputs, output, shape, last):
        self.nodes.append(helper.make_node("Identity", [last], [output]))
        value = helper.make_tensor_value_info
        ins = [value(name, dtype, dims) for name, (dtype, dims) in inputs.items()]
        outs = [value(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, file.parent.name, ins, outs, self.weights)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=10)
        checker.check_model(model)
        file.parent.mkdir(parents=True, exist_ok=True)
        save(model, str(file))


FLOAT, INTEGER = TensorProto.FLOAT, TensorProto.INT64


def text_encoder(graph, file):
    vectors = graph.op("Gather", graph.drawn(VOCABULARY, TEXT_WIDTH, fan=1), "input_ids")
    mask = graph.op("Unsqueeze", graph.op("Cast", "attention_mask", to=FLOAT), graph.numbers(-1))
    inner = graph.op("Gelu", graph.linear(vectors, TEXT_WIDTH, 4 * TEXT_WIDTH))
    out = graph.op("Mul", graph.linear(inner, 4 * TEXT_WIDTH, TEXT_WIDTH), mask)
    inputs = {name: (INTEGER, ["b", "s"]) for name in ("input_ids", "attention_mask")}
    graph.write(file, inputs, "last_hidden_state", ["b", "s", TEXT_WIDTH], out)


def denoiser(graph, file):
    x = graph.linear("hidden_states", CHANNELS, WIDTH)
    time = graph.op("Unsqueeze", "timestep", graph.numbers(-1))
    places = graph.op("Transpose", "video_coords", perm=[0, 2, 1])
    for phase in (graph.op("Mul", time, graph.drawn(WIDTH, fan=1e4)), graph.linear(places, 3, WIDTH)):
        x = graph.op("Add", x, graph.op("Sin", phase))
    mask = graph.op("Cast", "encoder_attention_mask", to=FLOAT)
    bias = graph.op("Mul", graph.op("Sub", mask, graph.constant(1.0)), graph.constant(1e4))
    bias = graph.op("Unsqueeze", bias, graph.numbers(1, 2))
    for _ in range(LAYERS):
        x = graph.attention(x, None, WIDTH)
        x = graph.attention(x, "encoder_hidden_states", TEXT_WIDTH, bias)
        x = graph.feed_forward(x)
    inputs = {
        "hidden_states": (FLOAT, ["b", "n", CHANNELS]),
        "encoder_hidden_states": (FLOAT, ["b", "s", TEXT_WIDTH]),
        "timestep": (FLOAT, ["b", "n"]),
        "encoder_attention_mask": (INTEGER, ["b", "s"]),
        "video_coords": (FLOAT, ["b", 3, "n"]),
    }
    out = graph.linear(graph.norm(x, WIDTH), WIDTH, CHANNELS)
    graph.write(file, inputs, "sample", ["b", "n", CHANNELS], out)


def decoder(graph, file):
    """Convolutions, then each place becomes a block of frames, rows and columns."""
    x = graph.swish(graph.conv("latent_sample", CHANNELS, DECODER_WIDTH, 3))
    x = graph.swish(graph.conv(x, DECODER_WIDTH, DECODER_WIDTH, 3))
    x = graph.conv(x, DECODER_WIDTH, 3 * RATIO**3, 1)
    sides = graph.op("Shape", "latent_sample", start=2)
    blocks = graph.op("Concat", graph.numbers(1, 3, *[RATIO] * 3), sides, axis=0)
    x = graph.op("Transpose", graph.op("Reshape", x, blocks), perm=[0, 1, 5, 2, 6, 3, 7, 4])
    pixels = graph.op("Mul", sides, graph.numbers(RATIO))
    x = graph.op("Reshape", x, graph.op("Concat", graph.numbers(1, 3), pixels, axis=0))
    # The first latent frame stands for one frame.
    ends = graph.numbers(RATIO - 1), graph.numbers(2**31), graph.numbers(2)
    x = graph.op("Tanh", graph.op("Slice", x, *ends))
    inputs = {"latent_sample": (FLOAT, [1, CHANNELS, "f", "h", "w"])}
    graph.write(file, inputs, "sample", [1, 3, "frames", "height", "width"], x)


def write_config(folder, part, **config):
    (folder / part / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    folder = Path(sys.argv[1])
    random = np.random.default_rng(SEED)
    for part, make in [("text_encoder", text_encoder), ("transformer", denoiser), ("vae_decoder", decoder)]:
        make(Graph(random), folder / part / "model.onnx")
    for same in ["model_index.json", "tokenizer", "scheduler"]:
        copy = shutil.copytree if (TINY / same).is_dir() else shutil.copy
        copy(TINY / same, folder / same)
    write_config(folder, "text_encoder", d_model=TEXT_WIDTH, vocab_size=VOCABULARY)
    write_config(folder, "transformer", in_channels=CHANNELS, patch_size=1, patch_size_t=1)
    write_config(
        folder,
        "vae_decoder",
        latent_channels=CHANNELS,
        latents_mean=np.linspace(-0.5, 0.5, CHANNELS).tolist(),
        latents_std=np.linspace(0.7, 1.4, CHANNELS).tolist(),
        scaling_factor=1.0,
        spatial_compression_ratio=RATIO,
        temporal_compression_ratio=RATIO,
    )
    (folder / "mote.toml").write_text(MANIFEST)


if __name__ == "__main__":
    main()
