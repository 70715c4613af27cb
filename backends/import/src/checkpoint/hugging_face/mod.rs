//! Hugging Face folders: `config.json` with safetensors.

mod blockwise;
mod experts;
mod names;
mod rope;
mod window;

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    Attention, CONTEXT_TOKENS_MAX, Checkpoint, CheckpointError, LAYER_COUNT_MAX, Latent,
    ModelConfig, Multipliers, QueryKeyNorm, TensorStore, VOCAB_MAX, WIDTH_MAX, keys::Keys,
};
use blockwise::Blockwise;

use crate::safetensors::{SafetensorsError, SafetensorsFolder, limits, read_required};

/// The file that describes the model.
pub const CONFIG_FILE: &str = "config.json";

/// Architectures that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    GraniteMoe,
    GraniteMoeShared,
    Mixtral,
    Olmoe,
    Qwen2Moe,
    Qwen3Moe,
    DeepseekV2,
    DeepseekV3,
}

const FAMILIES: [(&str, Family); 12] = [
    ("LlamaForCausalLM", Family::Llama),
    ("MistralForCausalLM", Family::Mistral),
    ("Qwen2ForCausalLM", Family::Qwen2),
    ("Qwen3ForCausalLM", Family::Qwen3),
    ("GraniteMoeForCausalLM", Family::GraniteMoe),
    ("GraniteMoeSharedForCausalLM", Family::GraniteMoeShared),
    ("MixtralForCausalLM", Family::Mixtral),
    ("OlmoeForCausalLM", Family::Olmoe),
    ("Qwen2MoeForCausalLM", Family::Qwen2Moe),
    ("Qwen3MoeForCausalLM", Family::Qwen3Moe),
    ("DeepseekV2ForCausalLM", Family::DeepseekV2),
    ("DeepseekV3ForCausalLM", Family::DeepseekV3),
];

impl Family {
    fn is_granite(self) -> bool {
        matches!(self, Self::GraniteMoe | Self::GraniteMoeShared)
    }

    fn is_qwen(self) -> bool {
        matches!(
            self,
            Self::Qwen2 | Self::Qwen3 | Self::Qwen2Moe | Self::Qwen3Moe
        )
    }

    fn is_deepseek(self) -> bool {
        matches!(self, Self::DeepseekV2 | Self::DeepseekV3)
    }
}

/// The checkpoint in an open folder whose `config.json` is `config`.
///
/// # Errors
/// Refuses, by name, architectures and settings that are not supported, and tensors that are
/// missing, of another shape than the settings imply, or without a place in the architecture.
pub fn open_hugging_face<'a>(
    folder: &'a SafetensorsFolder,
    config: &Map<String, Value>,
) -> Result<Checkpoint<'a>, CheckpointError> {
    let (architecture, family) = family(config)?;
    open(
        (folder, config),
        model_config(family, config)?,
        (architecture, family),
    )
}

/// The same of a checkpoint whose output head is not needed: it may have none.
///
/// # Errors
/// As [`open_hugging_face`].
pub fn open_hugging_face_without_head<'a>(
    folder: &'a SafetensorsFolder,
    config: &Map<String, Value>,
) -> Result<Checkpoint<'a>, CheckpointError> {
    let (architecture, family) = family(config)?;
    let model = ModelConfig {
        tied_head: true,
        ..model_config(family, config)?
    };
    open((folder, config), model, (architecture, family))
}

fn open<'a>(
    (folder, written): (&'a SafetensorsFolder, &Map<String, Value>),
    config: ModelConfig,
    (architecture, family): (&'static str, Family),
) -> Result<Checkpoint<'a>, CheckpointError> {
    let store: Box<dyn TensorStore> = match blockwise::block(written)? {
        None => Box::new(folder),
        Some(block) => Box::new(Blockwise::new(folder, block)),
    };
    let (tied, layers) = (config.tied_head, config.layers);
    let names = names::Names::new(family, &config, names::root(folder.names()));
    let place = Box::new(move |role| names.place(role));
    let surplus = move |name: &str| names::is_surplus(name, (family, tied, layers));
    Checkpoint::new(store, config, (architecture, place), &surplus)
}

