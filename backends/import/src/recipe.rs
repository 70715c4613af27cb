//! Carving recipes: how the dense feed-forward blocks of a checkpoint are cut into one
//! shared expert and several routed ones, and how its weights are corrected for that.
//!
//! A recipe is a safetensors file. For each layer `l` it holds `layers.{l}.permutation`
//! (u16 `[neurons]`: first the shared neurons, then those of each expert in turn) and
//! `layers.{l}.router` (f16 `[experts, hidden]`). Other tensors are corrections of the
//! checkpoint's weights; see [`correction`](crate::correction). Its metadata say what it
//! belongs to.
//!
//! The carved block computes
//! `y = shared(x) + Σ_{chosen} softmax_{chosen}(t · router · x) · k · expert(x)`
//! with temperature `t` and `k` experts chosen by the largest logits. With equal weights
//! that is the plain sum of the chosen neurons, so all experts on give the dense block.

use std::collections::HashMap;

use half::f16;
use safetensors::{Dtype, SafeTensors, tensor::SafeTensorError};
use thiserror::Error;

use crate::{
    checkpoint::{LAYER_COUNT_MAX, ModelConfig, Role},
    correction::{CORRECTION_RANK_MAX, Change, Changes},
    digest::Digest,
};

/// The recipe's own format name.
pub const RECIPE_FORMAT: &str = "mote-carve-2";
/// Largest recipe, in bytes.
pub const RECIPE_BYTES_MAX: usize = 64 << 20;
/// Largest factor on router logits; keeps scaled f16 weights finite.
pub const ROUTER_TEMPERATURE_MAX: f32 = 1e6;
/// Most routed experts per layer.
pub const EXPERT_COUNT_MAX: usize = 1024;
/// Ends of the names of the tensors that cut a layer.
pub(crate) const PERMUTATION: &str = ".permutation";
pub(crate) const ROUTER: &str = ".router";

/// Sizes of a Mixture-of-Experts feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoeShape {
    /// Routed experts.
    pub experts: usize,
    /// Routed experts that work on each token.
    pub experts_per_token: usize,
    /// Neurons of the shared expert.
    pub shared_neurons: usize,
    /// Neurons of each routed expert.
    pub expert_neurons: usize,
}

/// A checked recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    shape: MoeShape,
    router_temperature: f32,
    source: Digest,
    digest: Digest,
    hidden: usize,
    layers: Vec<LayerRecipe>,
    changes: Changes,
}

/// The cut of one layer.
#[derive(Debug, Clone)]
pub struct LayerRecipe {
    /// Every neuron of the dense block once: shared ones first, then expert by expert.
    pub permutation: Vec<u16>,
    /// `[experts, hidden]`, row-major, temperature not yet applied.
    pub router: Vec<f32>,
}

