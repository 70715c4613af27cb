"""Write the trained model as a folder that Mote serves: ONNX graphs in diffusers' layout, and mote.toml.

    python export_folder.py VAE.pt FEW.pt ../shapes-clip

The graphs are those of ../diffusion/export.py, which says their inputs and outputs. Weights are stored in fewer bits and
turned back by nodes that a runtime folds when it loads, so all computation is float32: matrices of the transformer and the
text encoder as int8 with a scale for each output, the autoencoder's weights as float16.
"""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from onnx import TensorProto, helper, numpy_helper

import networks
import shapes
from distil import STEPS
from train_denoiser import TIME_SHIFT
from training import use_average

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "diffusion"))
import export as graphs  # noqa: E402

STORED_ELEMENTS_MIN = 1024
MANIFEST = """format = 1
name = "shapes-clip"
task = "clip-generation"
licence = "{licence}"
source = "trained by tests/models/clip"
description = "clips of one coloured shape or digit that moves, from a sentence"

[[variant]]
name = "onnxruntime"
backend = "onnxruntime"
file = "transformer/model.onnx"
precision = "int8"
memory_bytes = 268435456

[variant.parts]
text_encoder = "text_encoder/model.onnx"
vae_decoder = "vae_decoder/model.onnx"
vae_encoder = "vae_encoder/model.onnx"

[generation]
width = {size}
height = {size}
frames = {frames}
frame_rate = {rate}
steps = {steps}
guidance = 1.0
prompt_tokens = {tokens}

[files]
"""


class AutoencoderPart(torch.nn.Module):
    """The autoencoder with the names that ../diffusion/export.py calls."""

    def __init__(self, autoencoder):
        super().__init__()
        self.autoencoder, self.config = autoencoder, SimpleNamespace()

    def encode(self, sample):
        latents = self.autoencoder.encode(sample)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, latents, return_dict=False):
        return (self.autoencoder.decode(latents),)


def eight_bits(matrix, axis):
    """Int8 with a scale for each index of `axis`, rounding to nearest: (values, scales)."""
    largest = np.abs(matrix).max(axis=tuple(a for a in range(matrix.ndim) if a != axis), keepdims=True)
    scales = np.maximum(largest, 1e-12) / 127
    return np.clip(np.round(matrix / scales), -127, 127).astype(np.int8), scales.reshape(-1).astype(np.float32)


def store_small(path, bits):
    """Rewrites the graph's large float32 weights as int8 behind DequantizeLinear or float16 behind Cast."""
    model = onnx.load(str(path))
    graph = model.graph
    lookups = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    small, nodes = [], []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < STORED_ELEMENTS_MIN or array.ndim < 2:
            small.append(tensor)
        elif bits == 8 and array.ndim == 2:
            # A MatMul's matrix has its outputs in columns; a table that is looked up has its entries in rows.
            axis = 0 if tensor.name in lookups else 1
            values, scales = eight_bits(array, axis)
            small += [numpy_helper.from_array(values, f"{tensor.name}.int8"), numpy_helper.from_array(scales, f"{tensor.name}.scale")]
            nodes.append(helper.make_node("DequantizeLinear", [f"{tensor.name}.int8", f"{tensor.name}.scale"], [tensor.name],
                                          name=f"{tensor.name}.float", axis=axis))
        else:
            small.append(numpy_helper.from_array(array.astype(np.float16), f"{tensor.name}.f16"))
            nodes.append(helper.make_node("Cast", [f"{tensor.name}.f16"], [tensor.name], name=f"{tensor.name}.float",
                                          to=TensorProto.FLOAT))
    body = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(small)
    graph.node.extend(nodes + body)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_configs(folder, state, model, autoencoder):
    """What Mote and diffusers read beside the graphs. Sizes are those of the graphs, foldings included."""
    write_json(folder / "model_index.json", {"_class_name": "LTXPipeline"})
    FlowMatchEulerDiscreteScheduler(shift=TIME_SHIFT).save_pretrained(folder / "scheduler")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(exist_ok=True)
    networks.tokenizer().save(str(tokenizer / "tokenizer.json"))
    write_json(tokenizer / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": networks.PROMPT_TOKENS,
        "pad_token": networks.PAD, "eos_token": networks.END, "unk_token": networks.UNKNOWN})
    write_json(folder / "text_encoder" / "config.json", {
        "architectures": ["T5EncoderModel"], "d_model": networks.TEXT_WIDTH, "vocab_size": model.text.config.vocab_size})
    graphs.write_config(model.denoiser.inner, folder / "transformer" / "config.json",
                        in_channels=networks.LATENT_CHANNELS)
    for part in ("vae_decoder", "vae_encoder"):
        write_json(folder / part / "config.json", {
            "_class_name": type(autoencoder).__name__, "latent_channels": networks.LATENT_CHANNELS,
            "spatial_compression_ratio": networks.SPATIAL_COMPRESSION,
            "temporal_compression_ratio": networks.TEMPORAL_COMPRESSION, "scaling_factor": 1.0,
            "latents_mean": [float(x) for x in state["mean"]], "latents_std": [float(x) for x in state["deviation"]]})


def write_graphs(folder, model, autoencoder, store=True):
    graphs.export_text_encoder(model.text, folder / "text_encoder")
    graphs.export_ltx_transformer(model.denoiser, folder / "transformer", networks.LATENT_CHANNELS, networks.TEXT_WIDTH)
    part = AutoencoderPart(autoencoder)
    graphs.export_vae_decoder(part, folder / "vae_decoder", (1, networks.LATENT_CHANNELS, 3, 2, 3))
    graphs.export_vae_encoder(part, folder / "vae_encoder", (1, 3, 9, 64, 96))
    if store:
        for name, bits in (("text_encoder", 8), ("transformer", 8), ("vae_decoder", 16), ("vae_encoder", 16)):
            store_small(folder / name / "model.onnx", bits)


def write_manifest(folder, licence):
    text = MANIFEST.format(licence=licence, size=shapes.SIZE, frames=shapes.FRAMES, rate=shapes.FRAME_RATE, steps=STEPS,
                           tokens=networks.PROMPT_TOKENS)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in ("mote.toml", "README.md"))
    for path in files:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        text += f'"{path.relative_to(folder).as_posix()}" = "sha256:{digest}"\n'
    (folder / "mote.toml").write_text(text)
    total = sum(path.stat().st_size for path in files)
    print(f"{total / 1e6:.2f} MB in {len(files)} files")
    for path in files:
        if path.stat().st_size > 100_000:
            print(f"  {path.relative_to(folder)} {path.stat().st_size / 1e6:.2f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vae")
    parser.add_argument("few")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--float32", action="store_true", help="weights as they were trained, to compare with")
    options = parser.parse_args()
    torch.manual_seed(0)  # the exporter traces with random inputs
    state = torch.load(options.few, map_location="cpu")
    model = use_average(networks.ClipModel(**state["size"]), options.few)
    autoencoder = use_average(networks.Autoencoder(), options.vae)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_graphs(options.folder, model, autoencoder, store=not options.float32)
    write_configs(options.folder, state, model, autoencoder)
    shutil.copyfile(HERE / "LICENSE", options.folder / "LICENSE")
    write_manifest(options.folder, "MIT OR Apache-2.0")


if __name__ == "__main__":
    main()
