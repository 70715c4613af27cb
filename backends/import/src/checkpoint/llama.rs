//! Dense Llama checkpoints in GGUF (architecture `llama`).

use super::{
    CONTEXT_TOKENS_MAX, CheckpointError, LAYER_COUNT_MAX, LayerRole, LayerSource, ModelConfig,
    Role, VOCAB_MAX, WIDTH_MAX,
};
use crate::gguf::{Gguf, Metadata, required};

const ARCHITECTURE: &str = "llama";
const ROPE_BASE_DEFAULT: f64 = 10_000.0;
/// Keys that change the computation, with the only values under which they do not.
const NEUTRAL_KEYS: [(&str, Neutral); 5] = [
    ("llama.expert_count", Neutral::Zero),
    ("llama.rope.scaling.type", Neutral::Text("none")),
    ("llama.attention.sliding_window", Neutral::Zero),
    ("llama.attention.causal", Neutral::True),
    ("llama.rope.scale_linear", Neutral::One),
];

enum Neutral {
    Zero,
    One,
    True,
    Text(&'static str),
}

/// A dense Llama checkpoint in an open GGUF file.
pub struct LlamaGguf<'a> {
    gguf: &'a Gguf,
    config: ModelConfig,
}

impl<'a> LlamaGguf<'a> {
    /// Checks architecture, constants, and that exactly the expected tensors are there with
    /// the expected shapes.
    pub fn new(gguf: &'a Gguf) -> Result<Self, CheckpointError> {
        let metadata = gguf.metadata();
        let name = required(
            "general.architecture",
            metadata.text("general.architecture")?,
        )?;
        if name != ARCHITECTURE {
            return Err(CheckpointError::UnsupportedArchitecture {
                name: name.to_owned(),
            });
        }
        refuse_features(metadata)?;
        let config = read_config(gguf)?;
        let checkpoint = Self { gguf, config };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let mut expected = vec![Role::Embedding, Role::FinalNorm];
        if !self.config.tied_head {
            expected.push(Role::Head);
        }
        for layer in 0..self.config.layers {
            expected.extend(LAYER_TENSORS.map(|(role, _)| Role::Layer(layer, role)));
        }
        for &role in &expected {
            self.shape(role)?;
        }
        let names: std::collections::BTreeSet<String> =
            expected.into_iter().map(tensor_name).collect();
        match self
            .gguf
            .tensors()
            .find(|tensor| !names.contains(&tensor.name))
        {
            Some(tensor) => Err(CheckpointError::UnknownTensor {
                tensor: tensor.name.clone(),
                architecture: ARCHITECTURE,
            }),
            None => Ok(()),
        }
    }

    fn expected_shape(&self, role: Role) -> (usize, usize) {
        let config = &self.config;
        match role {
            Role::Embedding | Role::Head => (config.vocab, config.hidden),
            Role::FinalNorm => (1, config.hidden),
            Role::Layer(_, role) => match role {
                LayerRole::AttentionNorm | LayerRole::FeedForwardNorm => (1, config.hidden),
                LayerRole::Query => (config.query_width(), config.hidden),
                LayerRole::Key | LayerRole::Value => (config.kv_width(), config.hidden),
                LayerRole::AttentionOutput => (config.hidden, config.query_width()),
                LayerRole::Gate | LayerRole::Up => (config.neurons, config.hidden),
                LayerRole::Down => (config.hidden, config.neurons),
            },
        }
    }
}

impl LayerSource for LlamaGguf<'_> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn shape(&self, role: Role) -> Result<(usize, usize), CheckpointError> {
        let tensor = self.gguf.tensor(&tensor_name(role))?;
        let expected = self.expected_shape(role);
        let found = (tensor.rows, tensor.columns);
        if found == expected {
            Ok(found)
        } else {
            Err(CheckpointError::WrongShape {
                tensor: tensor.name.clone(),
                expected,
                found,
            })
        }
    }

    fn read_rows(&self, role: Role, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        let tensor = self.gguf.tensor(&tensor_name(role))?;
        if !matches!(role, Role::Layer(_, LayerRole::Query | LayerRole::Key)) {
            return Ok(self.gguf.read_rows(tensor, first, out)?);
        }
        for (offset, row) in out.chunks_exact_mut(tensor.columns).enumerate() {
            let stored = stored_row(first + offset, self.config.head_dim);
            self.gguf.read_rows(tensor, stored, row)?;
        }
        Ok(())
    }
}

/// Where llama.cpp's converter stores row `row` of a rotary projection: within a head it
/// puts the two elements of a rotary pair next to each other.
pub(crate) fn stored_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    let (half, pair) = (within / (head_dim / 2), within % (head_dim / 2));
    head * head_dim + 2 * pair + half
}

