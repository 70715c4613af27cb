"""Makes a tiny random encoder, exported as embedding models are published, and what Hugging Face
transformers computes with it.

`bert/` gets model.onnx (`input_ids`, `attention_mask`, `token_type_ids` [b, s] → `last_hidden_state`
[b, s, 32]), tokenizer.json and golden.json: texts, their tokens, and the vectors of mean and cls pooling
before they are normed, each text computed alone, without padding. `decoders.json` holds the same of last
and mean pooling for checkpoints of architectures/, from the output of their final norms.

    pip install torch transformers onnx tokenizers   # made with transformers 5.24, torch 2.15, onnx 1.23
    python make.py
"""

import json
import pathlib

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = pathlib.Path(__file__).parent
SEED = 20_261_128
WORDS = "the a of whale crab ocean sea ship sails swims deep small in on and is two red salt wind".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
HIDDEN, CONTEXT = 32, 24
TEXTS = [
    "the whale swims in the deep ocean",
    "a crab",
    "the red ship sails on the sea and the wind is salt",
    "whale",
    "A small crab is on the ship",
    "two of the two of the two of the two of the two",
    "unheard words",
]
# A plain one, one whose logits are scaled, one with latent attention.
DECODERS = ["qwen3", "granitemoe", "deepseek_v2"]
# Their tokenizer spells id n as wn.
DECODER_TEXTS = [[5, 9, 33], [17], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [40, 9, 40, 9, 61, 22]]


def tokenizer():
    vocab = {word: at for at, word in enumerate(SPECIAL + WORDS)}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ids = [(word, vocab[word]) for word in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    made.add_special_tokens(SPECIAL)
    return made


class Encoder(torch.nn.Module):
    """The part of a model that embeds, with its inputs in the order of published exports."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        made = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        )
        return made.last_hidden_state


def export(model, path):
    example = torch.ones((2, 5), dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    open_dims = {name: {0: "batch", 1: "sequence"} for name in names + ["last_hidden_state"]}
    torch.onnx.export(
        Encoder(model).eval(),
        (example, example, example * 0),
        str(path),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=open_dims,
        opset_version=17,
        dynamo=False,
    )


def bert():
    folder = HERE / "bert"
    folder.mkdir(exist_ok=True)
    torch.manual_seed(SEED)
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    made = tokenizer()
    made.save(str(folder / "tokenizer.json"))
    export(model, folder / "model.onnx")
    texts = []
    for text in TEXTS:
        ids = made.encode(text).ids
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        texts.append(
            dict(text=text, ids=ids, mean=states.mean(0).tolist(), cls=states[0].tolist())
        )
    golden = dict(dimensions=HIDDEN, context_tokens=CONTEXT, vocab=config.vocab_size, texts=texts)
    (folder / "golden.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")


def decoder(name):
    checkpoint = HERE.parent / "architectures" / name
    model = transformers.AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    texts = []
    for ids in DECODER_TEXTS:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        text = " ".join(f"w{id}" for id in ids)
        texts.append(
            dict(text=text, ids=ids, mean=states.mean(0).tolist(), last=states[-1].tolist())
        )
    return dict(dimensions=model.config.hidden_size, texts=texts)


if __name__ == "__main__":
    print(f"seed {SEED}")
    bert()
    golden = {name: decoder(name) for name in DECODERS}
    (HERE / "decoders.json").write_text(json.dumps(golden) + "\n")
