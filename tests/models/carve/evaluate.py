"""Held-out perplexity, divergence from the dense model and sample answers of a recipe.

    python evaluate.py SmolLM2-135M-Instruct.Q4_1.gguf RECIPE.safetensors [CASE ...]

A case is K, a number of experts per token, or K:WEIGHTS/HEAD/EXPERTS with the bits per weight of
attention and shared experts, embedding and head, routed experts: 4:8/8/4. `dense` is the dense
model. Two held-out texts: heldout.jsonl (the model's own, its prompts in no training text) and
docstrings of Python's standard library (a text of another kind; it depends on the Python version,
printed). The divergence is KL(dense || case) in nats, a mean over the positions of heldout.jsonl.
"""

import importlib
import platform
import sys
from pathlib import Path

import numpy as np

import recipe
import rounding
import tokenizer
from carve import documents
from gguf_file import GgufFile
from llama import Llama, log_softmax

QUESTIONS = [
    "What is the capital of France?",
    "Write two sentences about the ocean.",
    "Name three fruits.",
    "Why do we need sleep?",
]
DOCSTRING_MODULES = [
    "argparse",
    "asyncio",
    "datetime",
    "difflib",
    "heapq",
    "ipaddress",
    "random",
    "statistics",
]
DOCSTRING_TOKENS = 256
ANSWER_TOKENS_MAX = 40
END = 2


def docstrings(words):
    """The longest docstring of each module, cut to DOCSTRING_TOKENS."""
    out = []
    for name in DOCSTRING_MODULES:
        module = importlib.import_module(name)
        texts = [module.__doc__ or ""] + [
            getattr(item, "__doc__", None) or "" for item in vars(module).values()
        ]
        out.append(words.encode(max(texts, key=len)).ids[:DOCSTRING_TOKENS])
    return out


def case(gguf, path, name):
    """The model of a case."""
    layers, outer, metadata = recipe.read(path)
    if metadata["source_sha256"] != gguf.sha256():
        raise SystemExit("the recipe was made for another checkpoint")
    count, _, bits = name.partition(":")
    model = Llama(gguf)
    if count != "dense":
        recipe.apply(model, layers, outer, metadata | {"experts_per_token": count})
    if bits:
        rounding.round_model(model, *map(int, bits.split("/")))
    return model


def measure(dense, model, docs):
    """(perplexity, mean KL(dense || model) in nats) over each document's tokens after the first.

    `docs`: token ids, and what the dense model makes of them (normalised hidden states).
    """
    surprise, kl, count = 0.0, 0.0, 0
    for ids, hidden in docs:
        said = log_softmax(model.logits(model.forward([ids])[0, :-1]))
        surprise -= float(said[np.arange(len(said)), ids[1:]].sum())
        wanted = log_softmax(dense.logits(hidden[:-1]))
        kl += float((np.exp(wanted) * (wanted - said)).sum())
        count += len(said)
    return float(np.exp(surprise / count)), kl / count


def report(name, models, words, texts):
    (own, kl), (other, _) = (measure(*models, docs) for docs in texts)
    print(f"## {name}: perplexity {own:.2f} held out, {other:.2f} docstrings; KL {kl:.4f}", flush=True)
    model = models[1]
    for question in QUESTIONS:
        ids = words.encode(tokenizer.chat(question)).ids
        print(f"- {question} -> {words.decode(model.greedy(ids, ANSWER_TOKENS_MAX, END))!r}", flush=True)


def main():
    gguf, path = GgufFile(sys.argv[1]), Path(sys.argv[2])
    _, _, metadata = recipe.read(path)
    cases = sys.argv[3:] or ["dense"] + [str(k) for k in range(int(metadata["experts"]), 2, -1)]
    dense, words = Llama(gguf), tokenizer.load(gguf)
    texts = documents(Path(__file__).with_name("heldout.jsonl"), words), docstrings(words)
    sizes = [sum(map(len, docs)) for docs in texts]
    texts = [[(ids, dense.forward([ids])[0]) for ids in docs] for docs in texts]
    print(f"Python {platform.python_version()}; tokens: {sizes[0]} held out, {sizes[1]} docstrings")
    for name in cases:
        report(name, (dense, case(gguf, path, name)), words, texts)


if __name__ == "__main__":
    main()
