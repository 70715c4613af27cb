//! The tiny checkpoints again, written as llama.cpp's converter writes them.

use mote_import::{Precision, Storage, checkpoint::read_config, safetensors::SafetensorsFolder};
use serde_json::{Map, Value};
use tempfile::tempdir;

use super::{
    architectures::{Golden, Loaded, check_logits, checkpoint},
    gguf_file::{GgufFile, Meta, Tensor},
};

/// Settings by name.
pub type Settings = Vec<(&'static str, Meta<'static>)>;

/// How an architecture is converted.
pub struct Conversion {
    pub architecture: &'static str,
    /// Whether rows of rotary projections are reordered.
    pub neighbours: bool,
    /// Settings beside those that all have: key there, key here, and whether it is a count.
    pub settings: &'static [(&'static str, &'static str, bool)],
    /// Settings that are made of several, after the architecture's name.
    pub made: fn(&Map<String, Value>) -> Settings,
    /// Whether what makes keys of the latent lies apart from what makes values.
    pub split: bool,
}

const LLAMA: Conversion = Conversion {
    architecture: "llama",
    neighbours: true,
    settings: &[],
    made: |_| Vec::new(),
    split: false,
};
pub const EXPERT_COUNTS: (&str, &str, bool) = ("expert_used_count", "num_experts_per_tok", true);

/// Settings that all have.
const COMMON: [(&str, &str, bool); 9] = [
    ("block_count", "num_hidden_layers", true),
    ("context_length", "max_position_embeddings", true),
    ("embedding_length", "hidden_size", true),
    ("feed_forward_length", "intermediate_size", true),
    ("attention.head_count", "num_attention_heads", true),
    ("attention.head_count_kv", "num_key_value_heads", true),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps", false),
    ("attention.key_length", "head_dim", true),
    ("attention.value_length", "head_dim", true),
];

