"""Carve the feed-forward blocks of SmolLM2-135M into one shared and eight routed experts.

    python carve.py SmolLM2-135M-Instruct.Q4_1.gguf OUT.safetensors

No training: neurons are sorted by how they fire on calibration.jsonl, and a linear router is
fitted in closed form. README.md beside this file describes the method, the file and the results.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

import recipe
import tokenizer
from gguf_file import GgufFile
from llama import Llama, silu

SEED = 0
SHARED_NEURONS = 512
EXPERTS = 8
EXPERT_NEURONS = 128
EXPERTS_PER_TOKEN = 6
ROUTER_TEMPERATURE = 2.0**-10
FIRING_FRACTION = 0.15
SINK_NEURONS = 64
CLUSTER_ROUNDS = 8
RIDGE = 1e-2


def documents(path, words):
    """Token ids of each document of a .jsonl text."""
    return [words.encode(json.loads(line)).ids for line in path.read_text().splitlines()]


def collect(model, docs):
    """FFN inputs of each layer, [tokens, hidden], and which rows begin a document."""
    inputs = [[] for _ in model.layers]
    model.on_ffn_input = lambda index, rows: inputs[index].append(rows)
    for i, ids in enumerate(docs):
        model.forward([ids])
        if i % 20 == 0:
            print(f"calibrate {i}/{len(docs)}", flush=True)
    model.on_ffn_input = None
    first = np.zeros(sum(map(len, docs)), bool)
    first[np.cumsum([0] + [len(ids) for ids in docs[:-1]])] = True
    return [np.concatenate(rows) for rows in inputs], first


def shared_neurons(strength, fires, first):
    """The neurons that fire most often, with those that make the first token an attention sink.

    The first token's huge activations come from a few neurons that are silent elsewhere, so their
    rate is low, but the model falls apart when a router drops them.
    """
    score = fires.mean(0)
    sinks = np.argsort(-np.square(strength[first]).mean(0), kind="stable")[:SINK_NEURONS]
    score[sinks] += 1
    return np.argsort(-score, kind="stable")[:SHARED_NEURONS]


def clusters(fires, random):
    """Expert of each neuron, equal sizes, neurons that fire on the same tokens together."""
    pattern = fires.T.astype(np.float32)
    pattern -= pattern.mean(1, keepdims=True) / 2
    pattern /= np.linalg.norm(pattern, axis=1, keepdims=True) + 1e-9
    centres = pattern[random.permutation(len(pattern))[:EXPERTS]]
    for _ in range(CLUSTER_ROUNDS):
        cost = np.repeat(-(pattern @ centres.T), EXPERT_NEURONS, axis=1)
        expert = linear_sum_assignment(cost)[1] // EXPERT_NEURONS
        centres = np.stack([pattern[expert == e].mean(0) for e in range(EXPERTS)])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True) + 1e-9
    return expert


def fit_router(inputs, energy):
    """Ridge regression from the FFN input to each expert's log energy, centred over the experts."""
    target = np.log(energy + 1e-9)
    target -= target.mean(1, keepdims=True)
    gram = inputs.T.astype(np.float64) @ inputs
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.linalg.solve(gram, inputs.T.astype(np.float64) @ target).T


def carve_layer(layer, inputs, first, random):
    """(permutation, router) of one layer."""
    hidden = silu(inputs @ layer["ffn_gate"].T) * (inputs @ layer["ffn_up"].T)
    strength = np.abs(hidden) * np.linalg.norm(layer["ffn_down"], axis=0)
    firing = int(strength.shape[1] * FIRING_FRACTION)
    fires = strength >= -np.partition(-strength, firing, axis=1)[:, firing : firing + 1]
    shared = shared_neurons(strength, fires, first)
    rest = np.setdiff1d(np.arange(strength.shape[1]), shared)
    expert = clusters(fires[:, rest], random)
    order = [rest[expert == e] for e in range(EXPERTS)]
    energy = np.stack(
        [np.square(hidden[:, part] @ layer["ffn_down"][:, part].T).sum(1) for part in order], axis=1
    )
    return np.concatenate([shared] + order), fit_router(inputs, energy)


def main():
    gguf, out = GgufFile(sys.argv[1]), Path(sys.argv[2])
    model, words, random = Llama(gguf), tokenizer.load(gguf), np.random.default_rng(SEED)
    docs = documents(Path(__file__).with_name("calibration.jsonl"), words)
    inputs, first = collect(model, docs)
    layers = []
    for i, layer in enumerate(model.layers):
        layers.append(carve_layer(layer, inputs[i], first, random))
        print(f"carve layer {i}", flush=True)
    recipe.write(
        out,
        layers,
        {
            "source_sha256": gguf.sha256(),
            "shared_neurons": str(SHARED_NEURONS),
            "experts": str(EXPERTS),
            "expert_neurons": str(EXPERT_NEURONS),
            "experts_per_token": str(EXPERTS_PER_TOKEN),
            "router_temperature": repr(ROUTER_TEMPERATURE),
            "calibration": f"{len(first)} tokens, {len(docs)} documents sampled from the source model",
        },
    )
    print(f"wrote {out}, {out.stat().st_size} bytes, seed {SEED}")


if __name__ == "__main__":
    main()
