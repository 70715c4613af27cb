//! GGUF checkpoints: architectures by llama.cpp's names for settings and tensors.

use super::{
    Attention, CONTEXT_TOKENS_MAX, Checkpoint, CheckpointError, Experts, LAYER_COUNT_MAX,
    LayerRole, ModelConfig, Multipliers, QueryKeyNorm, Role, Rope, RopeScaling, Routing,
    SlidingWindow, TensorStore, VOCAB_MAX, WIDTH_MAX, keys::Keys, place::Place,
};
use crate::{
    gguf::{Gguf, required},
    recipe::EXPERT_COUNT_MAX,
};

const ROPE_BASE_DEFAULT: f32 = 10_000.0;
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";

/// What is particular to an architecture.
struct Family {
    name: &'static str,
    /// Query and key projections are stored with rotary pairs as neighbours.
    neighbours: bool,
    input_bias: bool,
    norm: QueryKeyNorm,
    experts: Option<ExpertFamily>,
}

/// What is particular to an architecture's Mixture of Experts.
#[derive(Clone, Copy)]
struct ExpertFamily {
    /// Whether dense checkpoints have the same name.
    optional: bool,
    /// Where the width of experts is; the dense width where there is no such key.
    width_key: &'static str,
    normalised: bool,
    shared: Shared,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shared {
    None,
    /// Where it has a width.
    Optional,
    Switched,
}

const PLAIN: Family = Family {
    name: "llama",
    neighbours: false,
    input_bias: false,
    norm: QueryKeyNorm::None,
    experts: None,
};

const PLAIN_EXPERTS: ExpertFamily = ExpertFamily {
    optional: false,
    width_key: "feed_forward_length",
    normalised: true,
    shared: Shared::None,
};

const FAMILIES: [Family; 7] = [
    Family {
        neighbours: true,
        // Mixtral goes by this name too.
        experts: Some(ExpertFamily {
            optional: true,
            ..PLAIN_EXPERTS
        }),
        ..PLAIN
    },
    Family {
        name: "qwen2",
        input_bias: true,
        ..PLAIN
    },
    Family {
        name: "qwen3",
        norm: QueryKeyNorm::PerHead,
        ..PLAIN
    },
    Family {
        name: "qwen2moe",
        input_bias: true,
        experts: Some(ExpertFamily {
            width_key: "expert_feed_forward_length",
            normalised: false,
            shared: Shared::Switched,
            ..PLAIN_EXPERTS
        }),
        ..PLAIN
    },
    Family {
        name: "qwen3moe",
        norm: QueryKeyNorm::PerHead,
        experts: Some(ExpertFamily {
            width_key: "expert_feed_forward_length",
            ..PLAIN_EXPERTS
        }),
        ..PLAIN
    },
    Family {
        name: "olmoe",
        norm: QueryKeyNorm::Whole,
        experts: Some(ExpertFamily {
            normalised: false,
            ..PLAIN_EXPERTS
        }),
        ..PLAIN
    },
    Family {
        name: "granitemoe",
        neighbours: true,
        experts: Some(ExpertFamily {
            shared: Shared::Optional,
            ..PLAIN_EXPERTS
        }),
        ..PLAIN
    },
];

/// The checkpoint in an open GGUF file.
///
/// # Errors
/// Refuses, by name, architectures and settings that are not supported, and tensors that are
/// missing, of another shape than the settings imply, or without a place in the architecture.
pub fn open_gguf(gguf: &Gguf) -> Result<Checkpoint<'_>, CheckpointError> {
    let metadata = gguf.metadata();
    let name = required(
        "general.architecture",
        metadata.text("general.architecture")?,
    )?;
    let family = FAMILIES.iter().find(|family| family.name == name);
    let family = family.ok_or_else(|| CheckpointError::UnsupportedArchitecture {
        name: name.to_owned(),
    })?;
    let keys = Keys::Gguf(metadata, family.name);
    refuse_features(&keys)?;
    let config = model_config(gguf, family, &keys)?;
    let head_dim = config.head_dim;
    let place = Box::new(move |role| place(role, family.neighbours.then_some(head_dim)));
    Checkpoint::new(Box::new(gguf), config, (family.name, place), &|_| false)
}

impl TensorStore for Gguf {
    fn tensor_shape(&self, name: &str) -> Result<(usize, usize), CheckpointError> {
        let tensor = self.tensor(name)?;
        Ok((tensor.rows, tensor.columns))
    }

    fn tensor_rows(
        &self,
        name: &str,
        first: usize,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        Ok(self.read_rows(self.tensor(name)?, first, out)?)
    }

