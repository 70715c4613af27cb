//! Mixtures of Experts as `config.json` describes them.

use serde_json::{Map, Value};

use super::{CheckpointError, Family, LAYER_COUNT_MAX, WIDTH_MAX};
use crate::{
    checkpoint::{Experts, Groups, Routing, Score, keys::Keys},
    recipe::EXPERT_COUNT_MAX,
};

/// What transformers calls the number of experts, by its versions.
const COUNT_KEYS: [&str; 3] = ["num_experts", "num_local_experts", "n_routed_experts"];

/// The Mixture of Experts of a model of `family`, when that has one.
pub(super) fn experts(
    family: Family,
    config: &Map<String, Value>,
    layers: usize,
) -> Result<Option<Experts>, CheckpointError> {
    if matches!(
        family,
        Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3
    ) {
        return Ok(None);
    }
    let keys = Keys::Json(config);
    let mut count = None;
    for name in COUNT_KEYS {
        count = count.or(keys.size(name, EXPERT_COUNT_MAX)?);
    }
    let count = count.ok_or_else(|| keys.missing("num_experts"))?;
    let per_token = keys.needed("num_experts_per_tok", count)?;
    let width_key = match family {
        Family::Mixtral | Family::Olmoe | Family::GraniteMoe | Family::GraniteMoeShared => {
            "intermediate_size"
        }
        _ => "moe_intermediate_size",
    };
    let neurons = keys.needed(width_key, WIDTH_MAX)?;
    let shared_neurons = match family {
        Family::GraniteMoeShared => keys.size_or_zero("shared_intermediate_size", WIDTH_MAX)?,
        Family::Qwen2Moe => keys.needed("shared_expert_intermediate_size", WIDTH_MAX)?,
        Family::DeepseekV2 | Family::DeepseekV3 => {
            neurons * keys.size_or_zero("n_shared_experts", EXPERT_COUNT_MAX)?
        }
        _ => 0,
    };
    if shared_neurons > WIDTH_MAX {
        return Err(keys.out_of_range("n_shared_experts", shared_neurons as f64));
    }
    Ok(Some(Experts {
        count,
        per_token,
        neurons,
        shared_neurons,
        shared_switch: family == Family::Qwen2Moe,
        routing: routing(family, &keys, (count, per_token))?,
        in_layer: in_layer(family, config, layers)?,
    }))
}

fn routing(
    family: Family,
    keys: &Keys<'_>,
    sizes: (usize, usize),
) -> Result<Routing, CheckpointError> {
    let normalised = keys.flag("norm_topk_prob")?;
    match family {
        Family::Olmoe | Family::Qwen2Moe | Family::Qwen3Moe => Ok(Routing {
            normalised: normalised.unwrap_or(false),
            ..Routing::SOFTMAX
        }),
        Family::DeepseekV2 => deepseek_v2(keys, sizes),
        Family::DeepseekV3 => Ok(Routing {
            score: Score::Sigmoid,
            bias: true,
            groups: groups(keys, sizes, 2)?,
            normalised: normalised.unwrap_or(true),
            scale: keys.positive("routed_scaling_factor")?.unwrap_or(1.0),
        }),
        _ => Ok(Routing::SOFTMAX),
    }
}

fn deepseek_v2(keys: &Keys<'_>, sizes: (usize, usize)) -> Result<Routing, CheckpointError> {
    // Implementations differ in what they make of this.
    if keys.flag("norm_topk_prob")? == Some(true) {
        return Err(keys.unsupported("norm_topk_prob"));
    }
    match keys.text("scoring_func")? {
        None | Some("softmax") => {}
        Some(other) => return Err(keys.unsupported_value("scoring_func", other)),
    }
    let groups = match keys.text("topk_method")? {
        None | Some("greedy") => None,
        Some("group_limited_greedy") => groups(keys, sizes, 1)?,
        Some(other) => return Err(keys.unsupported_value("topk_method", other)),
    };
    Ok(Routing {
        groups,
        normalised: false,
        scale: keys.positive("routed_scaling_factor")?.unwrap_or(1.0),
        ..Routing::SOFTMAX
    })
}

/// The groups that limit the choice; none where all of them may be chosen.
fn groups(
    keys: &Keys<'_>,
    (experts, per_token): (usize, usize),
    judged_by: usize,
) -> Result<Option<Groups>, CheckpointError> {
    let count = keys.size("n_group", experts)?.unwrap_or(1);
    let chosen = keys.size("topk_group", count)?.unwrap_or(count);
    let width = experts / count;
    if !experts.is_multiple_of(count) || (chosen < count && width < judged_by) {
        return Err(keys.out_of_range("n_group", count as f64));
    }
    if chosen * width < per_token {
        return Err(keys.out_of_range("topk_group", chosen as f64));
    }
    Ok((chosen < count).then_some(Groups {
        count,
        chosen,
        judged_by,
    }))
}

fn in_layer(
    family: Family,
    config: &Map<String, Value>,
    layers: usize,
) -> Result<Vec<bool>, CheckpointError> {
    let keys = Keys::Json(config);
    match family {
        Family::Qwen2Moe | Family::Qwen3Moe => {
            let step = keys
                .size("decoder_sparse_step", LAYER_COUNT_MAX)?
                .unwrap_or(1);
            let dense = dense_layers(config)?;
            let sparse =
                |layer: usize| (layer + 1).is_multiple_of(step) && !dense.contains(&(layer as u64));
            Ok((0..layers).map(sparse).collect())
        }
        Family::DeepseekV2 | Family::DeepseekV3 => {
            if keys
                .unsigned("moe_layer_freq")?
                .is_some_and(|step| step != 1)
            {
                return Err(keys.unsupported("moe_layer_freq"));
            }
            let first = keys.size_or_zero("first_k_dense_replace", LAYER_COUNT_MAX)?;
            Ok((0..layers).map(|layer| layer >= first).collect())
        }
        _ => Ok(vec![true; layers]),
    }
}

fn dense_layers(config: &Map<String, Value>) -> Result<Vec<u64>, CheckpointError> {
    let wrong = || CheckpointError::WrongType {
        key: "mlp_only_layers".to_owned(),
        expected: "list of layers",
    };
    match config.get("mlp_only_layers") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(layers)) => layers
            .iter()
            .map(|layer| layer.as_u64().ok_or_else(wrong))
            .collect(),
        Some(_) => Err(wrong()),
    }
}