/// Tensors of a layer: name there, name here; `*` is an expert's number.
const LAYER: [(&str, &str); 28] = [
    ("attn_norm.weight", "input_layernorm.weight"),
    ("ffn_norm.weight", "post_attention_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_q.bias", "self_attn.q_proj.bias"),
    ("attn_k.bias", "self_attn.k_proj.bias"),
    ("attn_v.bias", "self_attn.v_proj.bias"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
    ("ffn_gate_inp.weight", "mlp.gate.weight"),
    ("ffn_gate_exps.weight", "mlp.experts.*.gate_proj.weight"),
    ("ffn_up_exps.weight", "mlp.experts.*.up_proj.weight"),
    ("ffn_down_exps.weight", "mlp.experts.*.down_proj.weight"),
    ("ffn_gate_inp.weight", "block_sparse_moe.gate.weight"),
    (
        "ffn_gate_exps.weight",
        "block_sparse_moe.experts.*.w1.weight",
    ),
    ("ffn_up_exps.weight", "block_sparse_moe.experts.*.w3.weight"),
    (
        "ffn_down_exps.weight",
        "block_sparse_moe.experts.*.w2.weight",
    ),
    (
        "ffn_gate_inp.weight",
        "block_sparse_moe.router.layer.weight",
    ),
    (
        "ffn_gate_exps.weight",
        "block_sparse_moe.input_linear.weight",
    ),
    ("ffn_up_exps.weight", "block_sparse_moe.input_linear.weight"),
    (
        "ffn_down_exps.weight",
        "block_sparse_moe.output_linear.weight",
    ),
    ("ffn_gate_shexp.weight", "shared_mlp.input_linear.weight"),
    ("ffn_up_shexp.weight", "shared_mlp.input_linear.weight"),
];
const MORE_OF_LAYER: [(&str, &str); 15] = [
    ("attn_q_a.weight", "self_attn.q_a_proj.weight"),
    ("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight"),
    ("attn_q_b.weight", "self_attn.q_b_proj.weight"),
    (
        "attn_kv_a_mqa.weight",
        "self_attn.kv_a_proj_with_mqa.weight",
    ),
    ("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight"),
    ("attn_kv_b.weight", "self_attn.kv_b_proj.weight"),
    ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias"),
    (
        "ffn_gate_shexp.weight",
        "mlp.shared_experts.gate_proj.weight",
    ),
    ("ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight"),
    (
        "ffn_down_shexp.weight",
        "mlp.shared_experts.down_proj.weight",
    ),
    ("ffn_down_shexp.weight", "shared_mlp.output_linear.weight"),
    (
        "ffn_gate_shexp.weight",
        "mlp.shared_expert.gate_proj.weight",
    ),
    ("ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight"),
    (
        "ffn_down_shexp.weight",
        "mlp.shared_expert.down_proj.weight",
    ),
    ("ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight"),
];

pub struct Converter {
    weights: SafetensorsFolder,
    config: Map<String, Value>,
    conversion: Conversion,
}

impl Converter {
    fn count(&self, key: &str) -> usize {
        self.config[key].as_u64().expect("it is a count") as usize
    }

    /// Rows, columns and values of a tensor, or of one for each expert.
    fn tensor(&self, name: &str) -> Option<(Vec<u64>, Vec<f32>)> {
        let Some((before, after)) = name.split_once('*') else {
            let (rows, columns) = self.weights.shape(name).ok()?;
            let mut values = vec![0.0; rows * columns];
            self.weights.read_rows(name, 0, &mut values).expect("sound");
            return Some((vec![columns as u64, rows as u64], values));
        };
        let parts = (0..).map_while(|part| self.tensor(&format!("{before}{part}{after}")));
        let parts: Vec<_> = parts.collect();
        let (mut dims, _) = parts.first()?.clone();
        dims.push(parts.len() as u64);
        Some((
            dims,
            parts.into_iter().flat_map(|(_, values)| values).collect(),
        ))
    }

    /// The rows of one half of each expert's input, of which the other has as many.
    fn half(&self, name: &str, (dims, values): (Vec<u64>, Vec<f32>)) -> (Vec<u64>, Vec<f32>) {
        let shared = name.contains("shexp");
        let experts = if shared {
            1
        } else {
            self.count("num_local_experts")
        };
        let columns = dims[0];
        let part = values.len() / experts / 2;
        let skip = if name.contains("up") { part } else { 0 };
        let halves = values.chunks_exact(2 * part);
        let values: Vec<f32> = halves
            .flat_map(|both| both[skip..][..part].to_vec())
            .collect();
        let rows = part as u64 / columns;
        let dims = match shared {
            true => vec![columns, rows],
            false => vec![columns, rows, experts as u64],
        };
        (dims, values)
    }

    /// Rows with rotary pairs as neighbours.
    fn reordered(&self, columns: usize, values: &[f32]) -> Vec<f32> {
        let heads = self.count("num_attention_heads");
        let whole = self.config.get("head_dim").and_then(Value::as_u64);
        let head_dim = whole.map_or(self.count("hidden_size") / heads, |dim| dim as usize);
        let rows = values.len() / columns;
        let order = (0..rows).map(|row| {
            let (head, within) = (row / head_dim, row % head_dim);
            head * head_dim + within % 2 * (head_dim / 2) + within / 2
        });
        order
            .flat_map(|row| values[row * columns..][..columns].to_vec())
            .collect()
    }

    /// The keys' part of each head turned, and the values' as it is.
    fn split(&self, values: &[f32]) -> [(&'static str, Vec<u64>, Vec<f32>); 2] {
        let [heads, rank, nope, value] = [
            "num_attention_heads",
            "kv_lora_rank",
            "qk_nope_head_dim",
            "v_head_dim",
        ]
        .map(|key| self.count(key));
        let row = |head: usize, row: usize| &values[(head * (nope + value) + row) * rank..][..rank];
        let keys = (0..heads).flat_map(|head| {
            (0..rank).flat_map(move |at| (0..nope).map(move |of| row(head, of)[at]))
        });
        let rest = (0..heads)
            .flat_map(|head| (0..value).flat_map(move |of| row(head, nope + of).to_vec()));
        let dims = |sizes: [usize; 3]| sizes.map(|size| size as u64).to_vec();
        [
            ("attn_k_b.weight", dims([nope, rank, heads]), keys.collect()),
            (
                "attn_v_b.weight",
                dims([rank, value, heads]),
                rest.collect(),
            ),
        ]
    }

    pub fn file(&self) -> GgufFile {
        let architecture = self.conversion.architecture;
        let mut file = GgufFile::default().meta("general.architecture", Meta::Text(architecture));
        for (there, here, is_count) in COMMON.iter().chain(self.conversion.settings) {
            let Some(number) = self.config.get(*here).and_then(Value::as_f64) else {
                continue;
            };
            // Heads of latent attention have several widths.
            if *here == "head_dim" && self.config.contains_key("kv_lora_rank") {
                continue;
            }
            let meta = match is_count {
                true => Meta::U32(number as u32),
                false => Meta::F32(number as f32),
            };
            file = file.meta(&format!("{architecture}.{there}"), meta);
        }
        for (there, meta) in (self.conversion.made)(&self.config) {
            file = file.meta(&format!("{architecture}.{there}"), meta);
        }
        for (there, here) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
        ] {
            if let Some((dims, values)) = self.tensor(here) {
                file = file.tensor(Tensor::f32(there, &dims, &values));
            }
        }
        for layer in 0..self.count("num_hidden_layers") {
            for (there, here) in LAYER.iter().chain(&MORE_OF_LAYER) {
                let Some(mut tensor) = self.tensor(&format!("model.layers.{layer}.{here}")) else {
                    continue;
                };
                if here.ends_with("input_linear.weight") {
                    tensor = self.half(there, tensor);
                }
                let (dims, mut values) = tensor;
                if self.conversion.split && there.starts_with("attn_kv_b") {
                    for (there, dims, values) in self.split(&values) {
                        let name = format!("blk.{layer}.{there}");
                        file = file.tensor(Tensor::f32(&name, &dims, &values));
                    }
                    continue;
                }
                if self.conversion.neighbours && ["attn_q.weight", "attn_k.weight"].contains(there)
                {
                    values = self.reordered(dims[0] as usize, &values);
                }
                file = file.tensor(Tensor::f32(&format!("blk.{layer}.{there}"), &dims, &values));
            }
        }
        with_tokenizer(file, self.count("vocab_size"))
    }
}

/// A vocabulary of that many tokens, which says nothing.
fn with_tokenizer(file: GgufFile, vocab: usize) -> GgufFile {
    let letters = ('!'..='~').map(String::from);
    let tokens: Vec<String> = letters.take(vocab).collect();
    assert_eq!(tokens.len(), vocab, "the vocabulary is small");
    file.meta("tokenizer.ggml.model", Meta::Text("gpt2"))
        .meta("tokenizer.ggml.pre", Meta::Text("smollm"))
        .meta("tokenizer.ggml.tokens", Meta::Texts(&tokens))
        .meta("tokenizer.ggml.token_type", Meta::I32s(&vec![1; vocab]))
        .meta("tokenizer.ggml.merges", Meta::Texts(&[]))
}

pub fn converter(name: &str, conversion: Conversion) -> Converter {
    let path = checkpoint(name);
    Converter {
        weights: SafetensorsFolder::open(&path).expect("it is in git"),
        config: read_config(&path).expect("it is in git"),
        conversion,
    }
}

pub fn check(name: &str, conversion: Conversion) {
    let folder = tempdir().expect("temporary folders can be made");
    let source = converter(name, conversion).file().write(&folder);
    let loaded = Loaded::new(&source, Precision::uniform(Storage::F32));
    check_logits(&format!("{name} as GGUF"), &loaded, &Golden::read(name));
}

#[test]
fn llama() {
    check("llama", LLAMA);
}

#[test]
fn llama_with_a_window() {
    let settings = &[("attention.sliding_window", "sliding_window", true)];
    check("mistral", Conversion { settings, ..LLAMA });
}

#[test]
fn mixtral() {
    let settings = &[EXPERT_COUNTS, ("expert_count", "num_local_experts", true)];
    check("mixtral", Conversion { settings, ..LLAMA });
}

#[test]
fn qwen2() {
    let conversion = Conversion {
        architecture: "qwen2",
        neighbours: false,
        ..LLAMA
    };
    check("qwen2", conversion);
}

#[test]
fn qwen2_moe() {
    let conversion = Conversion {
        architecture: "qwen2moe",
        neighbours: false,
        settings: &[
            EXPERT_COUNTS,
            ("expert_count", "num_experts", true),
            ("expert_feed_forward_length", "moe_intermediate_size", true),
            (
                "expert_shared_feed_forward_length",
                "shared_expert_intermediate_size",
                true,
            ),
        ],
        ..LLAMA
    };
    check("qwen2_moe", conversion);
}

#[test]
fn qwen3() {
    let conversion = Conversion {
        architecture: "qwen3",
        neighbours: false,
        ..LLAMA
    };
    check("qwen3", conversion);
}

#[test]
fn olmoe() {
    let conversion = Conversion {
        architecture: "olmoe",
        neighbours: false,
        settings: &[EXPERT_COUNTS, ("expert_count", "num_experts", true)],
        ..LLAMA
    };
    check("olmoe", conversion);
}

#[test]
fn granite_moe_with_and_without_a_shared_expert() {
    for name in ["granitemoe", "granitemoeshared"] {
        let conversion = Conversion {
            architecture: "granitemoe",
            neighbours: true,
            settings: &[
                EXPERT_COUNTS,
                ("expert_count", "num_local_experts", true),
                (
                    "expert_shared_feed_forward_length",
                    "shared_intermediate_size",
                    true,
                ),
                ("attention.scale", "attention_multiplier", false),
                ("embedding_scale", "embedding_multiplier", false),
                ("residual_scale", "residual_multiplier", false),
                ("logit_scale", "logits_scaling", false),
            ],
            ..LLAMA
        };
        check(name, conversion);
    }
}

#[test]
fn qwen3_moe() {
    let conversion = Conversion {
        architecture: "qwen3moe",
        neighbours: false,
        settings: &[
            EXPERT_COUNTS,
            ("expert_count", "num_local_experts", true),
            ("expert_feed_forward_length", "moe_intermediate_size", true),
        ],
        made: |config| yarn(&config["rope_parameters"], false),
        ..LLAMA
    };
    check("qwen3_moe-sparse", conversion);
}

/// Stretched positions, as far as they are told.
pub fn yarn(rope: &Value, latent: bool) -> Settings {
    let number = |key: &str| rope[key].as_f64().map(|number| number as f32);
    let Some(factor) = number("factor") else {
        return Vec::new();
    };
    let first = number("original_max_position_embeddings").expect("it is there");
    let mut settings = vec![
        ("rope.scaling.type", Meta::Text("yarn")),
        ("rope.scaling.factor", Meta::F32(factor)),
        (
            "rope.scaling.original_context_length",
            Meta::U32(first as u32),
        ),
    ];
    if latent {
        let slope = 0.1 * number("mscale_all_dim").expect("it is there");
        settings.push(("rope.scaling.yarn_log_multiplier", Meta::F32(slope)));
    }
    settings
}