    fn tensor_names(&self) -> Vec<&str> {
        self.tensors().map(|tensor| tensor.name.as_str()).collect()
    }
}

fn place(role: Role, neighbours: Option<usize>) -> Place {
    let (layer, role) = match role {
        Role::Embedding => return Place::whole(EMBEDDING.to_owned()),
        Role::Head => return Place::whole(HEAD.to_owned()),
        Role::FinalNorm => return Place::whole("output_norm.weight".to_owned()),
        Role::Layer(layer, role) => (layer, role),
    };
    let name = match role {
        LayerRole::AttentionNorm => "attn_norm.weight",
        LayerRole::Query => "attn_q.weight",
        LayerRole::Key => "attn_k.weight",
        LayerRole::Value => "attn_v.weight",
        LayerRole::QueryBias => "attn_q.bias",
        LayerRole::KeyBias => "attn_k.bias",
        LayerRole::ValueBias => "attn_v.bias",
        LayerRole::QueryNorm => "attn_q_norm.weight",
        LayerRole::KeyNorm => "attn_k_norm.weight",
        LayerRole::QueryDown => "attn_q_a.weight",
        LayerRole::QueryDownNorm => "attn_q_a_norm.weight",
        LayerRole::KvDown => "attn_kv_a_mqa.weight",
        LayerRole::KvDownNorm => "attn_kv_a_norm.weight",
        LayerRole::KvUp => "attn_kv_b.weight",
        LayerRole::AttentionOutput => "attn_output.weight",
        LayerRole::OutputBias => "attn_output.bias",
        LayerRole::FeedForwardNorm => "ffn_norm.weight",
        LayerRole::Gate => "ffn_gate.weight",
        LayerRole::Up => "ffn_up.weight",
        LayerRole::Down => "ffn_down.weight",
        LayerRole::Router => "ffn_gate_inp.weight",
        LayerRole::RouterBias => "exp_probs_b.bias",
        LayerRole::ExpertGate => "ffn_gate_exps.weight",
        LayerRole::ExpertUp => "ffn_up_exps.weight",
        LayerRole::ExpertDown => "ffn_down_exps.weight",
        LayerRole::SharedGate => "ffn_gate_shexp.weight",
        LayerRole::SharedUp => "ffn_up_shexp.weight",
        LayerRole::SharedDown => "ffn_down_shexp.weight",
        LayerRole::SharedSwitch => "ffn_gate_inp_shexp.weight",
    };
    let rotated = matches!(role, LayerRole::Query | LayerRole::Key);
    Place {
        neighbours: neighbours.filter(|_| rotated),
        ..Place::whole(format!("blk.{layer}.{name}"))
    }
}

/// Refuses settings that change the computation in ways that are not expressed here.
fn refuse_features(keys: &Keys<'_>) -> Result<(), CheckpointError> {
    let neutral = [
        (
            "attention.sliding_window_pattern",
            !keys.is_set("attention.sliding_window_pattern"),
        ),
        (
            "attention.causal",
            keys.flag("attention.causal")?.unwrap_or(true),
        ),
        (
            "rope.scale_linear",
            keys.number("rope.scale_linear")?
                .is_none_or(|scale| scale == 1.0),
        ),
        (
            "attention.clamp_kqv",
            keys.number("attention.clamp_kqv")?
                .is_none_or(|clamp| clamp == 0.0),
        ),
        (
            "expert_weights_scale",
            keys.number("expert_weights_scale")?
                .is_none_or(|scale| scale == 1.0 || scale == 0.0),
        ),
    ];
    match neutral.into_iter().find(|(_, is_neutral)| !is_neutral) {
        None => Ok(()),
        Some((name, _)) => Err(keys.unsupported(name)),
    }
}

