//! Mixtures of Experts in GGUF.

use super::{Family, Keys};
use crate::{
    checkpoint::{CheckpointError, Experts, Groups, LAYER_COUNT_MAX, Routing, Score, WIDTH_MAX},
    gguf::Gguf,
    recipe::EXPERT_COUNT_MAX,
};

/// What is particular to an architecture's Mixture of Experts.
#[derive(Clone, Copy)]
pub(super) struct ExpertFamily {
    /// Whether dense checkpoints have the same name.
    pub optional: bool,
    /// Where the width of experts is; the dense width where there is no such key.
    pub width_key: &'static str,
    pub normalised: bool,
    pub shared: Shared,
    /// Whether the metadata say how experts are chosen, and which layers are dense.
    pub described: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    None,
    /// Where it has a width.
    Optional,
    Switched,
    /// As many as there are, each as wide as a routed one.
    Counted,
}

/// The Mixture of Experts of a model of `family`, when it is one.
pub(super) fn experts(
    gguf: &Gguf,
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
    let per_token = keys.needed("expert_used_count", count)?;
    let neurons = keys.needed(moe.width_key, WIDTH_MAX)?;
    let dense = match moe.described {
        true => keys.size_or_zero("leading_dense_block_count", LAYER_COUNT_MAX)?,
        false => 0,
    };
    let normalised = keys.flag("expert_weights_norm")?.unwrap_or(moe.normalised);
    let plain = Routing {
        normalised,
        ..Routing::SOFTMAX
    };
    Ok(Some(Experts {
        count,
        per_token,
        neurons,
        shared_neurons: shared_neurons(moe, keys, neurons)?,
        shared_switch: moe.shared == Shared::Switched,
        routing: match moe.described {
            true => Routing {
                bias: gguf.tensor(&bias_name(dense)).is_ok(),
                ..described(plain, keys, (count, per_token))?
            },
            false => plain,
        },
        in_layer: (0..layers).map(|layer| layer >= dense).collect(),
    }))
}

fn bias_name(layer: usize) -> String {
    format!("blk.{layer}.exp_probs_b.bias")
}

fn shared_neurons(
    moe: ExpertFamily,
    keys: &Keys<'_>,
    neurons: usize,
) -> Result<usize, CheckpointError> {
    let key = "expert_shared_feed_forward_length";
    match moe.shared {
        Shared::None => Ok(0),
        Shared::Optional => keys.size_or_zero(key, WIDTH_MAX),
        Shared::Switched => keys.needed(key, WIDTH_MAX),
        Shared::Counted => {
            let count = keys.size_or_zero("expert_shared_count", EXPERT_COUNT_MAX)?;
            match neurons * count {
                width if width > WIDTH_MAX => {
                    Err(keys.out_of_range("expert_shared_count", count as f64))
                }
                width => Ok(width),
            }
        }
    }
}

/// How experts are chosen by what the metadata say.
fn described(
    plain: Routing,
    keys: &Keys<'_>,
    (experts, per_token): (usize, usize),
) -> Result<Routing, CheckpointError> {
    let score = match keys.unsigned("expert_gating_func")? {
        // Files of before there was the key are of models that have this.
        None | Some(0 | 1) => Score::Softmax,
        Some(2) => Score::Sigmoid,
        Some(_) => return Err(keys.unsupported("expert_gating_func")),
    };
    let count = keys.size("expert_group_count", experts)?.unwrap_or(1);
    let chosen = keys
        .size("expert_group_used_count", count)?
        .unwrap_or(count);
    // As in the models' own code.
    let judged_by = match score {
        Score::Softmax => 1,
        Score::Sigmoid => 2,
    };
    let width = experts / count;
    if !experts.is_multiple_of(count) || (chosen < count && width < judged_by) {
        return Err(keys.out_of_range("expert_group_count", count as f64));
    }
    if chosen * width < per_token {
        return Err(keys.out_of_range("expert_group_used_count", chosen as f64));
    }
    let scale = keys.number("expert_weights_scale")?.unwrap_or(0.0);
    Ok(Routing {
        score,
        groups: (chosen < count).then_some(Groups {
            count,
            chosen,
            judged_by,
        }),
        // 0 stands for none.
        scale: match scale == 0.0 {
            true => 1.0,
            false => keys.needed_positive("expert_weights_scale")?,
        },
        ..plain
    })
}
