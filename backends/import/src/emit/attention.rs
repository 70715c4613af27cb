//! Grouped-query attention with rotary positions and a key/value cache: an operator of Mote's own beside
//! matrices in its layout, which `mote-kernels` computes, or else ONNX Runtime's.

use super::{
    Blueprint, CacheStorage, Gives, Layout,
    cache::{as_halves, cast, scales},
    linear::linear_biased,
};
use crate::{
    ImportError,
    checkpoint::{LayerRole, QueryKeyNorm, Role, Rows, Scaled, SourceRows, Stacked, read_all},
    onnx::{GraphWriter, Node, proto::DataType},
};

/// What heads of our own operator are multiples of.
const HEAD_PARTS: usize = 16;
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
    let projection = |role| projection(blueprint, layer, role);
    let qkv = Stacked::new(vec![
        projection(LayerRole::Query)?,
        projection(LayerRole::Key)?,
        projection(LayerRole::Value)?,
    ]);
    let bias = match config.attention.input_bias {
        false => None,
        true => {
            let roles = [
                LayerRole::QueryBias,
                LayerRole::KeyBias,
                LayerRole::ValueBias,
            ];
            let mut bias = Vec::new();
            for role in roles {
                bias.extend(read_all(projection(role)?.as_ref())?);
            }
            Some(bias)
        }
    };
    let name = format!("{prefix}.qkv");
    let packed = linear_biased(graph, &name, input, (&qkv, storage, bias))?;
    let heads = match config.attention.norm {
        QueryKeyNorm::None => [packed, String::new(), String::new()],
        _ => normed_heads(blueprint, graph, layer, &packed)?,
    };
    let attended = core(blueprint, graph, layer, heads)?;
    output(blueprint, graph, layer, &attended)
}

/// The weights in `role` of `layer`.
pub(super) fn projection<'a>(
    blueprint: &Blueprint<'a>,
    layer: usize,
    role: LayerRole,
) -> Result<Box<dyn Rows + 'a>, ImportError> {
    let rows = SourceRows::new(blueprint.source, Role::Layer(layer, role))?;
    Ok(Box::new(rows))
}

/// Splits packed projections and norms queries and keys.
fn normed_heads(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    layer: usize,
    packed: &str,
) -> Result<[String; 3], ImportError> {
    let config = blueprint.source.config();
    let prefix = format!("layers.{layer}.attention");
    let [query, key, value] = ["query", "key", "value"].map(|part| format!("{prefix}.{part}"));
    let sizes = format!("{prefix}.qkv.sizes");
    let (query_width, kv_width) = (config.query_width() as i64, config.kv_width() as i64);
    graph.constant_i64(&sizes, &[query_width, kv_width, kv_width]);
    graph.node(
        Node::standard("Split", &format!("{prefix}.qkv.split"))
            .inputs(&[packed, &sizes])
            .outputs(&[&query, &key, &value])
            .signed("axis", -1),
    );
    let mut norm = |name: &str, role, heads| -> Result<String, ImportError> {
        let weight = format!("{name}_norm.weight");
        graph.vector(&weight, projection(blueprint, layer, role)?.as_ref())?;
        let by_head = config.attention.norm == QueryKeyNorm::PerHead;
        let input = match by_head {
            true => reshape(graph, &format!("{name}.heads"), name, &[0, 0, heads, -1]),
            false => name.to_owned(),
        };
        let normed = rms_norm(
            graph,
            &format!("{name}_norm"),
            [&input, &weight],
            config.norm_epsilon,
        );
        Ok(match by_head {
            true => reshape(graph, &format!("{name}.flat"), &normed, &[0, 0, -1]),
            false => normed,
        })
    };
    Ok([
        norm(&query, LayerRole::QueryNorm, config.heads as i64)?,
        norm(&key, LayerRole::KeyNorm, config.kv_heads as i64)?,
        value,
    ])
}

/// Adds an RMS norm of `input`'s last dimension.
pub(super) fn rms_norm(
    graph: &mut GraphWriter<'_, '_>,
    name: &str,
    [input, weight]: [&str; 2],
    epsilon: f32,
) -> String {
    graph.node(
        Node::standard("SimplifiedLayerNormalization", name)
            .inputs(&[input, weight])
            .signed("axis", -1)
            .float("epsilon", epsilon)
            .int("stash_type", 1),
    )
}

/// Adds `input` with another shape; 0 keeps a dimension.
pub(super) fn reshape(
    graph: &mut GraphWriter<'_, '_>,
    name: &str,
    input: &str,
    dims: &[i64],
) -> String {
    let shape = format!("{name}.shape");
    graph.constant_i64(&shape, dims);
    graph.node(Node::standard("Reshape", name).inputs(&[input, &shape]))
}

