//! What a recipe changes of a checkpoint's weights before they are cut: training on a carved
//! model finds it, and small matrices hold it.
//!
//! A weight matrix `W` `[out, in]` becomes `W + up · down`, where `{name}.up` is f16
//! `[out, rank]` and `{name}.down` f16 `[rank, in]`; a norm is replaced, `{name}` f16
//! `[hidden]`. Rows, columns and neurons are in the checkpoint's order, halves of rotary
//! projections apart. The sum costs nothing when the model runs, and every format can hold it.

use std::collections::{HashMap, hash_map::Entry};

use safetensors::SafeTensors;

use crate::{
    checkpoint::{CheckpointError, LayerRole, LayerSource, ModelConfig, Role},
    recipe::{PERMUTATION, ROUTER, Recipe, RecipeError, halves},
};

/// Highest rank of a correction.
pub const CORRECTION_RANK_MAX: usize = 256;

const MATRICES: [(&str, LayerRole); 7] = [
    ("attn_q", LayerRole::Query),
    ("attn_k", LayerRole::Key),
    ("attn_v", LayerRole::Value),
    ("attn_output", LayerRole::AttentionOutput),
    ("ffn_gate", LayerRole::Gate),
    ("ffn_up", LayerRole::Up),
    ("ffn_down", LayerRole::Down),
];
const NORMS: [(&str, LayerRole); 2] = [
    ("attn_norm", LayerRole::AttentionNorm),
    ("ffn_norm", LayerRole::FeedForwardNorm),
];
const FINAL_NORM: &str = "output_norm";
const UP: &str = ".up";
const DOWN: &str = ".down";

/// All changes of a recipe.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(HashMap<Role, Change>);

/// A change of one tensor.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A norm is these values.
    Replaced(Vec<f32>),
    /// A product is added to a matrix.
    LowRank(LowRank),
}

/// `up · down`, both row-major.
#[derive(Debug, Clone)]
pub(crate) struct LowRank {
    rank: usize,
    up: Vec<f32>,
    down: Vec<f32>,
}

impl Changes {
    /// The changes among `tensors`, of which those that cut `layers` layers are known already.
    pub(crate) fn parse(tensors: &SafeTensors<'_>, layers: usize) -> Result<Self, RecipeError> {
        let mut changes = HashMap::new();
        for name in tensors.names() {
            let unknown = || RecipeError::UnknownTensor {
                tensor: name.to_owned(),
            };
            if name == FINAL_NORM {
                changes.insert(Role::FinalNorm, replaced(tensors, name)?);
                continue;
            }
            let (layer, part) = layer_part(name, layers).ok_or_else(unknown)?;
            if [PERMUTATION, ROUTER].contains(&part) {
                continue;
            }
            let part = &part[1..];
            if let Some(role) = known(&NORMS, part) {
                changes.insert(Role::Layer(layer, role), replaced(tensors, name)?);
                continue;
            }
            // Whichever of a pair comes first brings the other.
            let matrix = name.strip_suffix(UP).or(name.strip_suffix(DOWN));
            let matrix = matrix.ok_or_else(unknown)?;
            let role =
                layer_part(matrix, layers).and_then(|(_, part)| known(&MATRICES, &part[1..]));
            let role = Role::Layer(layer, role.ok_or_else(unknown)?);
            if let Entry::Vacant(vacant) = changes.entry(role) {
                vacant.insert(Change::LowRank(LowRank::parse(tensors, matrix)?));
            }
        }
        Ok(Self(changes))
    }

    /// Checks that every change fits a checkpoint of these dimensions.
    pub(crate) fn check(&self, config: &ModelConfig) -> Result<(), RecipeError> {
        for (&role, change) in &self.0 {
            let (recipe, checkpoint) = (change.shape(), shape(config, role));
            if recipe != checkpoint {
                return Err(RecipeError::Correction {
                    role,
                    recipe,
                    checkpoint,
                });
            }
        }
        Ok(())
    }

    /// The change of the tensor in `role`.
    pub(crate) fn get(&self, role: Role) -> Option<&Change> {
        self.0.get(&role)
    }
}

/// Layer and rest (from its dot on) of a tensor's name.
fn layer_part(name: &str, layers: usize) -> Option<(usize, &str)> {
    let rest = name.strip_prefix("layers.")?;
    let (number, part) = rest.split_at(rest.find('.')?);
    let layer: usize = number.parse().ok()?;
    (layer < layers && layer.to_string() == number).then_some((layer, part))
}