/// Reads the `config.json` of `folder`.
pub fn read_config(folder: &Path) -> Result<Map<String, Value>, SafetensorsError> {
    let path = folder.join(CONFIG_FILE);
    let text = read_required(&path, limits::CONFIG_BYTES_MAX)?;
    serde_json::from_slice(&text).map_err(|source| SafetensorsError::Json { path, source })
}

impl TensorStore for SafetensorsFolder {
    fn tensor_shape(&self, name: &str) -> Result<(usize, usize), CheckpointError> {
        Ok(self.shape(name)?)
    }

    fn tensor_rows(
        &self,
        name: &str,
        first: usize,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        Ok(self.read_rows(name, first, out)?)
    }

    fn tensor_names(&self) -> Vec<&str> {
        self.names().collect()
    }
}

fn family(config: &Map<String, Value>) -> Result<(&'static str, Family), CheckpointError> {
    let name = match config.get("architectures") {
        Some(Value::Array(names)) if names.len() == 1 => names[0].as_str(),
        _ => None,
    };
    let name = name.ok_or_else(|| CheckpointError::WrongType {
        key: "architectures".to_owned(),
        expected: "list of one name",
    })?;
    FAMILIES
        .into_iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| CheckpointError::UnsupportedArchitecture {
            name: name.to_owned(),
        })
}

fn model_config(
    family: Family,
    config: &Map<String, Value>,
) -> Result<ModelConfig, CheckpointError> {
    let keys = Keys::Json(config);
    let context_tokens = keys.needed("max_position_embeddings", CONTEXT_TOKENS_MAX)?;
    refuse_features(config, &keys)?;
    let layers = keys.needed("num_hidden_layers", LAYER_COUNT_MAX)?;
    let hidden = keys.needed("hidden_size", WIDTH_MAX)?;
    let heads = keys.needed("num_attention_heads", WIDTH_MAX)?;
    let latent = match family.is_deepseek() {
        true => Some(latent(&keys)?),
        false => None,
    };
    let (kv_heads, head_dim) = match latent {
        Some(latent) => (heads, latent.nope_dim + latent.rope_dim),
        None => plain_heads(&keys, hidden, heads)?,
    };
    if heads * head_dim > WIDTH_MAX {
        return Err(keys.out_of_range("num_attention_heads", heads as f64));
    }
    let rotary_dim = latent.map_or(head_dim, |latent| latent.rope_dim);
    if rotary_dim % 2 != 0 {
        return Err(keys.out_of_range("head_dim", rotary_dim as f64));
    }
    let experts = experts::experts(family, config, layers)?;
    let has_dense = experts
        .as_ref()
        .is_none_or(|experts| experts.in_layer.contains(&false));
    let (rope, rope_scale) = rope::rope(family, config, context_tokens)?;
    let plain_scale = (head_dim as f32).sqrt().recip();
    let granite_scale = match family.is_granite() {
        true => Some(keys.needed_positive("attention_multiplier")?),
        false => None,
    };
    Ok(ModelConfig {
        layers,
        hidden,
        neurons: match has_dense {
            true => keys.needed("intermediate_size", WIDTH_MAX)?,
            false => 0,
        },
        heads,
        kv_heads,
        head_dim,
        vocab: keys.needed("vocab_size", VOCAB_MAX)?,
        context_tokens,
        rope,
        norm_epsilon: keys.needed_positive("rms_norm_eps")?,
        tied_head: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        attention: Attention {
            scale: granite_scale.unwrap_or(plain_scale * rope_scale),
            latent,
            window: window::window(family, config, (layers, context_tokens))?,
            ..attention(family, &keys)?
        },
        multipliers: multipliers(family, &keys)?,
        experts,
    })
}