impl Blueprint<'_> {
    /// How keys and values are kept.
    pub(super) fn cache(&self) -> CacheStorage {
        match (self.gives, self.precision.cache) {
            // There is none.
            (Gives::States, _) => CacheStorage::F32,
            (Gives::Logits, Some(cache)) => cache,
            (Gives::Logits, None) if self.has_own_attention() => CacheStorage::F16,
            (Gives::Logits, None) => CacheStorage::F32,
        }
    }

    /// Whether the attention is Mote's own operator: where matrices are its own, too, and its kernel
    /// computes what there is to be computed.
    fn has_own_attention(&self) -> bool {
        let (config, precision) = (self.source.config(), self.precision);
        precision.layout == Layout::Kernels
            && precision.weights.code_bits().is_some()
            && precision.cache != Some(CacheStorage::Int8)
            && self.gives == Gives::Logits
            && config.head_dim.is_multiple_of(HEAD_PARTS)
            && config.rotary_dim() > 0
    }
}

/// Adds the attention itself over queries, keys and values, or over all of them packed in
/// the first. Without a cache the past is left out, and nobody reads the present.
pub(super) fn core(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    layer: usize,
    mut heads: [String; 3],
) -> Result<String, ImportError> {
    let (config, cache) = (blueprint.source.config(), blueprint.cache());
    let name = format!("layers.{layer}.attention.core");
    let window = config.window_of(layer).map_or(-1, |tokens| tokens as i64);
    let is_own = blueprint.has_own_attention();
    // Ours computes with singles, whatever the cache is kept as.
    let halves = cache == CacheStorage::F16 && !is_own;
    if halves {
        for input in heads.iter_mut().filter(|input| !input.is_empty()) {
            *input = as_halves(graph, input);
        }
    }
    let [cos, sin] = tables(halves);
    let [query, key, value] = heads;
    let past = |part: &str| match blueprint.gives {
        Gives::Logits => format!("past_key_values.{layer}.{part}"),
        Gives::States => String::new(),
    };
    let mut inputs = vec![
        query,
        key,
        value,
        past("key"),
        past("value"),
        "seqlens_k".to_owned(),
        "total_sequence_length".to_owned(),
        cos,
        sin,
    ];
    let mut node = match is_own {
        true => Node::own("CachedAttention", &name),
        false => Node::contrib("GroupQueryAttention", &name),
    };
    if cache == CacheStorage::Int8 {
        // Between tables and scales: positions, a bias, sinks.
        inputs.extend([const { String::new() }; 3]);
        inputs.extend(scales(blueprint, graph, layer)?);
        node = node
            .text("k_quant_type", "PER_CHANNEL")
            .text("v_quant_type", "PER_CHANNEL")
            .int("kv_cache_bit_width", 8);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    if !is_own {
        node = node.int("do_rotary", 1).float("softcap", 0.0);
    }
    let attended = graph.node(
        node.inputs(&inputs)
            .outputs(&[
                &format!("{name}.out"),
                &format!("present.{layer}.key"),
                &format!("present.{layer}.value"),
            ])
            .int("num_heads", config.heads)
            .int("kv_num_heads", config.kv_heads)
            .float("scale", config.attention.scale)
            .int("rotary_interleaved", config.rope.interleaved.into())
            // As many keys as the window has tokens; measured, as versions have differed.
            .signed("local_window_size", window),
    );
    Ok(match halves {
        true => cast(
            graph,
            &format!("{name}.singles"),
            &attended,
            DataType::Float,
        ),
        false => attended,
    })
}

/// Names of the rotary tables, of the type that attention computes with.
fn tables(halves: bool) -> [String; 2] {
    let suffix = if halves { ".halves.out" } else { "" };
    [COS, SIN].map(|name| format!("{name}{suffix}"))
}

/// Adds the output projection, with the residual stream's multiplier applied.
pub(super) fn output(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    layer: usize,
    attended: &str,
) -> Result<String, ImportError> {
    let config = blueprint.source.config();
    let residual = config.multipliers.residual;
    let scaled = |role| -> Result<_, ImportError> {
        Ok(Scaled::boxed(projection(blueprint, layer, role)?, residual))
    };
    let bias = match config.attention.output_bias {
        true => Some(read_all(scaled(LayerRole::OutputBias)?.as_ref())?),
        false => None,
    };
    let weight = scaled(LayerRole::AttentionOutput)?;
    linear_biased(
        graph,
        &format!("layers.{layer}.attention.output"),
        attended,
        (weight.as_ref(), blueprint.precision.weights, bias),
    )
}

/// Adds the cosines and sines of all positions, `[context_tokens, rotary_dim / 2]`.
///
/// Frequencies and angles are f32, as in the reference implementation the models were
/// trained with.
pub(super) fn rotary_tables(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
) -> Result<(), ImportError> {
    let config = blueprint.source.config();
    let frequencies = config.rope.frequencies(config.rotary_dim());
    let angles: Vec<f64> = (0..blueprint.context_tokens)
        .flat_map(|position| {
            frequencies
                .iter()
                .map(move |frequency| f64::from(position as f32 * frequency))
        })
        .collect();
    let dims = [blueprint.context_tokens, frequencies.len()];
    let amplitude = config.rope.amplitude();
    for (name, function) in [(COS, f64::cos as fn(f64) -> f64), (SIN, f64::sin)] {
        let values = angles.iter().map(|&angle| function(angle) as f32);
        let table: Vec<f32> = values.map(|value| value * amplitude).collect();
        graph.constant_f32(name, &dims, &table)?;
        if blueprint.cache() == CacheStorage::F16 && !blueprint.has_own_attention() {
            as_halves(graph, name);
        }
    }
    Ok(())
}
