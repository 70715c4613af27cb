//! The Mixture-of-Experts block: in one operator of Mote's own (`moe_own`), or by ONNX Runtime's:
//! router, routed experts in one fused operator, shared expert. Everything that depends on those is in
//! this file.

use super::{
    Precision,
    attention::reshape,
    linear::{ACCURACY_LEVEL, Kind, as_singles, blocks_per_row},
    mlp::swiglu,
    moe_own,
    routing::{Choice, choice},
};
use crate::{
    ImportError,
    checkpoint::{Alternating, Rows},
    feed_forward::{MoeLayer, Shared},
    onnx::{GraphWriter, Node},
    quantise::{BLOCK, Storage},
    recipe::MoeShape,
};

/// Adds `block` over `input` and returns its output.
pub(super) fn block(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    input: &str,
    (block, precision): (MoeLayer<'_>, Precision),
) -> Result<String, ImportError> {
    if let Some(bits) = moe_own::bits(&block, precision) {
        return moe_own::block(graph, (prefix, input), block, bits);
    }
    let (shape, routing) = (block.shape, block.routing);
    let logits = router(graph, prefix, input, block.router.as_ref())?;
    let bias = block.router_bias.as_deref();
    let choice = choice(graph, prefix, logits, (&routing, shape, bias))?;
    // The fused operator reads gate and up of one neuron from neighbouring rows.
    let gate_up = Alternating::new(block.expert_gate, block.expert_up, 1);
    let weights = [&gate_up as &dyn Rows, block.expert_down.as_ref()];
    let storage = precision.experts;
    let mut routed = experts(graph, (prefix, input), (shape, storage), (&choice, weights))?;
    if let Some(factor) = &choice.factor {
        let weighted = Node::standard("Mul", &format!("{prefix}.weighted"));
        routed = graph.node(weighted.inputs(&[&routed, factor]));
    }
    let Some(shared) = block.shared else {
        return Ok(routed);
    };
    let shared = shared_expert(graph, prefix, input, (shared, precision.weights))?;
    Ok(graph.node(Node::standard("Add", &format!("{prefix}.sum")).inputs(&[&routed, &shared])))
}

/// Adds the fused operator over all routed experts.
fn experts(
    graph: &mut GraphWriter<'_, '_>,
    (prefix, input): (&str, &str),
    (shape, storage): (MoeShape, Storage),
    (choice, [gate_up_rows, down_rows]): (&Choice, [&dyn Rows; 2]),
) -> Result<String, ImportError> {
    let (gate_up, down) = (format!("{prefix}.gate_up"), format!("{prefix}.down"));
    let gate_up = store(graph, &gate_up, (gate_up_rows, storage), shape.experts)?;
    let down = store(graph, &down, (down_rows, storage), shape.experts)?;
    let flat = [-1, shape.experts as i64];
    let logits = reshape(
        graph,
        &format!("{prefix}.router.flat"),
        &choice.logits,
        &flat,
    );
    let name = format!("{prefix}.experts");
    let node = match storage.kind() {
        Kind::Floats(_) => {
            Node::contrib("MoE", &name).inputs(&[input, &logits, &gate_up, "", &down])
        }
        Kind::Codes(bits) => Node::contrib("QMoE", &name)
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
    Ok(graph.node(
        node.int("k", shape.experts_per_token)
            .int("normalize_routing_weights", 1)
            .text("activation_type", "swiglu")
            .int("swiglu_fusion", 1)
            // These three make the operator's SwiGLU the plain one.
            .float("activation_alpha", 1.0)
            .float("activation_beta", 0.0)
            .float("swiglu_limit", f32::INFINITY),
    ))
}

/// Adds the expert that works on every token, behind its switch where it has one.
fn shared_expert(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    input: &str,
    (shared, storage): (Shared<'_>, Storage),
) -> Result<String, ImportError> {
    let name = format!("{prefix}.shared");
    let output = swiglu(graph, &name, input, (shared.block, storage))?;
    let Some(switch) = shared.switch else {
        return Ok(output);
    };
    let tensor = format!("{name}.switch.weight");
    graph.transposed_f32(&tensor, switch.as_ref())?;
    let product =
        graph.node(Node::standard("MatMul", &format!("{name}.switch")).inputs(&[input, &tensor]));
    let weight =
        graph.node(Node::standard("Sigmoid", &format!("{name}.switch_on")).inputs(&[&product]));
    Ok(graph.node(Node::standard("Mul", &format!("{name}.switched")).inputs(&[&output, &weight])))
}

/// Adds the router's logits `[batch, sequence, experts]`, always in f32: which experts are
/// chosen must not depend on the precision of weights.
fn router(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    input: &str,
    weight: &dyn Rows,
) -> Result<String, ImportError> {
    let tensor = format!("{prefix}.router.weight");
    graph.transposed_f32(&tensor, weight)?;
    Ok(graph.node(Node::standard("MatMul", &format!("{prefix}.router")).inputs(&[input, &tensor])))
}

/// Stores the stacked matrices of all experts with the experts as first dimension, and
/// returns what the operator is to read.
fn store(
    graph: &mut GraphWriter<'_, '_>,
    name: &str,
    (rows, storage): (&dyn Rows, Storage),
    experts: usize,
) -> Result<String, ImportError> {
    let (height, width) = (rows.rows() / experts, rows.columns());
    match storage.kind() {
        Kind::Floats(float) => {
            graph.matrix(name, &[experts, height, width], (rows, float))?;
            Ok(as_singles(graph, name.to_owned(), float))
        }
        Kind::Codes(bits) => {
            let blocks = blocks_per_row(name, rows)?;
            let dims: [&[usize]; 2] = [
                &[experts, height, width * bits.count() / 8],
                &[experts, height, blocks],
            ];
            graph.matrix_quantised(name, rows, bits, dims)?;
            Ok(name.to_owned())
        }
    }
}
