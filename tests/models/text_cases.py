"""Reference cases of the language model: carve/llama.py on the importer's 8-bit weights."""

from pathlib import Path

import numpy as np

import recipe
import rounding
import tokenizer
from gguf_file import GgufFile
from llama import Llama

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
RECIPE = Path(__file__).parents[2] / "backends/import/recipes/smollm2-135m-moe.safetensors"
QUESTION = "Write two sentences about the ocean."
GREEDY_TOKENS = 32


def language_model(carved):
    """Logits after the prompt, greedy tokens, and by how much each was ahead of the second best.

    A runtime that rounds otherwise may choose another token where the margin is small.
    """

    def case(models):
        gguf = GgufFile(models.find(GGUF))
        model, words = Llama(gguf), tokenizer.load(gguf)
        layers, outer, metadata = recipe.read(RECIPE)
        if carved:
            if metadata["source_sha256"] != gguf.sha256():
                raise ValueError("the recipe was made for another checkpoint")
            recipe.apply(model, layers, outer, metadata, fold=True)
        rounding.round_model(model, 8, 8, 8)
        ids = words.encode(tokenizer.chat(QUESTION)).ids
        answer = model.greedy(ids, GREEDY_TOKENS)
        logits = model.logits(model.forward([ids + answer[:-1]])[0, len(ids) - 1 :])
        best = -np.partition(-logits, 1, axis=1)[:, :2]
        experts = f"{metadata['experts_per_token']} experts per token" if carved else "dense"
        return dict(
            model=GGUF,
            runtime=f"numpy {np.__version__} float32, Q8_0 weights, {experts}",
            inputs={"input_ids": np.array([ids], np.int64)},
            outputs={
                "last_logits": logits[0],
                "greedy_ids": np.array(answer, np.int64),
                "greedy_margins": best[:, 0] - best[:, 1],
            },
            note=repr(words.decode(answer, skip_special_tokens=False)),
        )

    return case


CASES = {"language_model_dense": language_model(False), "language_model_moe": language_model(True)}
