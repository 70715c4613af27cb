//! A carved model as GGUF of architecture `granitemoe` with Q8_0 weights, which llama.cpp
//! runs. Weights, vocabulary and rotary layout are those of the source.

mod gguf_file;

use crate::{
    ImportError, Obstacle,
    checkpoint::{CheckpointError, LayerRole, LayerSource, Role, Rows, SourceRows, stored_row},
    feed_forward::{FeedForward, Shared, feed_forward},
    folder::StagedFile,
    gguf::{Metadata, Value},
    progress::{Monitor, Stage},
    recipe::{MoeShape, Recipe},
};
use gguf_file::{GgufFile, Planned};

pub(crate) const MODEL_FILE: &str = "model.gguf";

const ARCHITECTURE: &str = "granitemoe";
/// llama.cpp's number for files whose matrices are mostly Q8_0.
const FILE_TYPE_Q8_0: u64 = 7;

/// What the file is made from.
pub(crate) struct Parts<'a> {
    pub name: &'a str,
    pub metadata: &'a Metadata,
    pub source: &'a dyn LayerSource,
    pub recipe: Option<&'a Recipe>,
}

/// Streams the model to `file`.
pub(crate) fn write(
    parts: &Parts<'_>,
    file: StagedFile,
    monitor: &mut Monitor<'_>,
) -> Result<StagedFile, ImportError> {
    let (source, config) = (parts.source, parts.source.config());
    let inexpressible = |obstacle| ImportError::Inexpressible { obstacle };
    let recipe = parts
        .recipe
        .ok_or_else(|| inexpressible(Obstacle::DenseFeedForward))?;
    if !config.tied_head {
        return Err(inexpressible(Obstacle::UntiedHead));
    }
    let mut index = Vec::new();
    index.extend(outer(source)?.iter().map(Planned::entry));
    for layer in 0..config.layers {
        index.extend(
            decoder_layer(source, recipe, layer)?
                .iter()
                .map(Planned::entry),
        );
    }
    let metadata = metadata(parts, recipe.shape());
    let mut file = GgufFile::begin(file, &metadata, index)?;
    monitor.enter(Stage::Outer);
    file.append(outer(source)?, monitor)?;
    for layer in 0..config.layers {
        monitor.enter(Stage::Layer {
            index: layer,
            count: config.layers,
        });
        file.append(decoder_layer(source, recipe, layer)?, monitor)?;
    }
    Ok(file.finish())
}

fn metadata(parts: &Parts<'_>, moe: MoeShape) -> Vec<(String, Value)> {
    let config = parts.source.config();
    let count = |value: usize| Value::Unsigned(value as u64);
    let float = |value: f32| Value::Float(f64::from(value));
    let own = [
        ("block_count", count(config.layers)),
        ("context_length", count(config.context_tokens)),
        ("embedding_length", count(config.hidden)),
        ("feed_forward_length", count(moe.expert_neurons)),
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
        ("expert_count", count(moe.experts)),
        ("expert_used_count", count(moe.experts_per_token)),
        (
            "expert_shared_feed_forward_length",
            count(moe.shared_neurons),
        ),
        ("logit_scale", Value::Float(1.0)),
        ("residual_scale", Value::Float(1.0)),
        ("embedding_scale", Value::Float(1.0)),
        (
            "attention.scale",
            float((config.head_dim as f32).sqrt().recip()),
        ),
    ];
    let text = |value: &str| Value::Text(value.to_owned());
    let mut entries = vec![
        ("general.architecture".to_owned(), text(ARCHITECTURE)),
        ("general.name".to_owned(), text(parts.name)),
        (
            "general.file_type".to_owned(),
            Value::Unsigned(FILE_TYPE_Q8_0),
        ),
        (
            "general.quantization_version".to_owned(),
            Value::Unsigned(2),
        ),
    ];
    entries.extend(own.map(|(key, value)| (format!("{ARCHITECTURE}.{key}"), value)));
    entries.extend(
        parts
            .metadata
            .iter()
            .filter(|(key, _)| key.starts_with("tokenizer."))
            .map(|(key, value)| (key.to_owned(), value.clone())),
    );
    entries
}

fn outer(source: &dyn LayerSource) -> Result<Vec<Planned<'_>>, CheckpointError> {
    let rows = |role| SourceRows::new(source, role).map(Box::new);
    Ok(vec![
        Planned::matrix("token_embd.weight".to_owned(), rows(Role::Embedding)?),
        Planned::vector("output_norm.weight".to_owned(), rows(Role::FinalNorm)?),
    ])
}

fn decoder_layer<'a>(
    source: &'a dyn LayerSource,
    recipe: &'a Recipe,
    layer: usize,
) -> Result<Vec<Planned<'a>>, CheckpointError> {
    let name = |tensor: &str| format!("blk.{layer}.{tensor}.weight");
    let rows = |role| SourceRows::new(source, Role::Layer(layer, role)).map(Box::new);
    let rotary = |role| -> Result<Box<dyn Rows + 'a>, CheckpointError> {
        Ok(Box::new(RotaryPairs {
            halves: rows(role)?,
            head_dim: source.config().head_dim,
        }))
    };
    let mut planned = vec![
        Planned::vector(name("attn_norm"), rows(LayerRole::AttentionNorm)?),
        Planned::vector(name("ffn_norm"), rows(LayerRole::FeedForwardNorm)?),
        Planned::matrix(name("attn_q"), rotary(LayerRole::Query)?),
        Planned::matrix(name("attn_k"), rotary(LayerRole::Key)?),
        Planned::matrix(name("attn_v"), rows(LayerRole::Value)?),
        Planned::matrix(name("attn_output"), rows(LayerRole::AttentionOutput)?),
    ];
    if let FeedForward::Moe(moe) = feed_forward(source, Some(recipe), layer)? {
        let experts = moe.shape.experts;
        planned.extend([
            Planned::float_matrix(name("ffn_gate_inp"), moe.router),
            Planned::experts(name("ffn_gate_exps"), moe.expert_gate, experts),
            Planned::experts(name("ffn_up_exps"), moe.expert_up, experts),
            Planned::experts(name("ffn_down_exps"), moe.expert_down, experts),
        ]);
        if let Some(Shared { block, .. }) = moe.shared {
            planned.extend([
                Planned::matrix(name("ffn_gate_shexp"), block.gate),
                Planned::matrix(name("ffn_up_shexp"), block.up),
                Planned::matrix(name("ffn_down_shexp"), block.down),
            ]);
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
