//! The dense SwiGLU block, and the shared expert, which is one.

use super::linear::linear;
use crate::{
    ImportError,
    checkpoint::Stacked,
    feed_forward::SwiGlu,
    onnx::{GraphWriter, Node},
    quantise::Storage,
};

/// Adds `block` over `input`, with gate and up packed into one product, and returns its
/// output.
pub(super) fn swiglu(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    input: &str,
    (block, storage): (SwiGlu<'_>, Storage),
) -> Result<String, ImportError> {
    let neurons = block.gate.rows();
    let packed = Stacked::new(vec![block.gate, block.up]);
    let packed = linear(
        graph,
        &format!("{prefix}.gate_up"),
        input,
        (&packed, storage),
    )?;
    let sizes = format!("{prefix}.split_sizes");
    graph.constant_i64(&sizes, &[neurons as i64; 2]);
    let (gate, up) = (format!("{prefix}.gate"), format!("{prefix}.up"));
    graph.node(
        Node::standard("Split", &format!("{prefix}.split"))
            .inputs(&[&packed, &sizes])
            .outputs(&[&gate, &up])
            .signed("axis", -1),
    );
    // QuickGelu with alpha 1 is SiLU in one node.
    let activated = graph.node(
        Node::contrib("QuickGelu", &format!("{prefix}.silu"))
            .inputs(&[&gate])
            .float("alpha", 1.0),
    );
    let product =
        graph.node(Node::standard("Mul", &format!("{prefix}.product")).inputs(&[&activated, &up]));
    linear(
        graph,
        &format!("{prefix}.down"),
        &product,
        (block.down.as_ref(), storage),
    )
}
