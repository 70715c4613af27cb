//! The Mixture-of-Experts block: router, routed experts in one fused operator, shared
//! expert. Everything that depends on the operator used is in this file.

use super::{
    Precision,
    linear::{ACCURACY_LEVEL, blocks_per_row},
    mlp::swiglu,
};
use crate::{
    ImportError,
    checkpoint::{Alternating, Rows},
    feed_forward::MoeLayer,
    onnx::{GraphWriter, Node},
    quantise::{BLOCK, Storage},
};

/// Adds `block` over `input` and returns its output.
pub(super) fn block(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    input: &str,
    (block, precision): (MoeLayer<'_>, Precision),
) -> Result<String, ImportError> {
    let experts = block.shape.experts;
    let logits = router(graph, prefix, input, block.router.as_ref())?;
    // The fused operator reads gate and up of one neuron from neighbouring rows.
    let gate_up = Alternating::new(block.expert_gate, block.expert_up, 1);
    let weights = [
        (format!("{prefix}.gate_up"), &gate_up as &dyn Rows),
        (format!("{prefix}.down"), block.expert_down.as_ref()),
    ];
    for (name, rows) in &weights {
        store(graph, name, (*rows, precision.experts), experts)?;
    }
    let [(gate_up, _), (down, _)] = &weights;
    let name = format!("{prefix}.experts");
    let node = match precision.experts.code_bits() {
        None => Node::contrib("MoE", &name).inputs(&[input, &logits, gate_up, "", down]),
        Some(bits) => Node::contrib("QMoE", &name)
            .inputs(&[
                input,
                &logits,
                &format!("{gate_up}.codes"),
                &format!("{gate_up}.scales"),
                "",
                &format!("{down}.codes"),
                &format!("{down}.scales"),
            ])
            .int("expert_weight_bits", bits.count())
            .int("block_size", BLOCK)
            .int("accuracy_level", ACCURACY_LEVEL),
    };
    let routed = graph.node(
        node.int("k", block.shape.experts_per_token)
            .int("normalize_routing_weights", 1)
            .text("activation_type", "swiglu")
            .int("swiglu_fusion", 1)
            // These three make the operator's SwiGLU the plain one.
            .float("activation_alpha", 1.0)
            .float("activation_beta", 0.0)
            .float("swiglu_limit", f32::INFINITY),
    );
    let shared = swiglu(
        graph,
        &format!("{prefix}.shared"),
        input,
        (block.shared, precision.weights),
    )?;
    Ok(graph.node(Node::standard("Add", &format!("{prefix}.sum")).inputs(&[&routed, &shared])))
}

/// Adds the router's logits `[batch × sequence, experts]`, always in f32: which experts are
/// chosen must not depend on the precision of weights.
fn router(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    input: &str,
    weight: &dyn Rows,
) -> Result<String, ImportError> {
    let tensor = format!("{prefix}.router.weight");
    graph.transposed_f32(&tensor, weight)?;
    let logits =
        graph.node(Node::standard("MatMul", &format!("{prefix}.router")).inputs(&[input, &tensor]));
    let shape = format!("{prefix}.router.shape");
    graph.constant_i64(&shape, &[-1, weight.rows() as i64]);
    Ok(graph.node(
        Node::standard("Reshape", &format!("{prefix}.router.flat")).inputs(&[&logits, &shape]),
    ))
}

/// Stores the stacked matrices of all experts with the experts as first dimension.
fn store(
    graph: &mut GraphWriter<'_, '_>,
    name: &str,
    (rows, storage): (&dyn Rows, Storage),
    experts: usize,
) -> Result<(), ImportError> {
    let (height, width) = (rows.rows() / experts, rows.columns());
    match storage.code_bits() {
        None => graph.matrix_f32(name, &[experts, height, width], rows),
        Some(bits) => {
            let blocks = blocks_per_row(name, rows)?;
            graph.matrix_quantised(
                name,
                rows,
                bits,
                [
                    &[experts, height, width * bits.count() / 8],
                    &[experts, height, blocks],
                ],
            )
        }
    }
}
