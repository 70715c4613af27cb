"""Make the text that distil.py trains on: what the dense model says, in rows of equal length.

    python speak.py SmolLM2-135M-Instruct.Q4_1.gguf ROWS.npy [--rows N] [--seed S] [--device cuda]

writes u16 [rows, tokens] and adds to it after each batch. Rows are conversations of which the model
also says the user's part; answers to and continuations of prompts as corpus.py has them, of more
kinds and topics; and documents from the start. No prompt is one of heldout.jsonl or evaluate.py.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

import corpus
import evaluate
import tokenizer
from gguf_file import GgufFile
from llama import Llama
from network import Cache, Network

BATCH = 96
DOCUMENT_START = 0
QUESTIONS = corpus.QUESTIONS + [
    "What is {topic}?",
    "Tell me about {topic}.",
    "Name three things that have to do with {topic}.",
    "Name {small} famous people from {country}.",
    "What are the advantages and disadvantages of {topic}?",
    "Summarise the history of {topic} in a few sentences.",
    "What should a beginner know about {topic}?",
    "Who invented {topic}?",
    "Is {topic} good for you?",
    "Write a headline about {topic} and {other}.",
    "Translate into simple English: {topic} has a considerable influence on {other}.",
    "What is the largest city of {country}?",
    "Where is {country}?",
    "What is the weather like in {country}?",
    "Plan a weekend in {country}.",
    "What do {topic} and {other} have in common?",
    "Write a dialogue between two people who talk about {topic}.",
    "Give me a recipe with {topic}.",
    "Explain the following Python error: {error}.",
    "Write a docstring for a Python function that {task}.",
    "Which is bigger, {number} or {other_number}?",
    "Complete the sentence: Without {topic}, people would",
    "Write one sentence about {topic}.",
    "Write two sentences about {topic}.",
    "Do you like {topic}?",
    "Hello! Can you help me with {topic}?",
]
OPENINGS = corpus.OPENINGS + [
    '"""This module provides functions for {topic}.\n\n',
    "def ",
    "import ",
    "Q: What is {topic}?\nA:",
    "{topic}\n\n",
    "The difference between {topic} and {other} is",
    "Dear reader, today I write about {topic}",
    "Return the ",
]
MORE_TOPICS = """apples;cheese;dogs;cats;fish;horses;insects;dinosaurs;mountains;rivers;deserts;islands;clouds;
snow;fire;light;sound;gravity;atoms;cells;DNA;vaccines;medicine;doctors;teachers;farmers;pilots;
sailors;artists;novels;poetry;theatre;films;photography;dance;guitars;pianos;singing;games;
running;swimming;tennis;cars;ships;aeroplanes;rockets;satellites;robots;software;the internet;
databases;programming;encryption;maps;clocks;calendars;banks;taxes;trade;markets;laws;courts;
elections;democracy;history;ancient Rome;the Middle Ages;language;grammar;dreams;emotions;anger;
happiness;stress;breakfast;soup;coffee;chocolate;salt;sugar;vegetables;clothes;shoes;houses;
kitchens;gardens;cities;villages;roads;tunnels;recycling;climate;solar power;oil;steel;wood;paper;
plastic;gold;diamonds;water;air;the sun;planets;black holes;evolution;photosynthesis;bacteria;
the brain;teeth;bones;skin;birthdays;weddings;holidays;travel;hotels;camping;families;children;
neighbours;work;meetings;letters;newspapers;radio;television;advertising;statistics;geometry;
fractions;prime numbers;probability""".replace("\n", "").split(";")
TOPICS = corpus.TOPICS + MORE_TOPICS
MORE_COUNTRIES = """Sweden;Chile;Nigeria;Thailand;Ireland;Austria;Iran;Korea;Cuba;Finland;Hungary;
Indonesia;Colombia;Ghana;Iceland;Belgium;Ukraine;Pakistan;Ethiopia;New Zealand""".replace("\n", "").split(";")
COUNTRIES = corpus.COUNTRIES + MORE_COUNTRIES
ERRORS = [
    "KeyError: 'name'",
    "IndexError: list index out of range",
    "TypeError: 'int' object is not callable",
]


