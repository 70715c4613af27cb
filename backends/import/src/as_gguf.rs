//! A plain Llama model as GGUF that llama.cpp runs: of architecture `llama` as it is, of `granitemoe` where
//! it is carved. Weights are the codes that the model folder has: ggml's Q8_0 and Q4_0. Vocabulary and
//! rotary layout are those of the source.

mod gguf_file;

use crate::{
    ImportError, Obstacle,
    checkpoint::{CheckpointError, LayerRole, LayerSource, Role, Rows, SourceRows, stored_row},
    emit::Precision,
    feed_forward::{FeedForward, Shared, feed_forward},
    folder::StagedFile,
    gguf::{Metadata, Value},
    progress::{Monitor, Stage},
    quantise::Storage,
    recipe::{MoeShape, Recipe},
};
use gguf_file::{GgufFile, Planned};

pub(crate) const MODEL_FILE: &str = "model.gguf";

const DENSE: &str = "llama";
const CARVED: &str = "granitemoe";

/// What the file is made from.
pub(crate) struct Parts<'a> {
    pub name: &'a str,
    pub metadata: &'a Metadata,
    pub source: &'a dyn LayerSource,
    pub recipe: Option<&'a Recipe>,
    pub precision: Precision,
}

/// Streams the model to `file`.
pub(crate) fn write(
    parts: &Parts<'_>,
    file: StagedFile,
    monitor: &mut Monitor<'_>,
) -> Result<StagedFile, ImportError> {
    let config = parts.source.config();
    let inexpressible = |obstacle| ImportError::Inexpressible { obstacle };
    if !config.tied_head {
        return Err(inexpressible(Obstacle::UntiedHead));
    }
    let mut index = Vec::new();
    index.extend(outer(parts)?.iter().map(Planned::entry));
    for layer in 0..config.layers {
        index.extend(decoder_layer(parts, layer)?.iter().map(Planned::entry));
    }
    let metadata = metadata(parts)?;
    let mut file = GgufFile::begin(file, &metadata, index)?;
    monitor.enter(Stage::Outer);
    file.append(outer(parts)?, monitor)?;
    for layer in 0..config.layers {
        monitor.enter(Stage::Layer {
            index: layer,
            count: config.layers,
        });
        file.append(decoder_layer(parts, layer)?, monitor)?;
    }
    Ok(file.finish())
}

/// llama.cpp's number for files whose matrices are mostly of a kind.
fn file_type(storage: Storage) -> u64 {
    match storage {
        Storage::F32 => 0,
        Storage::F16 => 1,
        Storage::Int4 => 2,
        Storage::Int8 => 7,
    }
}

fn metadata(parts: &Parts<'_>) -> Result<Vec<(String, Value)>, CheckpointError> {
    let config = parts.source.config();
    let count = |value: usize| Value::Unsigned(value as u64);
    let float = |value: f32| Value::Float(f64::from(value));
    let (architecture, neurons) = match parts.recipe {
        Some(recipe) => (CARVED, recipe.shape().expert_neurons),
        None => (DENSE, dense_neurons(parts)?),
    };
    let mut own = vec![
        ("block_count", count(config.layers)),
        ("context_length", count(config.context_tokens)),
        ("embedding_length", count(config.hidden)),
        ("feed_forward_length", count(neurons)),
        ("attention.head_count", count(config.heads)),
        ("attention.head_count_kv", count(config.kv_heads)),
        ("attention.key_length", count(config.head_dim)),
        ("attention.value_length", count(config.head_dim)),
        ("rope.freq_base", float(config.rope.base)),
        ("rope.dimension_count", count(config.head_dim)),
        (
            "attention.layer_norm_rms_epsilon",
            float(config.norm_epsilon),
        ),
        ("vocab_size", count(config.vocab)),
    ];
    own.extend(
        parts
            .recipe
            .map(|recipe| carved(recipe.shape(), config.head_dim))
            .into_iter()
            .flatten(),
    );
    let text = |value: &str| Value::Text(value.to_owned());
    let mut entries = vec![
        ("general.architecture".to_owned(), text(architecture)),
        ("general.name".to_owned(), text(parts.name)),
        (
            "general.file_type".to_owned(),
            Value::Unsigned(file_type(parts.precision.weights)),
        ),
        (
            "general.quantization_version".to_owned(),
            Value::Unsigned(2),
        ),
    ];
    entries.extend(
        own.into_iter()
            .map(|(key, value)| (format!("{architecture}.{key}"), value)),
    );
    entries.extend(
        parts
            .metadata
            .iter()
            .filter(|(key, _)| key.starts_with("tokenizer."))
            .map(|(key, value)| (key.to_owned(), value.clone())),
    );
    Ok(entries)
}

