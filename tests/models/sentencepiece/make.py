"""Makes a small SentencePiece vocabulary as GGUF files have them, and what others make of texts.

golden.json: `tokens`, `scores` and `types` (tokenizer.ggml.tokens, .scores, .token_type), `plain`
(texts with the ids that sentencepiece gives) and `special` (texts with tokens of their own in them,
with the ids that llama.cpp gives; sentencepiece does not read those out of text).

    pip install sentencepiece gguf numpy xllamacpp   # made with 0.2.3, 0.19.0, 2.4.6, 2026.10.11549
    python make.py
"""

import io
import json
import pathlib
import tempfile
import urllib.request

import gguf
import numpy as np
import sentencepiece
import xllamacpp

HERE = pathlib.Path(__file__).parent
TEXTS = HERE.parent / "carve" / "calibration.jsonl"
SIZE = 480
WIDTH = 32
CONTROL, USER_DEFINED = ["<|user|>", "<|end|>"], ["<think>", "<|tool call|>"]
PLAIN = [
    "The history of trees began in the trees.",
    "hello",
    " hello",
    "   three spaces,  two\tand a tab ",
    "line\nbreak\n\n  indented",
    "1234567890 + 3.14 = ?",
    "naïve café — “quotes” … 日本語 🦀",
    "don't\u00a0stop\u200bnow",
    "aaaaaaaaaaaaaaaaaaaaaaaa the the the thethethe",
    "e\u0301 \ufffd \u2581 under",
    "\x00\x7f\r\n",
    "(x_1 == y[2]) && !z; // comment",
]
SPECIAL = [
    "<s>hello</s>",
    "<|user|>Name three fruits.<|end|>",
    "<|user|>\nName three fruits.<|end|>\n",
    "<think>why</think> because",
    "a<think>b c<|tool call|> d",
    "a <s> b<|user|><|end|> c",
    "<unk><0x41><pad>",
]


def train():
    documents = [json.loads(line) for line in TEXTS.read_text().splitlines()]
    lines = [line for document in documents for line in document.splitlines() if line]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=SIZE,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        character_coverage=0.995,
        control_symbols=CONTROL,
        user_defined_symbols=USER_DEFINED,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def kind(model, id):
    if model.is_unknown(id):
        return gguf.TokenType.UNKNOWN
    if model.is_control(id):
        return gguf.TokenType.CONTROL
    if model.is_byte(id):
        return gguf.TokenType.BYTE
    if model.id_to_piece(id) in USER_DEFINED:
        return gguf.TokenType.USER_DEFINED
    return gguf.TokenType.NORMAL


def write(path, vocabulary):
    """A llama of one layer, which nobody runs, with the vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_scores(vocabulary["scores"])
    writer.add_token_types(vocabulary["types"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    for name in square:
        writer.add_tensor(f"blk.0.{name}.weight", np.zeros((WIDTH, WIDTH), "f4"))
    for name in ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"]:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, "f4"))
    writer.add_tensor("token_embd.weight", np.zeros((len(vocabulary["tokens"]), WIDTH), "f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama_cpp(vocabulary):
    """What llama.cpp makes of a text, tokens of their own read out of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/vocabulary.gguf"
        write(path, vocabulary)
        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx = 64
        server = xllamacpp.Server(params)
        texts = PLAIN + SPECIAL
        return [dict(text=text, ids=tokenize(server.listening_address, text)) for text in texts]


def tokenize(address, text):
    asked = dict(content=text, add_special=False, parse_special=True)
    request = urllib.request.Request(
        f"{address}/tokenize", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["tokens"]


def main():
    model = train()
    ids = range(model.get_piece_size())
    vocabulary = dict(
        tokens=[model.id_to_piece(id) for id in ids],
        scores=[model.get_score(id) for id in ids],
        types=[int(kind(model, id)) for id in ids],
    )
    plain = [dict(text=text, ids=model.encode(text)) for text in PLAIN]
    theirs = llama_cpp(vocabulary)
    for own, other in zip(plain, theirs):
        if own != other:
            print("sentencepiece and llama.cpp differ:", own, other)
    golden = dict(vocabulary, plain=plain, special=theirs[len(PLAIN) :])
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    (HERE / "golden.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