fn model_config(
    gguf: &Gguf,
    family: &Family,
    keys: &Keys<'_>,
) -> Result<ModelConfig, CheckpointError> {
    let layers = keys.needed("block_count", LAYER_COUNT_MAX)?;
    let hidden = keys.needed("embedding_length", WIDTH_MAX)?;
    let (heads, kv_heads, head_dim) = heads(keys, hidden)?;
    let vocab = gguf.tensor(EMBEDDING)?.rows;
    if vocab > VOCAB_MAX
        || keys
            .size("vocab_size", VOCAB_MAX)?
            .is_some_and(|size| size != vocab)
    {
        return Err(keys.out_of_range("vocab_size", vocab as f64));
    }
    let experts = experts(family, keys, layers)?;
    let factor = |name| Ok::<_, CheckpointError>(keys.positive(name)?.unwrap_or(1.0));
    let plain_scale = (head_dim as f32).sqrt().recip();
    Ok(ModelConfig {
        layers,
        hidden,
        neurons: match experts {
            Some(_) => 0,
            None => keys.needed("feed_forward_length", WIDTH_MAX)?,
        },
        heads,
        kv_heads,
        head_dim,
        vocab,
        context_tokens: keys.needed("context_length", CONTEXT_TOKENS_MAX)?,
        rope: rope(keys)?,
        norm_epsilon: keys.needed_positive("attention.layer_norm_rms_epsilon")?,
        tied_head: gguf.tensor(HEAD).is_err(),
        attention: Attention {
            scale: keys.positive("attention.scale")?.unwrap_or(plain_scale),
            input_bias: family.input_bias,
            norm: family.norm,
            window: window(keys, layers)?,
            ..Attention::default()
        },
        multipliers: Multipliers {
            embedding: factor("embedding_scale")?,
            residual: factor("residual_scale")?,
            logits: factor("logit_scale")?.recip(),
        },
        experts,
    })
}

fn heads(keys: &Keys<'_>, hidden: usize) -> Result<(usize, usize, usize), CheckpointError> {
    let heads = keys.needed("attention.head_count", WIDTH_MAX)?;
    let kv_heads = keys
        .size("attention.head_count_kv", WIDTH_MAX)?
        .unwrap_or(heads);
    let head_dim = match keys.size("attention.key_length", WIDTH_MAX)? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(keys.out_of_range("attention.head_count", heads as f64)),
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.out_of_range("attention.head_count_kv", kv_heads as f64));
    }
    if head_dim % 2 != 0 || heads * head_dim > WIDTH_MAX {
        return Err(keys.out_of_range("attention.key_length", head_dim as f64));
    }
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = keys
            .size(name, WIDTH_MAX)?
            .filter(|&other| other != head_dim)
        {
            return Err(keys.out_of_range(name, other as f64));
        }
    }
    Ok((heads, kv_heads, head_dim))
}

/// A window of every layer; `None` where no context can leave it.
fn window(keys: &Keys<'_>, layers: usize) -> Result<Option<SlidingWindow>, CheckpointError> {
    let context_tokens = keys.needed("context_length", CONTEXT_TOKENS_MAX)?;
    let asked = keys.unsigned("attention.sliding_window")?;
    let narrower = asked.filter(|&tokens| tokens > 0 && tokens < context_tokens as u64);
    Ok(narrower.map(|tokens| SlidingWindow {
        tokens: tokens as usize,
        in_layer: vec![true; layers],
    }))
}

fn rope(keys: &Keys<'_>) -> Result<Rope, CheckpointError> {
    let base = keys.positive("rope.freq_base")?;
    let scaling = match keys.text("rope.scaling.type")? {
        None | Some("none") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear {
            factor: keys.needed_positive("rope.scaling.factor")?,
        },
        // YaRN's further settings have no agreed keys.
        Some(_) => return Err(keys.unsupported("rope.scaling.type")),
    };
    Ok(Rope {
        scaling,
        ..Rope::plain(base.unwrap_or(ROPE_BASE_DEFAULT))
    })
}

fn experts(
    family: &Family,
    keys: &Keys<'_>,
    layers: usize,
) -> Result<Option<Experts>, CheckpointError> {
    let count = keys.size_or_zero("expert_count", EXPERT_COUNT_MAX)?;
    let Some(moe) = family.experts else {
        return match count {
            0 => Ok(None),
            _ => Err(keys.unsupported("expert_count")),
        };
    };
    if count == 0 {
        return match moe.optional {
            true => Ok(None),
            false => Err(keys.missing("expert_count")),
        };
    }
    let shared_key = "expert_shared_feed_forward_length";
    let shared_neurons = match moe.shared {
        Shared::None => 0,
        Shared::Optional => keys.size_or_zero(shared_key, WIDTH_MAX)?,
        Shared::Switched => keys.needed(shared_key, WIDTH_MAX)?,
    };
    Ok(Some(Experts {
        count,
        per_token: keys.needed("expert_used_count", count)?,
        neurons: keys.needed(moe.width_key, WIDTH_MAX)?,
        shared_neurons,
        shared_switch: moe.shared == Shared::Switched,
        routing: Routing {
            normalised: keys.flag("expert_weights_norm")?.unwrap_or(moe.normalised),
            ..Routing::SOFTMAX
        },
        in_layer: vec![true; layers],
    }))
}