/// Why a recipe is refused.
#[derive(Debug, Error)]
pub enum RecipeError {
    /// The recipe is larger than [`RECIPE_BYTES_MAX`].
    #[error("recipe of {bytes} bytes exceeds the limit of {RECIPE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The file is not well-formed safetensors.
    #[error("cannot parse the recipe")]
    Parse(#[source] SafeTensorError),
    /// Another format than [`RECIPE_FORMAT`].
    #[error("recipe format {found:?} is not {RECIPE_FORMAT:?}")]
    Format {
        /// The format named.
        found: String,
    },
    /// A metadata entry is absent.
    #[error("recipe metadata {key:?} is missing")]
    MissingMetadata {
        /// The entry's key.
        key: &'static str,
    },
    /// A metadata entry cannot be parsed or is out of range.
    #[error("recipe metadata {key:?} has the impossible value {value:?}")]
    Metadata {
        /// The entry's key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A tensor is absent.
    #[error("recipe tensor {tensor:?} is missing")]
    MissingTensor {
        /// The tensor.
        tensor: String,
    },
    /// The recipe cuts no layer, or more than [`LAYER_COUNT_MAX`].
    #[error("the recipe cuts {layers} layers, not 1 to {LAYER_COUNT_MAX}")]
    LayerCount {
        /// Layers found.
        layers: usize,
    },
    /// A tensor that nothing would read.
    #[error("recipe tensor {tensor:?} has no meaning")]
    UnknownTensor {
        /// The tensor.
        tensor: String,
    },
    /// A correction's rank is zero or above [`CORRECTION_RANK_MAX`].
    #[error("recipe tensor {tensor:?} has rank {rank}, not 1 to {CORRECTION_RANK_MAX}")]
    Rank {
        /// The tensor.
        tensor: String,
        /// Its rank.
        rank: usize,
    },
    /// A correction is of another shape than the weights of the checkpoint.
    #[error("the recipe corrects {role:?} as {recipe:?}, the checkpoint has {checkpoint:?}")]
    Correction {
        /// What is corrected.
        role: Role,
        /// Rows and columns that the recipe implies.
        recipe: (usize, usize),
        /// Rows and columns of the checkpoint.
        checkpoint: (usize, usize),
    },
    /// A tensor has another element type or shape than its role asks for.
    #[error("recipe tensor {tensor:?} is {dtype} {shape:?}, not {expected_dtype} {expected:?}")]
    TensorShape {
        /// The tensor.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// The element type needed.
        expected_dtype: Dtype,
        /// The shape needed.
        expected: Vec<usize>,
    },
    /// A permutation repeats or omits neurons.
    #[error("recipe tensor {tensor:?} is not a permutation")]
    NotPermutation {
        /// The tensor.
        tensor: String,
    },
    /// A weight is infinite or not a number.
    #[error("recipe tensor {tensor:?} holds a value that is not finite")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// The recipe was made from another file.
    #[error("the recipe belongs to {expected}, not to {found}")]
    OtherSource {
        /// The digest that the recipe names.
        expected: Digest,
        /// The digest of the file at hand.
        found: Digest,
    },
    /// The recipe does not fit the checkpoint's dimensions.
    #[error("the recipe cuts {what:?} of {recipe}, the checkpoint has {checkpoint}")]
    Dimension {
        /// Which dimension.
        what: RecipeDimension,
        /// The recipe's value.
        recipe: usize,
        /// The checkpoint's value.
        checkpoint: usize,
    },
    /// More or fewer experts per token than the recipe has.
    #[error("{asked} experts per token were asked for; the recipe has {experts}")]
    ExpertsPerToken {
        /// What the caller asked for.
        asked: usize,
        /// Routed experts of the recipe.
        experts: usize,
    },
}

/// A dimension in which recipe and checkpoint must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipeDimension {
    /// Decoder layers.
    Layers,
    /// Width of the residual stream.
    Hidden,
    /// Neurons of the dense block.
    Neurons,
}

impl Recipe {
    /// Parses and checks a recipe by itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecipeError> {
        if bytes.len() > RECIPE_BYTES_MAX {
            return Err(RecipeError::TooLarge { bytes: bytes.len() });
        }
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(RecipeError::Parse)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(RecipeError::Parse)?;
        let entries = Entries(header.metadata().clone().unwrap_or_default());
        let format = entries.text("format")?;
        if format != RECIPE_FORMAT {
            return Err(RecipeError::Format {
                found: format.chars().take(80).collect(),
            });
        }
        let experts = entries.count("experts", EXPERT_COUNT_MAX)?;
        let shape = MoeShape {
            experts,
            experts_per_token: entries.count("experts_per_token", experts)?,
            shared_neurons: entries.count("shared_neurons", usize::from(u16::MAX))?,
            expert_neurons: entries.count("expert_neurons", usize::from(u16::MAX))?,
        };
        let names = tensors.names();
        let cuts = names.iter().filter(|name| name.ends_with(PERMUTATION));
        let layer_count = cuts.count();
        if layer_count == 0 || layer_count > LAYER_COUNT_MAX {
            return Err(RecipeError::LayerCount {
                layers: layer_count,
            });
        }
        let hidden = router_hidden(&tensors)?;
        let layers = (0..layer_count)
            .map(|layer| LayerRecipe::parse(&tensors, layer, &shape, hidden))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            shape,
            router_temperature: entries.temperature()?,
            source: entries.parsed("source_sha256")?,
            digest: Digest::of(bytes),
            hidden,
            layers,
            changes: Changes::parse(&tensors, layer_count)?,
        })
    }

    /// Takes another number of experts per token than the recipe suggests.
    pub fn with_experts_per_token(mut self, count: usize) -> Result<Self, RecipeError> {
        if count == 0 || count > self.shape.experts {
            return Err(RecipeError::ExpertsPerToken {
                asked: count,
                experts: self.shape.experts,
            });
        }
        self.shape.experts_per_token = count;
        Ok(self)
    }

    /// Checks that the recipe was made for the file with digest `source` and for `config`.
    pub fn check(&self, source: Digest, config: &ModelConfig) -> Result<(), RecipeError> {
        if source != self.source {
            return Err(RecipeError::OtherSource {
                expected: self.source,
                found: source,
            });
        }
        let dimensions = [
            (RecipeDimension::Layers, self.layers.len(), config.layers),
            (RecipeDimension::Hidden, self.hidden, config.hidden),
            (
                RecipeDimension::Neurons,
                self.shape.neurons(),
                config.neurons,
            ),
        ];
        for (what, recipe, checkpoint) in dimensions {
            if recipe != checkpoint {
                return Err(RecipeError::Dimension {
                    what,
                    recipe,
                    checkpoint,
                });
            }
        }
        self.changes.check(config)
    }

    /// What becomes of the checkpoint's tensor in `role`, if not left as it is.
    pub(crate) fn change(&self, role: Role) -> Option<&Change> {
        self.changes.get(role)
    }

    /// Sizes of the carved blocks.
    pub fn shape(&self) -> MoeShape {
        self.shape
    }

    /// The factor on router logits.
    pub fn router_temperature(&self) -> f32 {
        self.router_temperature
    }

    /// Digest of the recipe file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The cuts, layer by layer.
    pub fn layers(&self) -> &[LayerRecipe] {
        &self.layers
    }
}

