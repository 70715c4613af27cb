"""How imported models differ from the first of them: perplexity, KL divergence, likeliest tokens.

    pip install numpy onnxruntime==1.31.1 tokenizers
    python precision.py F32_FOLDER OTHER_FOLDER ...

Reads the held-out text (heldout.jsonl) with each, as prompts are read: in chunks over a cache. The
folders are what the importer makes of one checkpoint with different bits and caches, laid out for ONNX
Runtime's own operators: `cargo run --release -p mote-import --example import -- GGUF FOLDER moe int4:f32:stock`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

CHUNK = 128
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}


class Model:
    def __init__(self, folder, tokens_max):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self.caches = {}
        for given in self.session.get_inputs():
            if given.name.startswith("past_key_values."):
                _, heads, _, width = given.shape
                empty = np.zeros((1, heads, tokens_max, width), TYPES[given.type])
                self.caches[given.name] = onnxruntime.OrtValue.ortvalue_from_numpy(empty)

    def log_probabilities(self, ids):
        """[tokens, vocab], f64."""
        rows = []
        for past in range(0, len(ids), CHUNK):
            rows.append(self.step(past, ids[past : past + CHUNK]).astype("f8"))
        logits = np.concatenate(rows)
        logits -= logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    def step(self, past, ids):
        total, binding = past + len(ids), self.session.io_binding()
        for name, value in {
            "input_ids": np.array([ids], "i8"),
            "seqlens_k": np.array([total - 1], "i4"),
            "total_sequence_length": np.array([total], "i4"),
            "num_logits_to_keep": np.array([len(ids)], "i8"),
        }.items():
            binding.bind_cpu_input(name, value)
        binding.bind_output("logits", "cpu")
        for name, cache in self.caches.items():
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), cache)
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()[0]


def main():
    folders = sys.argv[1:]
    words = Tokenizer.from_file(f"{folders[0]}/tokenizer.json")
    lines = Path(__file__).with_name("heldout.jsonl").read_text().splitlines()
    documents = [words.encode(json.loads(line)).ids for line in lines]
    models = [Model(folder, max(map(len, documents))) for folder in folders]
    sums, count = np.zeros((len(models), 3)), 0
    for ids in documents:
        reference = None
        for sum_, model in zip(sums, models):
            found = model.log_probabilities(ids)[:-1]
            reference = found if reference is None else reference
            sum_[0] -= found[np.arange(len(found)), ids[1:]].sum()
            sum_[1] += (np.exp(reference) * (reference - found)).sum()
            sum_[2] += (reference.argmax(-1) == found.argmax(-1)).sum()
        count += len(ids) - 1
    print(f"{count} tokens: perplexity, KL, same likeliest token")
    for folder, (loss, divergence, same) in zip(folders, sums / count):
        print(f"{np.exp(loss):8.3f} {divergence:8.4f} {same:7.1%}  {folder}")


if __name__ == "__main__":
    main()
