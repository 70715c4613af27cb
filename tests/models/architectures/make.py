"""Makes tiny random checkpoints of every architecture that the importer reads, and what Hugging
Face transformers computes with them.

Each folder is a checkpoint as published ones are (config.json, safetensors, tokenizer.json), with
golden.safetensors beside: `prompt` [p], `tokens` [64] (greedy) and `logits` [64, vocab], the logits
each of those tokens was chosen from, computed in f32 from the stored weights without a cache.

    pip install torch transformers safetensors tokenizers   # made with transformers 5.24, torch 2.15
    python make.py [NAME...]
"""

import itertools
import json
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

HERE = pathlib.Path(__file__).parent
SEED = 20_260_726
VOCAB, HIDDEN, LAYERS = 64, 64, 2
PROMPT, GREEDY = 17, 64
# Logits that two sound implementations compute in f32 differ by far less.
MARGIN_MIN = 1e-2
# Tokens that only repeat would prove little.
DIFFERENT_MIN = 8

COMMON = dict(
    vocab_size=VOCAB,
    hidden_size=HIDDEN,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    rope_parameters=dict(rope_type="default", rope_theta=10_000.0),
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    tie_word_embeddings=False,
)
SMALL = dict(
    hidden_size=32, intermediate_size=64, num_attention_heads=2, num_key_value_heads=1
)
GRANITE = dict(
    intermediate_size=32,
    num_local_experts=4,
    num_experts_per_tok=2,
    embedding_multiplier=3.0,
    attention_multiplier=0.2,
    residual_multiplier=0.4,
    logits_scaling=2.0,
)
DEEPSEEK = dict(
    num_key_value_heads=4,
    intermediate_size=96,
    moe_intermediate_size=32,
    n_routed_experts=8,
    num_experts_per_tok=3,
    n_shared_experts=2,
    first_k_dense_replace=1,
    n_group=4,
    topk_group=2,
    routed_scaling_factor=1.7,
    q_lora_rank=32,
    kv_lora_rank=32,
    qk_nope_head_dim=16,
    qk_rope_head_dim=16,
    v_head_dim=16,
)


def rope(kind, **more):
    return dict(rope_type=kind, rope_theta=10_000.0, **more)


# Name: transformers' name, what differs from COMMON, element type, largest shard.
MODELS = {
    "llama": (
        "Llama",
        SMALL,
        "float32",
        None,
    ),
    "llama-3": (
        "Llama",
        dict(
            intermediate_size=96,
            tie_word_embeddings=True,
            attention_bias=True,
            rope_parameters=rope(
                "llama3",
                factor=4.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
            ),
        ),
        "float16",
        None,
    ),
    "llama-linear": (
        "Llama",
        dict(
            intermediate_size=96, head_dim=32, rope_parameters=rope("linear", factor=2.0)
        ),
        "bfloat16",
        None,
    ),
    "mistral": ("Mistral", dict(SMALL, sliding_window=7), "bfloat16", None),
    "qwen2": ("Qwen2", dict(intermediate_size=96), "bfloat16", None),
    # As published ones are: which layers slide follows from max_window_layers.
    "qwen2-window": (
        "Qwen2",
        dict(
            SMALL,
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=5,
            max_window_layers=1,
        ),
        "bfloat16",
        None,
    ),
    "qwen3-window": (
        "Qwen3",
        dict(
            SMALL,
            num_hidden_layers=3,
            use_sliding_window=True,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        "bfloat16",
        None,
    ),
    "qwen3": (
        "Qwen3",
        dict(
            intermediate_size=96,
            head_dim=32,
            tie_word_embeddings=True,
        ),
        "bfloat16",
        "60KB",
    ),
    "granitemoe": ("GraniteMoe", GRANITE, "bfloat16", None),
    "granitemoeshared": (
        "GraniteMoeShared",
        dict(
            GRANITE,
            shared_intermediate_size=64,
            tie_word_embeddings=True,
            embedding_multiplier=0.5,
        ),
        "bfloat16",
        None,
    ),
    "mixtral": (
        "Mixtral",
        dict(intermediate_size=32, num_local_experts=4, num_experts_per_tok=2),
        "bfloat16",
        "100KB",
    ),
    "olmoe": (
        "Olmoe",
        dict(
            intermediate_size=32, num_experts=6, num_experts_per_tok=3, norm_topk_prob=False
        ),
        "bfloat16",
        None,
    ),
    "qwen2_moe": (
        "Qwen2Moe",
        dict(
            intermediate_size=96,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=64,
            num_experts=4,
            num_experts_per_tok=2,
            norm_topk_prob=False,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        ),
        "bfloat16",
        None,
    ),
    # Of its four layers, only the second is sparse.
    "qwen3_moe": (
        "Qwen3Moe",
        dict(
            num_hidden_layers=4,
            intermediate_size=64,
            moe_intermediate_size=32,
            num_experts=6,
            num_experts_per_tok=3,
            norm_topk_prob=True,
            head_dim=16,
            decoder_sparse_step=2,
            mlp_only_layers=[3],
            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=64),
        ),
        "bfloat16",
        None,
    ),
    # What llama.cpp knows by the name of qwen3moe has no dense layers.
    "qwen3_moe-sparse": (
        "Qwen3Moe",
        dict(
            SMALL,
            head_dim=16,
            moe_intermediate_size=32,
            num_experts=6,
            num_experts_per_tok=3,
            norm_topk_prob=True,
            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=64),
        ),
        "bfloat16",
        None,
    ),
    "deepseek_v2": (
        "DeepseekV2",
        dict(DEEPSEEK, topk_method="group_limited_greedy"),
        "bfloat16",
        None,
    ),
    "deepseek_v2-lite": (
        "DeepseekV2",
        dict(
            DEEPSEEK,
            q_lora_rank=None,
            topk_method="greedy",
            routed_scaling_factor=1.0,
            rope_parameters=rope(
                "yarn",
                factor=4.0,
                mscale=0.707,
                mscale_all_dim=0.707,
                beta_fast=32,
                beta_slow=1,
                original_max_position_embeddings=64,
            ),
        ),
        "bfloat16",
        None,
    ),
    "deepseek_v3": (
        "DeepseekV3",
        dict(
            DEEPSEEK,
            norm_topk_prob=True,
            rope_parameters=rope(
                "yarn",
                factor=4.0,
                mscale=1.0,
                mscale_all_dim=1.0,
                beta_fast=32,
                beta_slow=1,
                original_max_position_embeddings=64,
            ),
        ),
        "bfloat16",
        None,
    ),
}
# The same once more as DeepSeek-V3 is published: eight-bit weights with a factor per block. No
# matrix is a whole number of these blocks.
MODELS["deepseek_v3-fp8"] = MODELS["deepseek_v3"]
FP8_BLOCKS = {"deepseek_v3-fp8": (24, 40)}
FP8_MAX = 448.0