const LAYER_TENSORS: [(LayerRole, &str); 9] = [
    (LayerRole::AttentionNorm, "attn_norm"),
    (LayerRole::Query, "attn_q"),
    (LayerRole::Key, "attn_k"),
    (LayerRole::Value, "attn_v"),
    (LayerRole::AttentionOutput, "attn_output"),
    (LayerRole::FeedForwardNorm, "ffn_norm"),
    (LayerRole::Gate, "ffn_gate"),
    (LayerRole::Up, "ffn_up"),
    (LayerRole::Down, "ffn_down"),
];

fn tensor_name(role: Role) -> String {
    match role {
        Role::Embedding => "token_embd.weight".to_owned(),
        Role::Head => "output.weight".to_owned(),
        Role::FinalNorm => "output_norm.weight".to_owned(),
        Role::Layer(layer, role) => {
            let name = LAYER_TENSORS
                .iter()
                .find_map(|&(known, name)| (known == role).then_some(name))
                .expect("LAYER_TENSORS lists every LayerRole");
            format!("blk.{layer}.{name}.weight")
        }
    }
}

fn refuse_features(metadata: &Metadata) -> Result<(), CheckpointError> {
    for (key, neutral) in NEUTRAL_KEYS {
        let is_neutral = match neutral {
            Neutral::Zero => metadata.integer(key)?.is_none_or(|value| value == 0),
            Neutral::One => metadata.float(key)?.is_none_or(|value| value == 1.0),
            Neutral::True => metadata.bool(key)?.unwrap_or(true),
            Neutral::Text(neutral) => metadata.text(key)?.is_none_or(|value| value == neutral),
        };
        if !is_neutral {
            return Err(CheckpointError::UnsupportedFeature {
                key: key.to_owned(),
            });
        }
    }
    Ok(())
}

fn read_config(gguf: &Gguf) -> Result<ModelConfig, CheckpointError> {
    let metadata = gguf.metadata();
    let size = |name: &str, max: usize| -> Result<Option<usize>, CheckpointError> {
        let key = format!("{ARCHITECTURE}.{name}");
        let Some(value) = metadata.integer(&key)? else {
            return Ok(None);
        };
        match usize::try_from(value) {
            Ok(size) if (1..=max).contains(&size) => Ok(Some(size)),
            _ => Err(out_of_range(name, value as f64)),
        }
    };
    let needed = |name: &str, max: usize| -> Result<usize, CheckpointError> {
        Ok(required(
            &format!("{ARCHITECTURE}.{name}"),
            size(name, max)?,
        )?)
    };
    let hidden = needed("embedding_length", WIDTH_MAX)?;
    let heads = needed("attention.head_count", WIDTH_MAX)?;
    let kv_heads = size("attention.head_count_kv", WIDTH_MAX)?.unwrap_or(heads);
    let head_dim = match size("attention.key_length", WIDTH_MAX)? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(out_of_range("attention.head_count", heads as f64)),
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(out_of_range("attention.head_count_kv", kv_heads as f64));
    }
    if head_dim % 2 != 0 || heads * head_dim > WIDTH_MAX {
        return Err(out_of_range("attention.key_length", head_dim as f64));
    }
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = size(name, WIDTH_MAX)?.filter(|&other| other != head_dim) {
            return Err(out_of_range(name, other as f64));
        }
    }
    let vocab = gguf.tensor(&tensor_name(Role::Embedding))?.rows;
    if vocab > VOCAB_MAX || size("vocab_size", VOCAB_MAX)?.is_some_and(|size| size != vocab) {
        return Err(out_of_range("vocab_size", vocab as f64));
    }
    Ok(ModelConfig {
        layers: needed("block_count", LAYER_COUNT_MAX)?,
        hidden,
        neurons: needed("feed_forward_length", WIDTH_MAX)?,
        heads,
        kv_heads,
        head_dim,
        vocab,
        context_tokens: needed("context_length", CONTEXT_TOKENS_MAX)?,
        rope_base: positive(metadata, "rope.freq_base", Some(ROPE_BASE_DEFAULT))?,
        norm_epsilon: positive(metadata, "attention.layer_norm_rms_epsilon", None)?,
        tied_head: gguf.tensor(&tensor_name(Role::Head)).is_err(),
    })
}

/// The positive, finite float at `llama.{name}`.
fn positive(metadata: &Metadata, name: &str, default: Option<f64>) -> Result<f32, CheckpointError> {
    let key = format!("{ARCHITECTURE}.{name}");
    let value = required(&key, metadata.float(&key)?.or(default))?;
    if value.is_finite() && value > 0.0 && value <= f64::from(f32::MAX) {
        Ok(value as f32)
    } else {
        Err(out_of_range(name, value))
    }
}

fn out_of_range(name: &str, value: f64) -> CheckpointError {
    CheckpointError::OutOfRange {
        key: format!("{ARCHITECTURE}.{name}"),
        value,
    }
}
