"""Held-out perplexity and sample answers of a recipe, per number of experts a token uses.

    python evaluate.py SmolLM2-135M-Instruct.Q4_1.gguf RECIPE.safetensors [K ...]

Two held-out texts: heldout.jsonl (the model's own, prompts unseen in calibration) and docstrings
of Python's standard library (a text of another kind; it depends on the Python version, printed).
"""

import importlib
import platform
import sys
from pathlib import Path

import recipe
import tokenizer
from carve import documents
from gguf_file import GgufFile
from llama import Llama, perplexity

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


def report(name, model, words, texts):
    own, other = (perplexity(model, docs) for docs in texts)
    print(f"## {name}: perplexity {own:.2f} held out, {other:.2f} docstrings", flush=True)
    for question in QUESTIONS:
        ids = words.encode(tokenizer.chat(question)).ids
        print(f"- {question} -> {words.decode(model.greedy(ids, ANSWER_TOKENS_MAX, END))!r}", flush=True)


def main():
    gguf = GgufFile(sys.argv[1])
    layers, outer, metadata = recipe.read(Path(sys.argv[2]))
    counts = [int(k) for k in sys.argv[3:]] or range(int(metadata["experts"]), 2, -1)
    if metadata["source_sha256"] != gguf.sha256():
        raise SystemExit("the recipe was made for another checkpoint")
    model, words = Llama(gguf), tokenizer.load(gguf)
    texts = documents(Path(__file__).with_name("heldout.jsonl"), words), docstrings(words)
    sizes = [sum(map(len, docs)) for docs in texts]
    print(f"Python {platform.python_version()}; tokens: {sizes[0]} held out, {sizes[1]} docstrings")
    report("dense", model, words, texts)
    recipe.apply(model, layers, outer, metadata)
    for k in counts:
        for routing in model.routing:
            routing.experts_per_token = k
        report(f"k = {k}", model, words, texts)


if __name__ == "__main__":
    main()
