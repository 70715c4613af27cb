//! Embedding and what the graph gives: an output head, or the states it would read. When they are tied, both read one stored tensor.

use super::{
    Blueprint,
    linear::{
        Kind, as_singles, is_tiled, linear_node, matmul_n_bits, store_matmul_weight, store_tiles,
        tiled,
    },
};
use crate::{
    ImportError,
    checkpoint::{Role, Rows, SourceRows},
    onnx::{GraphWriter, Node},
    quantise::{BLOCK, Bits},
};

const EMBEDDING: &str = "embedding.weight";
const LOGITS: &str = "logits";
/// How many of the last positions have logits.
pub(super) const LOGITS_KEPT: &str = "num_logits_to_keep";
/// Name of the output with a state for each position.
pub(super) const STATES: &str = "last_hidden_state";

/// Adds the lookup of `input_ids` and returns its output.
pub(super) fn embedding(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
) -> Result<String, ImportError> {
    let rows = SourceRows::new(blueprint.source, Role::Embedding)?;
    let looked_up = match blueprint.precision.head.kind() {
        Kind::Floats(width) => {
            graph.matrix(EMBEDDING, &[rows.rows(), rows.columns()], (&rows, width))?;
            let found =
                graph.node(Node::standard("Gather", "embedding").inputs(&[EMBEDDING, "input_ids"]));
            as_singles(graph, found, width)
        }
        Kind::Codes(bits) if is_tiled(graph, &rows) => {
            let tensor = store_tiles(graph, EMBEDDING, &rows, bits)?;
            let inputs = ["input_ids", &tensor];
            graph.node(tiled("TiledGather", "embedding", inputs, (&rows, bits)))
        }
        Kind::Codes(bits) => {
            store_matmul_weight(graph, EMBEDDING, &rows, bits)?;
            quantised_lookup(graph, &rows, bits)
        }
    };
    let multiplier = blueprint.source.config().multipliers.embedding;
    if multiplier == 1.0 {
        return Ok(looked_up);
    }
    let factor = "embedding.multiplier";
    graph.scalar_f32(factor, multiplier)?;
    Ok(graph.node(Node::standard("Mul", "embedding.scaled").inputs(&[&looked_up, factor])))
}

/// The stored tensor has the three dimensions that the head's product takes; the lookup
/// takes two.
fn quantised_lookup(graph: &mut GraphWriter<'_, '_>, rows: &dyn Rows, bits: Bits) -> String {
    let shape = "embedding.shape";
    let row_bytes = rows.columns() * bits.count() / 8;
    graph.constant_i64(shape, &[rows.rows() as i64, row_bytes as i64]);
    let codes = graph.node(
        Node::standard("Reshape", "embedding.rows").inputs(&[&format!("{EMBEDDING}.codes"), shape]),
    );
    graph.node(
        Node::contrib("GatherBlockQuantized", "embedding")
            .inputs(&[&codes, "input_ids", &format!("{EMBEDDING}.scales")])
            .int("bits", bits.count())
            .int("block_size", BLOCK)
            .int("gather_axis", 0)
            .int("quantize_axis", 1),
    )
}

/// Adds the last positions, as many as are to have logits, of the two summands of the residual
/// stream, both `[batch, sequence, hidden]`.
pub(super) fn last_positions(
    graph: &mut GraphWriter<'_, '_>,
    [residual, mixed]: [&str; 2],
) -> [String; 2] {
    let [end, axis] = ["last.end", "last.axis"];
    graph.constant_i64(end, &[i64::MAX]);
    graph.constant_i64(axis, &[1]);
    let start = graph.node(Node::standard("Neg", "last.start").inputs(&[LOGITS_KEPT]));
    [("last_residual", residual), ("last_mixed", mixed)].map(|(name, input)| {
        graph.node(Node::standard("Slice", name).inputs(&[input, &start, end, axis]))
    })
}

/// Adds the head over `input` `[batch, num_logits, hidden]`; its output is the graph's.
pub(super) fn head(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    input: &str,
) -> Result<(), ImportError> {
    let config = blueprint.source.config();
    let storage = blueprint.precision.head;
    let node = match storage.kind() {
        Kind::Floats(width) if !config.tied_head => {
            let rows = SourceRows::new(blueprint.source, Role::Head)?;
            let tensor = "head.weight";
            graph.matrix(tensor, &[rows.rows(), rows.columns()], (&rows, width))?;
            let tensor = as_singles(graph, tensor.to_owned(), width);
            transposed_product(input, &tensor)
        }
        Kind::Codes(_) if !config.tied_head => {
            let rows = SourceRows::new(blueprint.source, Role::Head)?;
            linear_node(graph, "head", input, (&rows, storage))?
        }
        Kind::Floats(width) => {
            let embedding = as_singles(graph, EMBEDDING.to_owned(), width);
            transposed_product(input, &embedding)
        }
        Kind::Codes(bits) => {
            let rows = SourceRows::new(blueprint.source, Role::Embedding)?;
            if is_tiled(graph, &rows) {
                let tensor = format!("{EMBEDDING}.tiles");
                let node = tiled("TiledMatMul", "head", [input, &tensor], (&rows, bits));
                graph.node(node.outputs(&[LOGITS]));
                return Ok(());
            }
            let shape = (config.vocab, config.hidden);
            matmul_n_bits("head", [input, EMBEDDING], shape, bits)
        }
    };
    graph.node(node.outputs(&[LOGITS]));
    Ok(())
}

/// Makes `input` `[batch, sequence, hidden]` the graph's output.
pub(super) fn states(graph: &mut GraphWriter<'_, '_>, input: &str) {
    graph.node(
        Node::standard("Identity", "states")
            .inputs(&[input])
            .outputs(&[STATES]),
    );
}

/// The standard product would need a transposed copy of the largest tensor.
fn transposed_product(input: &str, tensor: &str) -> Node {
    Node::contrib("FusedMatMul", "head")
        .inputs(&[input, tensor])
        .int("transB", 1)
}
