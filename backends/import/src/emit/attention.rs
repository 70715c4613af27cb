//! Grouped-query attention with rotary positions and a key/value cache.

use super::{Blueprint, linear::linear};
use crate::{
    ImportError,
    checkpoint::{LayerRole, Role, Rows, SourceRows, Stacked},
    onnx::{GraphWriter, Node},
};

const COS: &str = "rotary.cos";
const SIN: &str = "rotary.sin";

/// Adds the attention of `layer` over `input` and returns its output.
pub(super) fn attention(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    layer: usize,
    input: &str,
) -> Result<String, ImportError> {
    let config = blueprint.source.config();
    let storage = blueprint.precision.weights;
    let prefix = format!("layers.{layer}.attention");
    let projection =
        |role| SourceRows::new(blueprint.source, Role::Layer(layer, role)).map(Box::new);
    let qkv: Vec<Box<dyn Rows + '_>> = vec![
        projection(LayerRole::Query)?,
        projection(LayerRole::Key)?,
        projection(LayerRole::Value)?,
    ];
    let qkv = Stacked::new(qkv);
    let packed = linear(graph, &format!("{prefix}.qkv"), input, (&qkv, storage))?;
    let name = format!("{prefix}.core");
    let attended = graph.node(
        Node::contrib("GroupQueryAttention", &name)
            .inputs(&[
                &packed,
                "",
                "",
                &format!("past_key_values.{layer}.key"),
                &format!("past_key_values.{layer}.value"),
                "seqlens_k",
                "total_sequence_length",
                COS,
                SIN,
            ])
            .outputs(&[
                &format!("{name}.out"),
                &format!("present.{layer}.key"),
                &format!("present.{layer}.value"),
            ])
            .int("num_heads", config.heads)
            .int("kv_num_heads", config.kv_heads)
            .float("scale", (config.head_dim as f32).sqrt().recip())
            .int("do_rotary", 1)
            .int("rotary_interleaved", 0)
            .signed("local_window_size", -1)
            .float("softcap", 0.0),
    );
    let output = projection(LayerRole::AttentionOutput)?;
    linear(
        graph,
        &format!("{prefix}.output"),
        &attended,
        (output.as_ref(), storage),
    )
}

/// Adds the cosines and sines of all positions, `[context_tokens, head_dim / 2]`.
///
/// Frequencies and angles are f32, as in the reference implementation the models were
/// trained with.
pub(super) fn rotary_tables(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
) -> Result<(), ImportError> {
    let config = blueprint.source.config();
    let half = config.head_dim / 2;
    let frequencies: Vec<f32> = (0..half)
        .map(|pair| {
            let exponent = (2 * pair) as f32 / config.head_dim as f32;
            config.rope_base.powf(exponent).recip()
        })
        .collect();
    let angles: Vec<f64> = (0..blueprint.context_tokens)
        .flat_map(|position| {
            frequencies
                .iter()
                .map(move |frequency| f64::from(position as f32 * frequency))
        })
        .collect();
    let dims = [blueprint.context_tokens, half];
    for (name, function) in [(COS, f64::cos as fn(f64) -> f64), (SIN, f64::sin)] {
        let table: Vec<f32> = angles.iter().map(|&angle| function(angle) as f32).collect();
        graph.constant_f32(name, &dims, &table)?;
    }
    Ok(())
}
