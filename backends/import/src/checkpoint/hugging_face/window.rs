//! Sliding windows as `config.json` describes them, by the rules of each family.

use serde_json::{Map, Value};

use super::{CONTEXT_TOKENS_MAX, CheckpointError, Family, LAYER_COUNT_MAX};
use crate::checkpoint::{SlidingWindow, keys::Keys};

/// What transformers takes where a family's configuration has no such key.
const WINDOW_TOKENS_DEFAULT: usize = 4096;
const MAX_WINDOW_LAYERS_DEFAULT: usize = 28;

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// The window of a model of `family`; `None` where no context of `context_tokens` can leave it.
pub(super) fn window(
    family: Family,
    config: &Map<String, Value>,
    (layers, context_tokens): (usize, usize),
) -> Result<Option<SlidingWindow>, CheckpointError> {
    let keys = Keys::Json(config);
    let kinds = layer_kinds(config, layers)?;
    let said = config.contains_key("sliding_window");
    let asked = match family {
        Family::Mistral if !said => Some(WINDOW_TOKENS_DEFAULT),
        Family::Mistral | Family::Mixtral => width(&keys)?,
        family if family.is_qwen() => match keys.flag("use_sliding_window")? {
            Some(true) if !said => Some(WINDOW_TOKENS_DEFAULT),
            Some(true) => width(&keys)?,
            _ => None,
        },
        _ => match width(&keys)? {
            // Such models do not know windows; what else reads them may.
            Some(tokens) if tokens < context_tokens => {
                return Err(keys.unsupported("sliding_window"));
            }
            _ => None,
        },
    };
    let slides = |kind: &bool| *kind;
    let Some(tokens) = asked else {
        return match kinds.is_some_and(|kinds| kinds.iter().any(slides)) {
            true => Err(keys.unsupported_value("layer_types", &format!("{SLIDING:?}"))),
            false => Ok(None),
        };
    };
    let first = match keys.unsigned("max_window_layers")? {
        Some(_) => keys.size_or_zero("max_window_layers", LAYER_COUNT_MAX)?,
        None => MAX_WINDOW_LAYERS_DEFAULT,
    };
    let in_layer: Vec<bool> = match (family, kinds) {
        (Family::Qwen2 | Family::Qwen3 | Family::Qwen2Moe, Some(kinds)) => kinds,
        (Family::Qwen2 | Family::Qwen3, None) => (0..layers).map(|layer| layer >= first).collect(),
        (Family::Qwen2Moe, None) => (0..layers)
            .map(|layer| layer.is_multiple_of(2) && layer < first)
            .collect(),
        _ => vec![true; layers],
    };
    let used = tokens < context_tokens && in_layer.iter().any(slides);
    Ok(used.then_some(SlidingWindow { tokens, in_layer }))
}

/// How many tokens the window has; 0 stands for none.
fn width(keys: &Keys<'_>) -> Result<Option<usize>, CheckpointError> {
    // A window may be wider than any context that is read here.
    match keys.unsigned("sliding_window")? {
        None | Some(0) => Ok(None),
        Some(tokens) => Ok(Some(tokens.min(CONTEXT_TOKENS_MAX as u64) as usize)),
    }
}

/// For each layer whether its attention slides, where the configuration lists that.
fn layer_kinds(
    config: &Map<String, Value>,
    layers: usize,
) -> Result<Option<Vec<bool>>, CheckpointError> {
    let keys = Keys::Json(config);
    let wrong = || CheckpointError::WrongType {
        key: "layer_types".to_owned(),
        expected: "list of a kind for each layer",
    };
    let kinds = match config.get("layer_types") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(kinds)) => kinds,
        Some(_) => return Err(wrong()),
    };
    if kinds.len() != layers {
        return Err(wrong());
    }
    let slides = kinds.iter().map(|kind| match kind.as_str() {
        Some(FULL) => Ok(false),
        Some(SLIDING) => Ok(true),
        _ => Err(keys.unsupported_value("layer_types", &kind.to_string())),
    });
    slides.collect::<Result<_, _>>().map(Some)
}