def randomise(model, seed):
    """Weights large enough for logits that differ, and no neutral norm or bias."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(model.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in name:
            value = 1 + 0.2 * noise
        elif "correction_bias" in name:
            value = 0.2 * noise
        elif tensor.ndim == 1:
            value = 0.3 * noise
        elif "embed" in name:
            # Small, or a tied head would only ever repeat the last token.
            value = 0.2 * noise
        elif "lm_head" in name:
            value = 0.5 * noise
        else:
            value = 1.5 * noise / tensor.shape[-1] ** 0.5
        tensor.copy_(value)


def tokenizer():
    words = ["<pad>", "<s>", "</s>"] + [f"w{id}" for id in range(3, VOCAB)]
    made = Tokenizer(
        models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="<pad>")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(words[:3])
    return made


@torch.no_grad()
def make(name):
    kind, differences, element, shard = MODELS[name]
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    config = getattr(transformers, f"{kind}Config")(**{**COMMON, **differences})
    torch.manual_seed(SEED)
    seed = SEED
    while True:
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
        randomise(model, seed)
        model = model.to(getattr(torch, element))
        for old in folder.glob("*.safetensors*"):
            old.unlink()
        model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
        if name in FP8_BLOCKS:
            margin, golden = run_quantised(folder, kind, seed, FP8_BLOCKS[name])
        else:
            margin, golden = run(folder, kind, seed)
        different = len(set(golden["tokens"].tolist()))
        if margin >= MARGIN_MIN and different >= DIFFERENT_MIN:
            break
        seed += 1
    save_file(golden, folder / "golden.safetensors")
    if "max_window_layers" in differences:
        forget(folder, "layer_types")
    (folder / "generation_config.json").unlink(missing_ok=True)
    made = tokenizer()
    made.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            dict(
                tokenizer_class="PreTrainedTokenizerFast",
                bos_token="<s>",
                eos_token="</s>",
                pad_token="<pad>",
                chat_template="{% for m in messages %}{{ m.content }} {% endfor %}",
            ),
            indent=1,
        )
        + "\n"
    )
    print(f"{name}: seed {seed}, margin {margin:.4f}, {different} different tokens")


def forget(folder, key):
    """Takes a setting out of config.json that follows from others."""
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    write_config(folder, config)


def run_quantised(folder, kind, seed, block):
    """Replaces the matrices of attention and feed-forward blocks by eight-bit ones with factors;
    what is run has the products of both."""
    path = folder / "model.safetensors"
    stored, products = {}, {}
    for name, weight in load_file(path).items():
        plain = "_proj" not in name or weight.ndim != 2
        stored[name] = products[name] = weight
        if not plain:
            factors = torch.empty(
                [-(-size // step) for size, step in zip(weight.shape, block)]
            )
            stored[name] = torch.empty(weight.shape, dtype=torch.float8_e4m3fn)
            products[name] = torch.empty(weight.shape)
            for i, j in itertools.product(*map(range, factors.shape)):
                part = tuple(slice(k * step, (k + 1) * step) for k, step in zip((i, j), block))
                factors[i, j] = weight[part].float().abs().max() / FP8_MAX
                stored[name][part] = (weight[part].float() / factors[i, j]).to(torch.float8_e4m3fn)
                products[name][part] = stored[name][part].float() * factors[i, j]
            stored[name + "_scale_inv"] = factors
    with tempfile.TemporaryDirectory() as whole:
        shutil.copy(folder / "config.json", whole)
        save_file(products, pathlib.Path(whole) / path.name, {"format": "pt"})
        ran = run(whole, kind, seed)
    save_file(stored, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = dict(
        activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=block
    )
    write_config(folder, config)
    return ran


def write_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def run(folder, kind, seed):
    model = getattr(transformers, f"{kind}ForCausalLM").from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCAB, (1, PROMPT), generator=generator)
    prompt, tokens, logits, margin = ids[0].clone(), [], [], float("inf")
    for _ in range(GREEDY):
        last = model(ids, use_cache=False).logits[0, -1]
        best = last.topk(2).values
        margin = min(margin, float(best[0] - best[1]))
        tokens.append(int(last.argmax()))
        logits.append(last)
        ids = torch.cat([ids, torch.tensor([[tokens[-1]]])], dim=1)
    golden = dict(prompt=prompt, tokens=torch.tensor(tokens), logits=torch.stack(logits))
    return margin, golden


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:] or MODELS:
        make(wanted)