def opening(random, shape):
    pick = lambda items: items[random.integers(len(items))]
    return shape.format(
        topic=pick(TOPICS),
        other=pick(TOPICS),
        country=pick(COUNTRIES),
        task=pick(corpus.TASKS),
        error=pick(ERRORS),
        small=pick(["three", "four", "five"]),
        number=random.integers(7, 500),
        other_number=random.integers(5, 500),
    )


def prompt(random, words, forbidden, kinds):
    """Token ids of one prompt. `kinds`: shares of conversations, questions, openings."""
    conversation = tokenizer.chat("").split("user\n")[0] + "user\n"
    while True:
        kind = int(np.searchsorted(np.cumsum(kinds), random.random(), side="right"))
        if kind == 0:
            text = conversation
        elif kind == 1:
            text = tokenizer.chat(opening(random, QUESTIONS[random.integers(len(QUESTIONS))]))
        elif kind == 2:
            text = opening(random, OPENINGS[random.integers(len(OPENINGS))])
        else:
            return [DOCUMENT_START]
        if text not in forbidden:
            return words.encode(text).ids


def batches(random, words, forbidden, kinds):
    """Endless batches of prompts of equal length, so that none needs padding."""
    waiting = {}
    while True:
        ids = prompt(random, words, forbidden, kinds)
        group = waiting.setdefault(len(ids), [])
        group.append(ids)
        if len(group) == BATCH:
            yield waiting.pop(len(ids))


@torch.no_grad()
def speak(net, prompts, options, generator):
    """[BATCH, tokens]: prompts with what the dense model says next."""
    ids = torch.tensor(prompts, device=net.embedding.device)
    caches = [Cache(options.tokens) for _ in net.layers]
    step = ids
    while ids.shape[1] < options.tokens:
        logits = net.logits(net(step, teacher=True, caches=caches)[:, -1]).float()
        logits /= options.temperature
        top, tokens = logits.topk(256, -1)
        share = (top - logits.logsumexp(-1, keepdim=True)).exp()
        share[share.cumsum(-1) - share > options.top_p] = 0
        step = tokens.gather(-1, torch.multinomial(share, 1, generator=generator))
        ids = torch.cat([ids, step], 1)
    return ids.cpu().numpy().astype(np.uint16)


def dense(gguf, device, dtype):
    """The dense model as a network without corrections; the order of neurons does not matter."""
    llama = Llama(gguf)
    neurons, hidden = llama.layers[0]["ffn_gate"].shape
    layers = [(np.arange(neurons), np.zeros((1, hidden), "f4"))] * len(llama.layers)
    ranks = dict.fromkeys(llama.layers[0], 0)
    return Network(llama, layers, ranks, (neurons, 1, 1.0), dtype).to(device).requires_grad_(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=1536)
    parser.add_argument("--tokens", type=int, default=192, help="of each row")
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--top-p", type=float, default=0.97)
    parser.add_argument(
        "--kinds",
        type=float,
        nargs=3,
        default=[0.5, 0.3, 0.15],
        help="shares of conversations, questions and openings; the rest starts documents",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gguf = GgufFile(options.gguf)
    words, random = tokenizer.load(gguf), np.random.default_rng(options.seed)
    generator = torch.Generator(options.device).manual_seed(options.seed)
    net = dense(gguf, options.device, torch.bfloat16)
    forbidden = set(corpus.prompts(120, 48)) | {tokenizer.chat(text) for text in evaluate.QUESTIONS}
    rows, start = np.zeros((0, options.tokens), np.uint16), time.time()
    for prompts in batches(random, words, forbidden, options.kinds):
        rows = np.concatenate([rows, speak(net, prompts, options, generator)])
        part = options.out.with_suffix(".part.npy")
        np.save(part, rows)
        part.rename(options.out)
        seconds = time.time() - start
        print(f"{len(rows)} of {options.rows} rows, seed {options.seed}, {seconds:.0f} s", flush=True)
        if len(rows) >= options.rows:
            break


if __name__ == "__main__":
    main()
