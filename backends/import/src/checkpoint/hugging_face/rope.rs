//! Rotary positions as `config.json` describes them, in the words of several years.

use serde_json::{Map, Value};

use super::{CONTEXT_TOKENS_MAX, CheckpointError, Family};
use crate::checkpoint::{Rope, RopeScaling, keys::Keys};

const ROPE_BASE_DEFAULT: f32 = 10_000.0;

/// The positions of a model, and a factor on the scale of its attention.
pub(super) fn rope(
    family: Family,
    config: &Map<String, Value>,
    context_tokens: usize,
) -> Result<(Rope, f32), CheckpointError> {
    let outer = Keys::Json(config);
    let object = |name: &str| match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(CheckpointError::WrongType {
            key: name.to_owned(),
            expected: "object",
        }),
    };
    let inner = match object("rope_parameters")? {
        Some(map) => Some(map),
        None => object("rope_scaling")?,
    };
    let empty = Map::new();
    let inner = Keys::Json(inner.unwrap_or(&empty));
    let base = match inner.positive("rope_theta")? {
        Some(base) => Some(base),
        None => outer.positive("rope_theta")?,
    };
    let kind = match inner.text("rope_type")? {
        Some(kind) => Some(kind),
        None => inner.text("type")?,
    };
    if inner
        .number("partial_rotary_factor")?
        .is_some_and(|part| part != 1.0)
    {
        return Err(inner.unsupported("partial_rotary_factor"));
    }
    let scaling = match kind.unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: inner.needed_positive("factor")?,
        },
        "llama3" => llama3(&inner)?,
        "yarn" => yarn(&inner, context_tokens)?,
        other => return Err(inner.unsupported_value("rope_type", other)),
    };
    let rope = Rope {
        base: base.unwrap_or(ROPE_BASE_DEFAULT),
        scaling,
        interleaved: match family {
            Family::DeepseekV2 => true,
            Family::DeepseekV3 => outer.flag("rope_interleave")?.unwrap_or(true),
            _ => false,
        },
    };
    let scale = match (family.is_deepseek(), inner.positive("mscale_all_dim")?) {
        (true, Some(all)) if scaling != RopeScaling::None => {
            magnitude(inner.needed_positive("factor")?, all).powi(2)
        }
        _ => 1.0,
    };
    Ok((rope, scale))
}

fn llama3(keys: &Keys<'_>) -> Result<RopeScaling, CheckpointError> {
    let (low, high) = (
        keys.needed_positive("low_freq_factor")?,
        keys.needed_positive("high_freq_factor")?,
    );
    if high <= low {
        return Err(keys.out_of_range("high_freq_factor", high.into()));
    }
    Ok(RopeScaling::Llama3 {
        factor: keys.needed_positive("factor")?,
        low,
        high,
        first_context: keys.needed("original_max_position_embeddings", CONTEXT_TOKENS_MAX)?,
    })
}

fn yarn(keys: &Keys<'_>, context_tokens: usize) -> Result<RopeScaling, CheckpointError> {
    let first_context = keys
        .size("original_max_position_embeddings", CONTEXT_TOKENS_MAX)?
        .unwrap_or(context_tokens);
    let factor = keys
        .positive("factor")?
        .unwrap_or(context_tokens as f32 / first_context as f32);
    let amplitude = match (
        keys.positive("attention_factor")?,
        keys.number("mscale")?,
        keys.number("mscale_all_dim")?,
    ) {
        (Some(given), ..) => given,
        (None, Some(one), Some(all)) if one != 0.0 && all != 0.0 => {
            magnitude(factor, one as f32) / magnitude(factor, all as f32)
        }
        _ => magnitude(factor, 1.0),
    };
    if !(amplitude.is_finite() && amplitude > 0.0) {
        return Err(keys.out_of_range("mscale", amplitude.into()));
    }
    Ok(RopeScaling::Yarn {
        factor,
        fast: keys.positive("beta_fast")?.unwrap_or(32.0),
        slow: keys.positive("beta_slow")?.unwrap_or(1.0),
        first_context,
        amplitude,
        truncate: keys.flag("truncate")?.unwrap_or(true),
    })
}

/// How much stretching by `factor` lengthens vectors, by YaRN's rule.
fn magnitude(factor: f32, weight: f32) -> f32 {
    if factor <= 1.0 {
        1.0
    } else {
        0.1 * weight * factor.ln() + 1.0
    }
}
