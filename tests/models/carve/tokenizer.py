"""SmolLM2's tokenizer, rebuilt from the vocabulary and merges inside the GGUF file."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL_TOKEN = 3
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def load(gguf):
    """Byte-level BPE; digits are split one by one before the byte-level words ("smollm")."""
    names = gguf.fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in gguf.fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = gguf.fields["tokenizer.ggml.token_type"]
    control = [name for name, kind in zip(names, kinds) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    return tokenizer


def chat(user):
    """One user turn in the model's chat template, ready for the assistant's answer."""
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    )
