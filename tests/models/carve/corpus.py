"""Make the calibration and held-out texts: SmolLM2 itself answers and continues prompts.

    python corpus.py SmolLM2-135M-Instruct.Q4_1.gguf

writes calibration.jsonl and heldout.jsonl beside this file, one document (a JSON string) a line.
The two share no prompt. Sampled text is what the experts will see in use, and it needs no corpus
of unclear licence.
"""

import json
import sys
from pathlib import Path

import numpy as np

import tokenizer
from gguf_file import GgufFile
from llama import Cache, Llama

SEED = 20
TOKENS_MAX = 160
TEMPERATURE = 0.8
TOP_P = 0.95
BATCH = 24
END = 2

QUESTIONS = [
    "What is the capital of {country}?",
    "Write three sentences about {topic}.",
    "Why is {topic} important?",
    "Explain {topic} to a child.",
    "List five facts about {topic}.",
    "Write a short story about {topic}.",
    "Give me some advice about {topic}.",
    "What is the difference between {topic} and {other}?",
    "How does {topic} work?",
    "Write a polite email about {topic}.",
    "Write a short poem about {topic}.",
    "Which language do people speak in {country}, and what do they eat?",
    "Write a Python function that {task}.",
    "What is {number} plus {other_number}? Explain step by step.",
]
OPENINGS = [
    "The history of {topic} began",
    "In recent years, {topic} has become",
    "# {topic}\n\n## Introduction\n\n",
    "Once upon a time in {country}, there was",
    "Scientists who study {topic} have found that",
    "To learn about {topic}, first",
]
TOPICS = """rain;bread;the moon;trains;honey bees;music;electricity;sleep;gardening;the heart;volcanoes;
friendship;computers;chess;the sea;money;bicycles;cooking rice;trees;the human eye;school;painting;
whales;glass;exercise;bridges;mathematics;tea;winter;birds;the telephone;museums;memory;soil;
football;a lost dog;a job interview;public libraries;stars;batteries""".replace("\n", "").split(";")
COUNTRIES = """Spain;Japan;Egypt;Brazil;Norway;India;Kenya;Canada;Greece;Peru;Italy;Mexico;Turkey;
Poland;Portugal;Vietnam;Germany;China;Australia;Morocco""".replace("\n", "").split(";")
TASKS = """adds two numbers;reverses a string;finds the largest item of a list;counts the words in a
 text;checks whether a number is prime;reads a file line by line;sorts names by length;converts
 Celsius to Fahrenheit""".replace("\n", "").split(";")


def prompts(offset, count):
    """`count` prompts; two offsets whose ranges don't meet give different prompts."""
    shapes = [tokenizer.chat(question) for question in QUESTIONS] + OPENINGS
    out = []
    for i in range(offset, offset + count):
        words = dict(
            topic=TOPICS[i * 7 % len(TOPICS)],
            other=TOPICS[(i * 7 + 11) % len(TOPICS)],
            country=COUNTRIES[i * 3 // 2 % len(COUNTRIES)],
            task=TASKS[i // len(shapes) % len(TASKS)],
            number=i * 37 % 90 + 7,
            other_number=i * 53 % 80 + 5,
        )
        out.append(shapes[i % len(shapes)].format(**words))
    return out


def pick(logits, random):
    """One token per row by temperature and nucleus sampling."""
    scaled = logits.astype(np.float64) / TEMPERATURE
    chance = np.exp(scaled - scaled.max(-1, keepdims=True))
    chance /= chance.sum(-1, keepdims=True)
    tokens = []
    for row in chance:
        order = np.argsort(-row, kind="stable")[:1000]
        kept = row[order]
        kept = kept[: int(np.searchsorted(np.cumsum(kept), TOP_P)) + 1]
        tokens.append(int(order[np.searchsorted(np.cumsum(kept), random.random() * kept.sum())]))
    return tokens


def continue_all(model, rows, random):
    """Rows of token ids, each followed by what the model says until it ends."""
    longest = max(map(len, rows))
    pad = np.array([longest - len(row) for row in rows])
    step = np.array([[END] * (longest - len(row)) + row for row in rows])
    cache, out, live = Cache(), [list(row) for row in rows], [True] * len(rows)
    for _ in range(TOKENS_MAX):
        tokens = pick(model.logits(model.forward(step, cache, pad)[:, -1]), random)
        for i, token in enumerate(tokens):
            if live[i]:
                out[i].append(token)
                live[i] = token not in (0, END)
        if not any(live):
            break
        step = np.array(tokens)[:, None]
    return out


def main():
    gguf = GgufFile(sys.argv[1])
    model, words, random = Llama(gguf), tokenizer.load(gguf), np.random.default_rng(SEED)
    for name, offset, count in [("calibration", 0, 120), ("heldout", 120, 48)]:
        rows = sorted((words.encode(text).ids for text in prompts(offset, count)), key=len)
        texts = []
        for at in range(0, len(rows), BATCH):
            done = continue_all(model, rows[at : at + BATCH], random)
            texts += [words.decode(ids, skip_special_tokens=False) for ids in done]
            print(f"{name}: {len(texts)} of {count}, seed {SEED}", flush=True)
        path = Path(__file__).with_name(name + ".jsonl")
        path.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts))


if __name__ == "__main__":
    main()