fn dense_neurons(parts: &Parts<'_>) -> Result<usize, CheckpointError> {
    Ok(SourceRows::new(parts.source, Role::Layer(0, LayerRole::Gate))?.rows())
}

/// What `granitemoe` says of experts and of its multipliers.
fn carved(moe: MoeShape, head_dim: usize) -> [(&'static str, Value); 7] {
    let count = |value: usize| Value::Unsigned(value as u64);
    let scale = f64::from((head_dim as f32).sqrt().recip());
    [
        ("expert_count", count(moe.experts)),
        ("expert_used_count", count(moe.experts_per_token)),
        (
            "expert_shared_feed_forward_length",
            count(moe.shared_neurons),
        ),
        ("logit_scale", Value::Float(1.0)),
        ("residual_scale", Value::Float(1.0)),
        ("embedding_scale", Value::Float(1.0)),
        ("attention.scale", Value::Float(scale)),
    ]
}

fn outer<'a>(parts: &Parts<'a>) -> Result<Vec<Planned<'a>>, CheckpointError> {
    let rows = |role| SourceRows::new(parts.source, role).map(Box::new);
    Ok(vec![
        Planned::matrix(
            "token_embd.weight".to_owned(),
            rows(Role::Embedding)?,
            parts.precision.head,
        ),
        Planned::vector("output_norm.weight".to_owned(), rows(Role::FinalNorm)?),
    ])
}

fn decoder_layer<'a>(parts: &Parts<'a>, layer: usize) -> Result<Vec<Planned<'a>>, CheckpointError> {
    let (source, precision) = (parts.source, parts.precision);
    let name = |tensor: &str| format!("blk.{layer}.{tensor}.weight");
    let rows = |role| SourceRows::new(source, Role::Layer(layer, role)).map(Box::new);
    let rotary = |role| -> Result<Box<dyn Rows + 'a>, CheckpointError> {
        Ok(Box::new(RotaryPairs {
            halves: rows(role)?,
            head_dim: source.config().head_dim,
        }))
    };
    let matrix = |tensor: &str, rows| Planned::matrix(name(tensor), rows, precision.weights);
    let experts = |tensor: &str, rows, count| {
        Planned::experts(name(tensor), rows, (count, precision.experts))
    };
    let mut planned = vec![
        Planned::vector(name("attn_norm"), rows(LayerRole::AttentionNorm)?),
        Planned::vector(name("ffn_norm"), rows(LayerRole::FeedForwardNorm)?),
        matrix("attn_q", rotary(LayerRole::Query)?),
        matrix("attn_k", rotary(LayerRole::Key)?),
        matrix("attn_v", rows(LayerRole::Value)?),
        matrix("attn_output", rows(LayerRole::AttentionOutput)?),
    ];
    match feed_forward(source, parts.recipe, layer)? {
        FeedForward::Dense(block) => planned.extend([
            matrix("ffn_gate", block.gate),
            matrix("ffn_up", block.up),
            matrix("ffn_down", block.down),
        ]),
        FeedForward::Moe(moe) => {
            let count = moe.shape.experts;
            planned.extend([
                Planned::matrix(name("ffn_gate_inp"), moe.router, Storage::F32),
                experts("ffn_gate_exps", moe.expert_gate, count),
                experts("ffn_up_exps", moe.expert_up, count),
                experts("ffn_down_exps", moe.expert_down, count),
            ]);
            if let Some(Shared { block, .. }) = moe.shared {
                planned.extend([
                    matrix("ffn_gate_shexp", block.gate),
                    matrix("ffn_up_shexp", block.up),
                    matrix("ffn_down_shexp", block.down),
                ]);
            }
        }
    }
    Ok(planned)
}

/// A rotary projection with the two elements of each pair next to each other, as llama.cpp
/// stores it.
struct RotaryPairs<'a> {
    halves: Box<SourceRows<'a>>,
    head_dim: usize,
}

impl Rows for RotaryPairs<'_> {
    fn rows(&self) -> usize {
        self.halves.rows()
    }
    fn columns(&self) -> usize {
        self.halves.columns()
    }
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        for (offset, row) in out.chunks_exact_mut(self.columns()).enumerate() {
            let (head, within) = (
                (first + offset) / self.head_dim,
                (first + offset) % self.head_dim,
            );
            let (pair, half) = (within / 2, within % 2);
            let apart = head * self.head_dim + half * (self.head_dim / 2) + pair;
            debug_assert_eq!(stored_row(apart, self.head_dim), first + offset);
            self.halves.read(apart, row)?;
        }
        Ok(())
    }
}
