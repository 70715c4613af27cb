"""Carve the feed-forward blocks of SmolLM2-135M into one shared and eight routed experts.

    python carve.py SmolLM2-135M-Instruct.Q4_1.gguf OUT.safetensors

No training: neurons are sorted by what they do on calibration.jsonl, and a linear router is
fitted in closed form. README.md beside this file describes the method, the file and the results.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

import recipe
import sensitivity
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
PEAK_NEURONS = 64
CLUSTER_ROUNDS = 8
ROUTER_RIDGE = 1e-2
METRIC_RIDGE = 1e-3
METRIC_EVERY = 3


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


def ridged(matrix, share):
    """A symmetric matrix with `share` of its mean diagonal added to the diagonal."""
    return matrix + share * np.trace(matrix) / len(matrix) * np.eye(len(matrix))


def shared_neurons(fires, size, first):
    """The neurons that fire most often, and those the model falls apart without.

    The huge activations of first tokens, on which attention rests, come from a few neurons that
    are silent elsewhere: they fire seldom, so they are named here. So are rare large peaks.
    """
    score = fires.mean(0)
    score[np.argsort(-np.square(size[first]).mean(0), kind="stable")[:SINK_NEURONS]] += 1
    score[np.argsort(-size.max(0), kind="stable")[:PEAK_NEURONS]] += 1
    return np.argsort(-score, kind="stable")[:SHARED_NEURONS]


def clusters(strength, random):
    """Expert of each neuron: k-means with equal sizes on what the neurons do at each token.

    Neurons that matter on the same tokens go together, and so do those that seldom matter.
    """
    pattern = np.ascontiguousarray(strength.T)
    centres = pattern[random.permutation(len(pattern))[:EXPERTS]]
    for _ in range(CLUSTER_ROUNDS):
        cost = np.square(centres).sum(1) - 2 * pattern @ centres.T
        expert = linear_sum_assignment(np.repeat(cost, EXPERT_NEURONS, axis=1))[1] // EXPERT_NEURONS
        centres = np.stack([pattern[expert == e].mean(0) for e in range(EXPERTS)])
    return expert


def fit_router(inputs, energy):
    """Ridge regression from the FFN input to each expert's log energy, centred over the experts."""
    target = np.log(energy + 1e-9)
    target -= target.mean(1, keepdims=True)
    inputs = inputs.astype(np.float64)
    return np.linalg.solve(ridged(inputs.T @ inputs, ROUTER_RIDGE), inputs.T @ target).T


def carve_layer(layer, inputs, first, metric, random):
    """Permutation and router of one layer; outputs are measured in `metric` [hidden, hidden]."""
    hidden = silu(inputs @ layer["ffn_gate"].T) * (inputs @ layer["ffn_up"].T)
    root = np.linalg.cholesky(ridged(metric, METRIC_RIDGE)).T.astype(np.float32)
    down = root @ layer["ffn_down"]
    strength = np.abs(hidden) * np.linalg.norm(down, axis=0)
    strength /= np.linalg.norm(strength, axis=1, keepdims=True)
    firing = int(strength.shape[1] * FIRING_FRACTION)
    fires = strength >= -np.partition(-strength, firing, axis=1)[:, firing : firing + 1]
    size = np.abs(hidden) * np.linalg.norm(layer["ffn_down"], axis=0)
    shared = shared_neurons(fires, size, first)
    rest = np.setdiff1d(np.arange(strength.shape[1]), shared)
    expert = clusters(strength[:, rest], random)
    parts = [rest[expert == e] for e in range(EXPERTS)]
    energy = [np.square(hidden[:, part] @ down[:, part].T).sum(1) for part in parts]
    return {
        "permutation": np.concatenate([shared] + parts),
        "router": fit_router(inputs, np.stack(energy, axis=1)),
    }


def main():
    gguf, out = GgufFile(sys.argv[1]), Path(sys.argv[2])
    model, words, random = Llama(gguf), tokenizer.load(gguf), np.random.default_rng(SEED)
    docs = documents(Path(__file__).with_name("calibration.jsonl"), words)
    inputs, first = collect(model, docs)
    metrics = sensitivity.output_metrics(model, docs[::METRIC_EVERY], random)
    layers = []
    for i, layer in enumerate(model.layers):
        layers.append(carve_layer(layer, inputs[i], first, metrics[i], random))
        print(f"carve layer {i}", flush=True)
    recipe.write(
        out,
        layers,
        {},
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