fn known(table: &[(&str, LayerRole)], name: &str) -> Option<LayerRole> {
    let mut entries = table.iter();
    entries
        .find(|(known, _)| *known == name)
        .map(|&(_, role)| role)
}

fn dims(tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<usize>, RecipeError> {
    match tensors.tensor(name) {
        Ok(view) => Ok(view.shape().to_vec()),
        Err(_) => Err(RecipeError::MissingTensor {
            tensor: name.to_owned(),
        }),
    }
}

fn replaced(tensors: &SafeTensors<'_>, name: &str) -> Result<Change, RecipeError> {
    let values = dims(tensors, name)?.iter().product();
    Ok(Change::Replaced(halves(tensors, name, &[values])?))
}

/// Rows and columns in the checkpoint of a tensor that can be changed.
fn shape(config: &ModelConfig, role: Role) -> (usize, usize) {
    let hidden = config.hidden;
    match role {
        Role::Layer(_, LayerRole::Query) => (config.heads * config.head_dim, hidden),
        Role::Layer(_, LayerRole::Key | LayerRole::Value) => {
            (config.kv_heads * config.head_dim, hidden)
        }
        Role::Layer(_, LayerRole::AttentionOutput) => (hidden, config.heads * config.head_dim),
        Role::Layer(_, LayerRole::Gate | LayerRole::Up) => (config.neurons, hidden),
        Role::Layer(_, LayerRole::Down) => (hidden, config.neurons),
        _ => (1, hidden),
    }
}

impl Change {
    /// Rows and columns of the tensor it is for.
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Replaced(values) => (1, values.len()),
            Self::LowRank(change) => (
                change.up.len() / change.rank,
                change.down.len() / change.rank,
            ),
        }
    }

    /// Changes `out`, whole rows from row `first` on.
    fn apply(&self, first: usize, out: &mut [f32]) {
        match self {
            Self::Replaced(values) => out.copy_from_slice(values),
            Self::LowRank(change) => change.add(first, out),
        }
    }
}

impl LowRank {
    /// The pair for `matrix`.
    fn parse(tensors: &SafeTensors<'_>, matrix: &str) -> Result<Self, RecipeError> {
        let (up, down) = (format!("{matrix}{UP}"), format!("{matrix}{DOWN}"));
        let rank = dims(tensors, &down)?.first().copied().unwrap_or(0);
        if rank == 0 || rank > CORRECTION_RANK_MAX {
            return Err(RecipeError::Rank { tensor: down, rank });
        }
        let rows = dims(tensors, &up)?.first().copied().unwrap_or(0);
        let columns = dims(tensors, &down)?.last().copied().unwrap_or(0);
        Ok(Self {
            rank,
            up: halves(tensors, &up, &[rows, rank])?,
            down: halves(tensors, &down, &[rank, columns])?,
        })
    }

    fn add(&self, first: usize, out: &mut [f32]) {
        let columns = self.down.len() / self.rank;
        let factors = self.up.chunks_exact(self.rank).skip(first);
        for (row, factors) in out.chunks_exact_mut(columns).zip(factors) {
            for (factor, part) in factors.iter().zip(self.down.chunks_exact(columns)) {
                for (value, part) in row.iter_mut().zip(part) {
                    *value += factor * part;
                }
            }
        }
    }
}

/// A checkpoint as a recipe that was checked against it changes it, not yet cut.
pub(crate) struct Corrected<'a> {
    source: &'a dyn LayerSource,
    recipe: &'a Recipe,
}

impl<'a> Corrected<'a> {
    /// `source` with the changes of `recipe`.
    pub(crate) fn new(source: &'a dyn LayerSource, recipe: &'a Recipe) -> Self {
        Self { source, recipe }
    }
}

impl LayerSource for Corrected<'_> {
    fn config(&self) -> &ModelConfig {
        self.source.config()
    }

    fn shape(&self, role: Role) -> Result<(usize, usize), CheckpointError> {
        self.source.shape(role)
    }

    fn read_rows(&self, role: Role, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        self.source.read_rows(role, first, out)?;
        if let Some(change) = self.recipe.change(role) {
            change.apply(first, out);
        }
        Ok(())
    }
}