fn plain_heads(
    keys: &Keys<'_>,
    hidden: usize,
    heads: usize,
) -> Result<(usize, usize), CheckpointError> {
    let kv_heads = keys
        .size("num_key_value_heads", WIDTH_MAX)?
        .unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.out_of_range("num_key_value_heads", kv_heads as f64));
    }
    match keys.size("head_dim", WIDTH_MAX)? {
        Some(head_dim) => Ok((kv_heads, head_dim)),
        None if hidden.is_multiple_of(heads) => Ok((kv_heads, hidden / heads)),
        None => Err(keys.out_of_range("num_attention_heads", heads as f64)),
    }
}

fn latent(keys: &Keys<'_>) -> Result<Latent, CheckpointError> {
    let latent = Latent {
        query_rank: keys.size("q_lora_rank", WIDTH_MAX)?,
        kv_rank: keys.needed("kv_lora_rank", WIDTH_MAX)?,
        nope_dim: keys.needed("qk_nope_head_dim", WIDTH_MAX)?,
        rope_dim: keys.needed("qk_rope_head_dim", WIDTH_MAX)?,
        value_dim: keys.needed("v_head_dim", WIDTH_MAX)?,
    };
    // Values lie in a cache as wide as that of keys.
    if latent.value_dim > latent.nope_dim + latent.rope_dim {
        return Err(keys.out_of_range("v_head_dim", latent.value_dim as f64));
    }
    Ok(latent)
}

/// Biases and norms of attention, which is plain otherwise.
fn attention(family: Family, keys: &Keys<'_>) -> Result<Attention, CheckpointError> {
    let everywhere = keys.flag("attention_bias")?.unwrap_or(false);
    if family.is_deepseek() && everywhere {
        return Err(keys.unsupported("attention_bias"));
    }
    let (input_bias, output_bias) = match family {
        Family::Qwen2 => (true, false),
        Family::Qwen2Moe => (keys.flag("qkv_bias")?.unwrap_or(true), false),
        Family::Mistral | Family::Mixtral => (false, false),
        _ => (everywhere, everywhere),
    };
    Ok(Attention {
        input_bias,
        output_bias,
        norm: match family {
            Family::Qwen3 | Family::Qwen3Moe => QueryKeyNorm::PerHead,
            Family::Olmoe => QueryKeyNorm::Whole,
            _ => QueryKeyNorm::None,
        },
        ..Attention::default()
    })
}

fn multipliers(family: Family, keys: &Keys<'_>) -> Result<Multipliers, CheckpointError> {
    if !family.is_granite() {
        return Ok(Multipliers::default());
    }
    let factor = |name| Ok::<_, CheckpointError>(keys.positive(name)?.unwrap_or(1.0));
    Ok(Multipliers {
        embedding: factor("embedding_multiplier")?,
        residual: factor("residual_multiplier")?,
        logits: factor("logits_scaling")?.recip(),
    })
}

/// Refuses settings that change the computation in ways that are not expressed here.
fn refuse_features(config: &Map<String, Value>, keys: &Keys<'_>) -> Result<(), CheckpointError> {
    match keys.text("hidden_act")? {
        Some("silu") | None => {}
        Some(other) => return Err(keys.unsupported_value("hidden_act", other)),
    }
    let is_set = |name: &str| config.get(name).is_some_and(|value| !value.is_null());
    if is_set("clip_qkv") {
        return Err(keys.unsupported("clip_qkv"));
    }
    if keys.flag("mlp_bias")? == Some(true) {
        return Err(keys.unsupported("mlp_bias"));
    }
    if keys
        .number("partial_rotary_factor")?
        .is_some_and(|part| part != 1.0)
    {
        return Err(keys.unsupported("partial_rotary_factor"));
    }
    Ok(())
}
