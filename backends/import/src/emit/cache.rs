//! How keys and values are kept between runs.
//!
//! Eight-bit caches need a scale for each channel before anything is computed. What a norm
//! lets in is known: its output times its weights has elements of about the weights' size. A
//! channel of a projection then spreads by the length of its row, weighted so. Rotation mixes
//! the two channels of a pair, so both get the pair's length.

use super::{Blueprint, attention::projection};
use crate::{
    ImportError,
    checkpoint::{Latent, LayerRole, QueryKeyNorm, Rope, read_all},
    onnx::{GraphWriter, Node, proto::DataType},
};

/// Largest code of eight bits.
const CODE_MAX: f32 = 127.0;
/// Spreads that a code reaches. With SmolLM2, channels stay below 10 and all but 1 % of them
/// below 6; 8 gives the lowest perplexity, and what is beyond it is cut off.
const SPREADS: f32 = 8.0;
/// A channel that is always 0 needs a scale too.
const SCALE_MIN: f32 = 1e-6;

/// How keys and values are kept between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStorage {
    /// IEEE single.
    F32,
    /// IEEE half. ONNX Runtime's attention computes with halves, too; our own with singles.
    F16,
    /// 8-bit codes with a scale per channel.
    Int8,
}

impl CacheStorage {
    /// Element type of the cache.
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::F32 => DataType::Float,
            Self::F16 => DataType::Float16,
            Self::Int8 => DataType::Int8,
        }
    }
}

/// Adds the scales of a layer's keys and values, each `[1, kv_heads, 1, head_dim]`.
pub(super) fn scales(
    blueprint: &Blueprint<'_>,
    graph: &mut GraphWriter<'_, '_>,
    layer: usize,
) -> Result<[String; 2], ImportError> {
    let config = blueprint.source.config();
    let dims = [1, config.kv_heads, 1, config.head_dim];
    let [keys, values] = match config.attention.latent {
        None => [
            key_reach(blueprint, layer)?,
            reach(
                blueprint,
                layer,
                (LayerRole::Value, LayerRole::ValueBias),
                &|_| None,
            )?,
        ],
        Some(latent) => latent_reach(blueprint, layer, latent)?,
    };
    let mut store = |part: &str, reach: Vec<f32>| {
        let name = format!("layers.{layer}.attention.{part}_cache.scales");
        let scales: Vec<f32> = reach
            .iter()
            .map(|reach| (reach / CODE_MAX).max(SCALE_MIN))
            .collect();
        graph.constant_f32(&name, &dims, &scales)?;
        Ok::<_, ImportError>(name)
    };
    Ok([store("key", keys)?, store("value", values)?])
}

/// How far each channel of keys reaches.
fn key_reach(blueprint: &Blueprint<'_>, layer: usize) -> Result<Vec<f32>, ImportError> {
    let config = blueprint.source.config();
    let partner = |channel: usize| Some(partner(&config.rope, config.head_dim, channel));
    if config.attention.norm == QueryKeyNorm::None {
        let mut reach = reach(
            blueprint,
            layer,
            (LayerRole::Key, LayerRole::KeyBias),
            &partner,
        )?;
        reach
            .iter_mut()
            .for_each(|reach| *reach *= config.rope.amplitude());
        return Ok(reach);
    }
    let weights = read_all(projection(blueprint, layer, LayerRole::KeyNorm)?.as_ref())?;
    let spread: Vec<f32> = (0..config.kv_width())
        .map(|channel| weights[channel % weights.len()].abs())
        .collect();
    let reach = SPREADS * config.rope.amplitude();
    Ok(of_pairs(&spread, &partner)
        .into_iter()
        .map(|spread| spread * reach)
        .collect())
}

