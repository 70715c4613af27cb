//! Multi-head latent attention: keys and values are products of a narrow latent.
//!
//! The cache holds what is made of the latent, since the attention operator reads that. Each
//! head's rotated elements come first there, as the operator rotates the first ones; keys
//! have one rotated part for all heads. Values are padded to the width of keys.

use super::{
    Blueprint,
    attention::{core, output, projection, reshape, rms_norm},
    linear::linear,
};
use crate::{
    ImportError,
    checkpoint::{Latent, LayerRole, Mapped},
    onnx::{GraphWriter, Node},
};

/// The latents' norms have an epsilon of their own in the models' code, whatever the
/// configuration says.
const LATENT_NORM_EPSILON: f32 = 1e-6;

/// Adds the attention of `layer` over `input` and returns its output.
pub(super) fn attention(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    (layer, latent): (usize, Latent),
    input: &str,
) -> Result<String, ImportError> {
    let config = blueprint.source.config();
    let query = queries(blueprint, graph, (layer, latent), input)?;
    let [key, value] = keys_and_values(blueprint, graph, (layer, latent), input)?;
    let attended = core(blueprint, graph, layer, &[query, key, value]);
    let attended = unpad(graph, (layer, config.heads), latent, attended);
    output(blueprint, graph, layer, &attended)
}

fn queries(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    (layer, latent): (usize, Latent),
    input: &str,
) -> Result<String, ImportError> {
    let storage = blueprint.precision.weights;
    let prefix = format!("layers.{layer}.attention.query");
    let narrow = match latent.query_rank {
        None => input.to_owned(),
        Some(_) => {
            let down = projection(blueprint, layer, LayerRole::QueryDown)?;
            let name = format!("{prefix}_latent");
            let narrow = linear(graph, &name, input, (down.as_ref(), storage))?;
            norm(
                blueprint,
                graph,
                (layer, LayerRole::QueryDownNorm),
                [&name, &narrow],
            )?
        }
    };
    let stored = projection(blueprint, layer, LayerRole::Query)?;
    let (nope, rope) = (latent.nope_dim, latent.rope_dim);
    let rows = stored.rows();
    let rotated_first = Mapped::new(stored, rows, move |row| {
        let (head, within) = (row / (nope + rope), row % (nope + rope));
        head * (nope + rope) + (within + nope) % (nope + rope)
    });
    linear(graph, &prefix, &narrow, (&rotated_first, storage))
}

fn norm(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    (layer, role): (usize, LayerRole),
    [name, input]: [&str; 2],
) -> Result<String, ImportError> {
    let weight = format!("{name}_norm.weight");
    graph.vector(&weight, projection(blueprint, layer, role)?.as_ref())?;
    let name = format!("{name}_norm");
    Ok(rms_norm(
        graph,
        &name,
        [input, &weight],
        LATENT_NORM_EPSILON,
    ))
}

fn keys_and_values(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    (layer, latent): (usize, Latent),
    input: &str,
) -> Result<[String; 2], ImportError> {
    let config = blueprint.source.config();
    let storage = blueprint.precision.weights;
    let prefix = format!("layers.{layer}.attention");
    let name = format!("{prefix}.kv_latent");
    let down = projection(blueprint, layer, LayerRole::KvDown)?;
    let both = linear(graph, &name, input, (down.as_ref(), storage))?;
    let (narrow, rotated) = (format!("{name}.narrow"), format!("{name}.rotated"));
    let sizes = format!("{name}.sizes");
    graph.constant_i64(&sizes, &[latent.kv_rank as i64, latent.rope_dim as i64]);
    graph.node(
        Node::standard("Split", &format!("{name}.split"))
            .inputs(&[&both, &sizes])
            .outputs(&[&narrow, &rotated])
            .signed("axis", -1),
    );
    let narrow = norm(
        blueprint,
        graph,
        (layer, LayerRole::KvDownNorm),
        [&name, &narrow],
    )?;
    let mut up = |part: &str, (skip, width): (usize, usize)| {
        let stored = projection(blueprint, layer, LayerRole::KvUp)?;
        let stride = latent.nope_dim + latent.value_dim;
        let rows = Mapped::new(stored, config.heads * width, move |row| {
            row / width * stride + skip + row % width
        });
        let product = linear(
            graph,
            &format!("{prefix}.{part}_up"),
            &narrow,
            (&rows, storage),
        )?;
        let dims = [0, 0, config.heads as i64, width as i64];
        let name = format!("{prefix}.{part}_heads");
        Ok::<_, ImportError>(reshape(graph, &name, &product, &dims))
    };
    let keys = up("key", (0, latent.nope_dim))?;
    let values = up("value", (latent.nope_dim, latent.value_dim))?;
    let keys = with_rotated(graph, &prefix, [&rotated, &keys], config.heads);
    let values = pad(graph, &prefix, &values, config.head_dim - latent.value_dim);
    Ok([keys, values])
}

/// Puts the rotated part before each head's other one.
fn with_rotated(
    graph: &mut GraphWriter<'_, '_>,
    prefix: &str,
    [rotated, keys]: [&str; 2],
    heads: usize,
) -> String {
    let one = reshape(
        graph,
        &format!("{prefix}.rotated_head"),
        rotated,
        &[0, 0, 1, -1],
    );
    let repeats = format!("{prefix}.rotated_repeats");
    graph.constant_i64(&repeats, &[1, 1, heads as i64, 1]);
    let all = graph
        .node(Node::standard("Tile", &format!("{prefix}.rotated_heads")).inputs(&[&one, &repeats]));
    let whole = graph.node(
        Node::standard("Concat", &format!("{prefix}.key_whole"))
            .inputs(&[&all, keys])
            .signed("axis", -1),
    );
    reshape(graph, &format!("{prefix}.key"), &whole, &[0, 0, -1])
}

fn pad(graph: &mut GraphWriter<'_, '_>, prefix: &str, values: &str, elements: usize) -> String {
    let padded = match elements {
        0 => values.to_owned(),
        _ => {
            let pads = format!("{prefix}.value_pads");
            graph.constant_i64(&pads, &[0, 0, 0, 0, 0, 0, 0, elements as i64]);
            graph.node(
                Node::standard("Pad", &format!("{prefix}.value_padded")).inputs(&[values, &pads]),
            )
        }
    };
    reshape(graph, &format!("{prefix}.value"), &padded, &[0, 0, -1])
}

fn unpad(
    graph: &mut GraphWriter<'_, '_>,
    (layer, heads): (usize, usize),
    latent: Latent,
    attended: String,
) -> String {
    if latent.value_dim == latent.nope_dim + latent.rope_dim {
        return attended;
    }
    let name = format!("layers.{layer}.attention.attended");
    let by_head = reshape(
        graph,
        &format!("{name}_heads"),
        &attended,
        &[0, 0, heads as i64, -1],
    );
    let [from, to, axis] = ["from", "to", "axis"].map(|part| format!("{name}.{part}"));
    graph.constant_i64(&from, &[0]);
    graph.constant_i64(&to, &[latent.value_dim as i64]);
    graph.constant_i64(&axis, &[3]);
    let cut = graph.node(
        Node::standard("Slice", &format!("{name}_cut")).inputs(&[&by_head, &from, &to, &axis]),
    );
    reshape(graph, &name, &cut, &[0, 0, -1])
}
