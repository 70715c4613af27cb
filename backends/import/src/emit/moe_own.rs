//! The Mixture-of-Experts block as one operator of Mote's own, which `mote-ort` registers and
//! `mote-kernels` computes: router, choice, routed experts, shared expert, sum.

use super::{Layout, Precision, linear::blocks_per_row};
use crate::{
    ImportError,
    checkpoint::{Alternating, Rows, Score},
    feed_forward::{MoeLayer, Shared},
    onnx::{GraphWriter, Node},
    quantise::Bits,
};
use mote_kernels::TILE_ROWS;

/// The widths of codes of a block that the operator takes.
#[derive(Clone, Copy)]
pub(super) struct Widths {
    experts: Bits,
    shared: Option<Bits>,
}

/// The widths of `block`'s codes; `None` where the block is for other operators.
pub(super) fn bits(block: &MoeLayer<'_>, precision: Precision) -> Option<Widths> {
    let shared = match &block.shared {
        None => None,
        Some(_) => Some(precision.weights.code_bits()?),
    };
    let whole = |rows: usize| rows.is_multiple_of(TILE_ROWS);
    let tall = block.shape.expert_neurons;
    let fits = whole(tall) && whole(block.shape.shared_neurons) && whole(block.router.columns());
    let experts = precision.experts.code_bits()?;
    (fits && precision.layout == Layout::Kernels).then_some(Widths { experts, shared })
}

/// Adds `block` over `input` and returns its output.
pub(super) fn block(
    graph: &mut GraphWriter<'_, '_>,
    (prefix, input): (&str, &str),
    block: MoeLayer<'_>,
    bits: Widths,
) -> Result<String, ImportError> {
    let (shape, routing) = (block.shape, block.routing);
    let router = format!("{prefix}.router.weight");
    graph.transposed_f32(&router, block.router.as_ref())?;
    let pair = Alternating::new(block.expert_gate, block.expert_up, TILE_ROWS);
    let weights = [&pair as &dyn Rows, block.expert_down.as_ref()];
    let [gate_up, down] = store(graph, prefix, (weights, bits.experts), shape.experts)?;
    let bias = match &block.router_bias {
        None => String::new(),
        Some(bias) => {
            let tensor = format!("{prefix}.router.bias");
            graph.constant_f32(&tensor, &[bias.len()], bias)?;
            tensor
        }
    };
    let [shared_gate_up, shared_down, switch] = match (block.shared, bits.shared) {
        (Some(expert), Some(bits)) => shared(graph, prefix, expert, bits)?,
        _ => Default::default(),
    };
    let node = Node::own("MoeFeedForward", &format!("{prefix}.block"))
        .inputs(&[
            input,
            &router,
            &gate_up,
            &down,
            &bias,
            &shared_gate_up,
            &shared_down,
            &switch,
        ])
        .int("k", shape.experts_per_token)
        .int("sigmoid", (routing.score == Score::Sigmoid).into())
        .int("normalised", routing.normalised.into())
        .int("expert_bits", bits.experts.count());
    let node = match bits.shared {
        None => node,
        Some(bits) => node.int("shared_bits", bits.count()),
    };
    Ok(graph.node(match routing.groups {
        None => node,
        Some(groups) => node
            .int("groups", groups.count)
            .int("groups_chosen", groups.chosen)
            .int("groups_judged_by", groups.judged_by),
    }))
}

/// Stores the expert that works on every token, and returns its tensors and its switch's.
fn shared(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    shared: Shared<'_>,
    bits: Bits,
) -> Result<[String; 3], ImportError> {
    let prefix = format!("{prefix}.shared");
    let pair = Alternating::new(shared.block.gate, shared.block.up, TILE_ROWS);
    let weights = [&pair as &dyn Rows, shared.block.down.as_ref()];
    let [gate_up, down] = store(graph, &prefix, (weights, bits), 1)?;
    let switch = match shared.switch {
        None => String::new(),
        Some(switch) => {
            let tensor = format!("{prefix}.switch.weight");
            graph.vector(&tensor, switch.as_ref())?;
            tensor
        }
    };
    Ok([gate_up, down, switch])
}

/// Stores gate and up, and down, of `experts` experts; returns their names.
fn store(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    ([gate_up, down], bits): ([&dyn Rows; 2], Bits),
    experts: usize,
) -> Result<[String; 2], ImportError> {
    let names = ["gate_up", "down"].map(|part| format!("{prefix}.{part}.tiles"));
    for (name, rows) in names.iter().zip([gate_up, down]) {
        blocks_per_row(name, rows)?;
        graph.matrix_tiled(name, (rows, bits), experts)?;
    }
    Ok(names)
}