/// How far each channel of a projection reaches: some spreads around its bias.
fn reach(
    blueprint: &Blueprint<'_>,
    layer: usize,
    (role, bias): (LayerRole, LayerRole),
    partner: &dyn Fn(usize) -> Option<usize>,
) -> Result<Vec<f32>, ImportError> {
    let spread = spread(blueprint, layer, (LayerRole::AttentionNorm, role))?;
    let mut reach = of_pairs(&spread, partner);
    reach.iter_mut().for_each(|reach| *reach *= SPREADS);
    if blueprint.source.config().attention.input_bias {
        let bias = read_all(projection(blueprint, layer, bias)?.as_ref())?;
        let bias = of_pairs(&bias, partner);
        for (reach, bias) in reach.iter_mut().zip(bias) {
            *reach += bias;
        }
    }
    Ok(reach)
}

/// How far each channel of keys and of values reaches that are made of a latent. Heads have
/// their rotated elements first, the same for all.
fn latent_reach(
    blueprint: &Blueprint<'_>,
    layer: usize,
    latent: Latent,
) -> Result<[Vec<f32>; 2], ImportError> {
    let config = blueprint.source.config();
    let down = spread(
        blueprint,
        layer,
        (LayerRole::AttentionNorm, LayerRole::KvDown),
    )?;
    let (rope, width) = (&config.rope, latent.rope_dim);
    let rotated = of_pairs(&down[latent.kv_rank..], &|channel| {
        Some(partner(rope, width, channel))
    });
    let up = spread(blueprint, layer, (LayerRole::KvDownNorm, LayerRole::KvUp))?;
    let padding = vec![0.0; config.head_dim - latent.value_dim];
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for head in up.chunks_exact(latent.nope_dim + latent.value_dim) {
        let (key, value) = head.split_at(latent.nope_dim);
        keys.extend(rotated.iter().map(|spread| spread * rope.amplitude()));
        keys.extend(key);
        values.extend(value.iter().chain(&padding));
    }
    Ok([keys, values].map(|spread| spread.into_iter().map(|spread| spread * SPREADS).collect()))
}

/// How far each channel of the projection `role` spreads behind `norm`.
fn spread(
    blueprint: &Blueprint<'_>,
    layer: usize,
    (norm, role): (LayerRole, LayerRole),
) -> Result<Vec<f32>, ImportError> {
    let gains = read_all(projection(blueprint, layer, norm)?.as_ref())?;
    let rows = projection(blueprint, layer, role)?;
    let mut row = vec![0.0; rows.columns()];
    let mut spread = Vec::with_capacity(rows.rows());
    for index in 0..rows.rows() {
        rows.read(index, &mut row)?;
        let weighted = row.iter().zip(&gains).map(|(weight, gain)| weight * gain);
        spread.push(weighted.map(|value| value * value).sum::<f32>().sqrt());
    }
    Ok(spread)
}

/// The length of each channel together with its partner, where it has one.
fn of_pairs(channels: &[f32], partner: &dyn Fn(usize) -> Option<usize>) -> Vec<f32> {
    (0..channels.len())
        .map(|channel| {
            let other = partner(channel).map_or(0.0, |other| channels[other]);
            channels[channel].hypot(other)
        })
        .collect()
}

/// The channel that rotation mixes `channel` with.
fn partner(rope: &Rope, head_dim: usize, channel: usize) -> usize {
    let (head, within) = (channel / head_dim, channel % head_dim);
    let other = match rope.interleaved {
        true => within ^ 1,
        false => (within + head_dim / 2) % head_dim,
    };
    head * head_dim + other
}

/// Adds `input` as halves.
pub(super) fn as_halves(graph: &mut GraphWriter<'_, '_>, input: &str) -> String {
    cast(graph, &format!("{input}.halves"), input, DataType::Float16)
}

/// Adds `input` with another element type.
pub(super) fn cast(
    graph: &mut GraphWriter<'_, '_>,
    name: &str,
    input: &str,
    kind: DataType,
) -> String {
    graph.node(
        Node::standard("Cast", name)
            .inputs(&[input])
            .signed("to", i32::from(kind).into()),
    )
}
