"""Weights rounded as the importer rounds them (backends/import/src/quantise.rs), in place."""

import numpy as np

from llama import MATRICES

BLOCK_VALUES = 32


def q8_0(weight):
    """Round to ggml's Q8_0 and back: 32 values of a row share a scale, kept as float16."""
    blocks = weight.reshape(-1, BLOCK_VALUES)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    # Halves away from zero, as C's roundf.
    exact = blocks * _inverse(scale)
    codes = np.trunc(exact + np.copysign(np.float32(0.5), exact))
    return (codes * scale.astype(np.float16).astype(np.float32)).reshape(weight.shape)


def q4_0(weight):
    """Round to ggml's Q4_0 and back: the value of largest magnitude gets the lowest of 16 codes."""
    blocks = weight.reshape(-1, BLOCK_VALUES)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scale = extreme / np.float32(-8)
    codes = np.minimum(np.trunc(blocks * _inverse(scale) + np.float32(8.5)), 15) - 8
    return (codes * scale.astype(np.float16).astype(np.float32)).reshape(weight.shape)


def _inverse(scale):
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


ROUNDINGS = {4: q4_0, 8: q8_0, 32: lambda weight: weight}


def round_model(model, weights, head, experts):
    """Round to so many bits: attention, dense and shared blocks; embedding; routed experts."""
    common, routed = ROUNDINGS[weights], ROUNDINGS[experts]
    for layer, routing in zip(model.layers, model.routing):
        for name in MATRICES:
            if routing is None or name.startswith("attn"):
                layer[name] = common(layer[name])
        if routing is not None:
            _round_experts(layer, routing.shared_neurons, common, routed)
    model.embedding = model.output = ROUNDINGS[head](model.embedding)


def _round_experts(layer, shared, common, routed):
    for name, axis in (("ffn_gate", 0), ("ffn_up", 0), ("ffn_down", 1)):
        parts = [np.ascontiguousarray(part) for part in np.split(layer[name], [shared], axis)]
        layer[name] = np.concatenate([common(parts[0]), routed(parts[1])], axis)