impl MoeShape {
    /// Neurons of all experts together, the shared one included.
    pub fn neurons(&self) -> usize {
        self.shared_neurons + self.experts * self.expert_neurons
    }
}

impl LayerRecipe {
    fn parse(
        tensors: &SafeTensors<'_>,
        layer: usize,
        shape: &MoeShape,
        hidden: usize,
    ) -> Result<Self, RecipeError> {
        let name = format!("layers.{layer}{PERMUTATION}");
        let bytes = tensor(tensors, &name, Dtype::U16, &[shape.neurons()])?;
        let permutation: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect();
        let mut seen = vec![false; permutation.len()];
        for &neuron in &permutation {
            match seen.get_mut(usize::from(neuron)) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(RecipeError::NotPermutation { tensor: name }),
            }
        }
        let name = router_name(layer);
        let router = halves(tensors, &name, &[shape.experts, hidden])?;
        Ok(Self {
            permutation,
            router,
        })
    }
}

fn router_name(layer: usize) -> String {
    format!("layers.{layer}{ROUTER}")
}

/// The hidden width that the first router implies.
fn router_hidden(tensors: &SafeTensors<'_>) -> Result<usize, RecipeError> {
    let name = router_name(0);
    match tensors.tensor(&name) {
        Ok(view) => Ok(view.shape().last().copied().unwrap_or(0)),
        Err(_) => Err(RecipeError::MissingTensor { tensor: name }),
    }
}

/// The finite f16 values of a tensor, as f32.
pub(crate) fn halves(
    tensors: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, RecipeError> {
    let values: Vec<f32> = tensor(tensors, name, Dtype::F16, shape)?
        .chunks_exact(2)
        .map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32())
        .collect();
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(RecipeError::NotFinite {
            tensor: name.to_owned(),
        })
    }
}

fn tensor<'a>(
    tensors: &SafeTensors<'a>,
    name: &str,
    dtype: Dtype,
    shape: &[usize],
) -> Result<&'a [u8], RecipeError> {
    let view = tensors
        .tensor(name)
        .map_err(|_| RecipeError::MissingTensor {
            tensor: name.to_owned(),
        })?;
    if view.dtype() == dtype && view.shape() == shape {
        return Ok(view.data());
    }
    Err(RecipeError::TensorShape {
        tensor: name.to_owned(),
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        expected_dtype: dtype,
        expected: shape.to_vec(),
    })
}

struct Entries(HashMap<String, String>);

impl Entries {
    fn text(&self, key: &'static str) -> Result<&str, RecipeError> {
        match self.0.get(key) {
            Some(value) => Ok(value),
            None => Err(RecipeError::MissingMetadata { key }),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, key: &'static str) -> Result<T, RecipeError> {
        let value = self.text(key)?;
        value.parse().map_err(|_| impossible(key, value))
    }

    fn count(&self, key: &'static str, max: usize) -> Result<usize, RecipeError> {
        match self.parsed(key)? {
            count if (1..=max).contains(&count) => Ok(count),
            count => Err(impossible(key, &count.to_string())),
        }
    }

    fn temperature(&self) -> Result<f32, RecipeError> {
        let key = "router_temperature";
        match self.parsed::<f32>(key)? {
            temperature if temperature > 0.0 && temperature <= ROUTER_TEMPERATURE_MAX => {
                Ok(temperature)
            }
            temperature => Err(impossible(key, &temperature.to_string())),
        }
    }
}

fn impossible(key: &'static str, value: &str) -> RecipeError {
    RecipeError::Metadata {
        key,
        value: value.chars().take(80).collect(),
    }
}
