//! GGUF checkpoints: architectures by llama.cpp's names for settings and tensors.

mod experts;
mod latent;

use super::{
    Attention, CONTEXT_TOKENS_MAX, Checkpoint, CheckpointError, LAYER_COUNT_MAX, Latent, LayerRole,
    ModelConfig, Multipliers, QueryKeyNorm, Role, Rope, RopeScaling, SlidingWindow, TensorStore,
    VOCAB_MAX, WIDTH_MAX, keys::Keys, place::Place,
};
use crate::gguf::{Gguf, required};
use experts::{ExpertFamily, Shared};
use latent::Joined;

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
    /// Keys and values come from a latent.
    latent: bool,
    experts: Option<ExpertFamily>,
}

const PLAIN: Family = Family {
    name: "llama",
    neighbours: false,
    input_bias: false,
    norm: QueryKeyNorm::None,
    latent: false,
    experts: None,
};

const PLAIN_EXPERTS: ExpertFamily = ExpertFamily {
    optional: false,
    width_key: "feed_forward_length",
    normalised: true,
    shared: Shared::None,
    described: false,
};

const FAMILIES: [Family; 8] = [
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
    Family {
        name: "deepseek2",
        latent: true,
        experts: Some(ExpertFamily {
            width_key: "expert_feed_forward_length",
            normalised: false,
            shared: Shared::Counted,
            described: true,
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
    refuse_features(family, &keys)?;
    let config = model_config(gguf, family, &keys)?;
    let head_dim = config.head_dim;
    let store: Box<dyn TensorStore> = match config.attention.latent {
        Some(latent) => Box::new(Joined::new(gguf, (latent, config.heads))),
        None => Box::new(gguf),
    };
    let neighbours = family.neighbours.then_some(head_dim);
    let query_latent = config
        .attention
        .latent
        .is_some_and(|latent| latent.query_rank.is_some());
    let place = Box::new(move |role| place(role, (neighbours, query_latent)));
    Checkpoint::new(store, config, (family.name, place), &|_| false)
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

fn place(role: Role, (neighbours, query_latent): (Option<usize>, bool)) -> Place {
    let (layer, role) = match role {
        Role::Embedding => return Place::whole(EMBEDDING.to_owned()),
        Role::Head => return Place::whole(HEAD.to_owned()),
        Role::FinalNorm => return Place::whole("output_norm.weight".to_owned()),
        Role::Layer(layer, role) => (layer, role),
    };
    let name = match role {
        LayerRole::AttentionNorm => "attn_norm.weight",
        LayerRole::Query if query_latent => "attn_q_b.weight",
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
fn refuse_features(family: &Family, keys: &Keys<'_>) -> Result<(), CheckpointError> {
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
            family.experts.is_some_and(|moe| moe.described)
                || keys
                    .number("expert_weights_scale")?
                    .is_none_or(|scale| scale == 1.0 || scale == 0.0),
        ),
        (
            "nextn_predict_layers",
            keys.unsigned("nextn_predict_layers")?
                .is_none_or(|layers| layers == 0),
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
    let latent = latent::latent(gguf, family, keys)?;
    let (heads, kv_heads, head_dim) = match latent {
        Some(latent) => latent_heads(keys, latent)?,
        None => heads(keys, hidden)?,
    };
    let vocab = gguf.tensor(EMBEDDING)?.rows;
    if vocab > VOCAB_MAX
        || keys
            .size("vocab_size", VOCAB_MAX)?
            .is_some_and(|size| size != vocab)
    {
        return Err(keys.out_of_range("vocab_size", vocab as f64));
    }
    let experts = experts::experts(gguf, family, keys, layers)?;
    let has_dense = experts
        .as_ref()
        .is_none_or(|experts| experts.in_layer.contains(&false));
    let (rope, rope_scale) = rope(family, keys)?;
    let factor = |name| Ok::<_, CheckpointError>(keys.positive(name)?.unwrap_or(1.0));
    let plain_scale = (head_dim as f32).sqrt().recip();
    Ok(ModelConfig {
        layers,
        hidden,
        neurons: match has_dense {
            true => keys.needed("feed_forward_length", WIDTH_MAX)?,
            false => 0,
        },
        heads,
        kv_heads,
        head_dim,
        vocab,
        context_tokens: keys.needed("context_length", CONTEXT_TOKENS_MAX)?,
        rope,
        norm_epsilon: keys.needed_positive("attention.layer_norm_rms_epsilon")?,
        tied_head: gguf.tensor(HEAD).is_err(),
        attention: Attention {
            scale: keys
                .positive("attention.scale")?
                .unwrap_or(plain_scale * rope_scale),
            input_bias: family.input_bias,
            norm: family.norm,
            latent,
            window: window(keys, family, layers)?,
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

/// A window of every layer, as Mistral's files have it; `None` where no context can leave it. In other
/// families the key does not tell which layers have one.
fn window(
    keys: &Keys<'_>,
    family: &Family,
    layers: usize,
) -> Result<Option<SlidingWindow>, CheckpointError> {
    let context_tokens = keys.needed("context_length", CONTEXT_TOKENS_MAX)?;
    let asked = keys.unsigned("attention.sliding_window")?;
    let narrower = asked.filter(|&tokens| tokens > 0 && tokens < context_tokens as u64);
    if narrower.is_some() && family.name != PLAIN.name {
        return Err(keys.unsupported("attention.sliding_window"));
    }
    Ok(narrower.map(|tokens| SlidingWindow {
        tokens: tokens as usize,
        in_layer: vec![true; layers],
    }))
}

/// As many heads of keys and values as of queries, once they are made of the latent.
fn latent_heads(keys: &Keys<'_>, latent: Latent) -> Result<(usize, usize, usize), CheckpointError> {
    let heads = keys.needed("attention.head_count", WIDTH_MAX)?;
    let head_dim = latent.nope_dim + latent.rope_dim;
    if !latent.rope_dim.is_multiple_of(2) || heads * head_dim > WIDTH_MAX {
        return Err(keys.out_of_range("attention.head_count", heads as f64));
    }
    Ok((heads, heads, head_dim))
}

/// The positions, and a factor on the scale of attention.
fn rope(family: &Family, keys: &Keys<'_>) -> Result<(Rope, f32), CheckpointError> {
    let base = keys.positive("rope.freq_base")?;
    let mut scale = 1.0;
    let scaling = match keys.text("rope.scaling.type")? {
        None | Some("none") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear {
            factor: keys.needed_positive("rope.scaling.factor")?,
        },
        Some("yarn") => {
            let factor = keys.needed_positive("rope.scaling.factor")?;
            let stretch = factor.max(1.0).ln();
            let amplitude = match family.latent {
                // There the scale of attention has all of it.
                true => {
                    let slope = keys.number("rope.scaling.yarn_log_multiplier")?;
                    scale = (1.0 + slope.unwrap_or(0.0) as f32 * stretch).powi(2);
                    1.0
                }
                false => 1.0 + 0.1 * stretch,
            };
            yarn(keys, (factor, amplitude))?
        }
        Some(_) => return Err(keys.unsupported("rope.scaling.type")),
    };
    if !(scale.is_finite() && scale > 0.0) {
        return Err(keys.out_of_range("rope.scaling.yarn_log_multiplier", scale.into()));
    }
    let rope = Rope {
        scaling,
        interleaved: family.latent,
        ..Rope::plain(base.unwrap_or(ROPE_BASE_DEFAULT))
    };
    Ok((rope, scale))
}

fn yarn(keys: &Keys<'_>, (factor, amplitude): (f32, f32)) -> Result<RopeScaling, CheckpointError> {
    for name in [
        "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_attn_factor",
        "rope.scaling.attn_factor",
    ] {
        if keys.number(name)?.is_some_and(|value| value != 1.0) {
            return Err(keys.unsupported(name));
        }
    }
    let or = |name, default| Ok::<_, CheckpointError>(keys.positive(name)?.unwrap_or(default));
    Ok(RopeScaling::Yarn {
        factor,
        fast: or("rope.scaling.yarn_beta_fast", 32.0)?,
        slow: or("rope.scaling.yarn_beta_slow", 1.0)?,
        first_context: keys.needed("rope.scaling.original_context_length", CONTEXT_TOKENS_MAX)?,
        amplitude,
        truncate: true,
    })
}
