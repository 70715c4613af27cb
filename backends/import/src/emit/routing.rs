//! Which experts work on a token, and with what weights.
//!
//! The fused operators choose the largest of the logits they are given and weight by a
//! softmax over the chosen. Any other rule is computed here in plain nodes and handed over as
//! logits whose softmax over the chosen gives the rule's weights, divided by their sum: the
//! logarithm of the chosen scores, and far less for all others.

use super::attention::reshape;
use crate::{
    ImportError,
    checkpoint::{Groups, Routing, Score},
    onnx::{GraphWriter, Node},
    recipe::MoeShape,
};

/// So low that its softmax beside the logarithm of any positive score is 0.
const NEVER: f32 = -1e30;

/// What the fused operator is told.
pub(super) struct Choice {
    /// Logits `[batch, sequence, experts]`.
    pub logits: String,
    /// What to multiply the operator's output by, `[batch, sequence, 1]`.
    pub factor: Option<String>,
}

/// Adds what `routing` makes of the router's `logits` `[batch, sequence, experts]`.
pub(super) fn choice(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    logits: String,
    (routing, shape, bias): (&Routing, MoeShape, Option<&[f32]>),
) -> Result<Choice, ImportError> {
    if routing.is_plain() {
        let factor = match routing.normalised {
            true => None,
            false => Some(chosen_share(graph, prefix, &logits, shape)),
        };
        return Ok(Choice { logits, factor });
    }
    let node = |op: &str, part: &str| Node::standard(op, &format!("{prefix}.routing.{part}"));
    let score = match routing.score {
        Score::Softmax => node("Softmax", "scores")
            .inputs(&[&logits])
            .signed("axis", -1),
        Score::Sigmoid => node("Sigmoid", "scores").inputs(&[&logits]),
    };
    let scores = graph.node(score);
    let mut judged = scores.clone();
    if let Some(bias) = bias {
        let tensor = format!("{prefix}.routing.bias");
        graph.constant_f32(&tensor, &[bias.len()], bias)?;
        judged = graph.node(node("Add", "biased").inputs(&[&scores, &tensor]));
    }
    if let Some(groups) = routing.groups {
        judged = best_groups(graph, prefix, &judged, groups)?;
    }
    let [_, chosen] = top(
        graph,
        &format!("{prefix}.routing.top"),
        &judged,
        shape.experts_per_token,
    );
    let weights = graph.node(
        node("GatherElements", "weights")
            .inputs(&[&scores, &chosen])
            .signed("axis", -1),
    );
    let logarithms = graph.node(node("Log", "logarithms").inputs(&[&weights]));
    let never = format!("{prefix}.routing.never");
    graph.scalar_f32(&never, NEVER)?;
    let size = graph.node(node("Shape", "size").inputs(&[&scores]));
    let base = graph.node(node("Expand", "base").inputs(&[&never, &size]));
    let logits = graph.node(
        node("ScatterElements", "logits")
            .inputs(&[&base, &chosen, &logarithms])
            .signed("axis", -1),
    );
    let factor = match routing.normalised {
        true => None,
        false => Some(sum(graph, &format!("{prefix}.routing"), &weights)),
    };
    Ok(Choice { logits, factor })
}

/// Adds the part of a softmax over all experts that the chosen have. (The operators' own way,
/// `normalize_routing_weights` 0, gives wrong numbers in whole models with version 1.31.1, and
/// right ones with 1.32.0.)
fn chosen_share(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    logits: &str,
    shape: MoeShape,
) -> String {
    let prefix = format!("{prefix}.routing");
    let softmax = Node::standard("Softmax", &format!("{prefix}.scores"));
    let scores = graph.node(softmax.inputs(&[logits]).signed("axis", -1));
    let [weights, _] = top(
        graph,
        &format!("{prefix}.top"),
        &scores,
        shape.experts_per_token,
    );
    sum(graph, &prefix, &weights)
}

/// Adds the sum of the last dimension, which stays.
fn sum(graph: &mut GraphWriter<'_, '_>, prefix: &str, weights: &str) -> String {
    let axis = format!("{prefix}.axis");
    graph.constant_i64(&axis, &[-1]);
    graph.node(Node::standard("ReduceSum", &format!("{prefix}.sum")).inputs(&[weights, &axis]))
}

/// Adds the `count` largest of the last dimension: values and positions.
fn top(graph: &mut GraphWriter<'_, '_>, name: &str, input: &str, count: usize) -> [String; 2] {
    let size = format!("{name}.count");
    graph.constant_i64(&size, &[count as i64]);
    let outputs = [format!("{name}.values"), format!("{name}.positions")];
    graph.node(
        Node::standard("TopK", name)
            .inputs(&[input, &size])
            .outputs(&[&outputs[0], &outputs[1]])
            .signed("axis", -1),
    );
    outputs
}

/// Adds `judged` with all experts outside the best groups out of reach. Of groups that are
/// exactly as good as the last one chosen, all stay.
fn best_groups(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    judged: &str,
    groups: Groups,
) -> Result<String, ImportError> {
    let prefix = format!("{prefix}.groups");
    let split = [0, 0, groups.count as i64, -1];
    let members = reshape(graph, &format!("{prefix}.members"), judged, &split);
    let [best, _] = top(graph, &format!("{prefix}.best"), &members, groups.judged_by);
    let axis = format!("{prefix}.axis");
    graph.constant_i64(&axis, &[-1]);
    let worth = graph.node(
        Node::standard("ReduceSum", &format!("{prefix}.worth"))
            .inputs(&[&best, &axis])
            .int("keepdims", 0),
    );
    let [values, _] = top(graph, &format!("{prefix}.top"), &worth, groups.chosen);
    let index = format!("{prefix}.last.index");
    graph.constant_i64(&index, &[-1]);
    let last = graph.node(
        Node::standard("Gather", &format!("{prefix}.last"))
            .inputs(&[&values, &index])
            .signed("axis", -1),
    );
    let chosen = graph.node(
        Node::standard("GreaterOrEqual", &format!("{prefix}.chosen")).inputs(&[&worth, &last]),
    );
    let chosen = graph
        .node(Node::standard("Unsqueeze", &format!("{prefix}.mask")).inputs(&[&chosen, &axis]));
    let never = format!("{prefix}.never");
    graph.scalar_f32(&never, NEVER)?;
    let kept = graph.node(
        Node::standard("Where", &format!("{prefix}.kept")).inputs(&[&chosen, &members, &never]),
    );
    Ok(reshape(
        graph,
        &format!("{prefix}.flat"),
        &kept,
        &[0, 0, -1],
    ))
}
