//! The weights of a layer's feed-forward block, dense or Mixture of Experts, and the
//! construction of the latter from the former and a carving recipe.

use std::rc::Rc;

use crate::{
    checkpoint::{
        Cached, CheckpointError, Gathered, LayerRole, LayerSource, Matrix, Role, Rows, SourceRows,
    },
    recipe::{MoeShape, Recipe},
};

/// `down(silu(gate(x)) · up(x))`
pub(crate) struct SwiGlu<'a> {
    /// `[neurons, hidden]`
    pub gate: Box<dyn Rows + 'a>,
    /// `[neurons, hidden]`
    pub up: Box<dyn Rows + 'a>,
    /// `[hidden, neurons]`
    pub down: Box<dyn Rows + 'a>,
}

/// A Mixture-of-Experts block. Matrices of all experts lie one below the other.
pub(crate) struct MoeLayer<'a> {
    /// Sizes.
    pub shape: MoeShape,
    /// `[experts, hidden]`, temperature applied.
    pub router: Box<dyn Rows + 'a>,
    /// `[experts × expert_neurons, hidden]`
    pub expert_gate: Box<dyn Rows + 'a>,
    /// `[experts × expert_neurons, hidden]`
    pub expert_up: Box<dyn Rows + 'a>,
    /// `[experts × hidden, expert_neurons]`, routing scale applied.
    pub expert_down: Box<dyn Rows + 'a>,
    /// The expert that works on every token.
    pub shared: SwiGlu<'a>,
}

/// A layer's feed-forward block.
pub(crate) enum FeedForward<'a> {
    /// Every neuron works on every token.
    Dense(SwiGlu<'a>),
    /// A router chooses experts.
    Moe(MoeLayer<'a>),
}

/// The block of `layer`: as the checkpoint has it, or carved when there is a recipe. The
/// recipe was checked against the checkpoint's configuration.
pub(crate) fn feed_forward<'a>(
    source: &'a dyn LayerSource,
    recipe: Option<&'a Recipe>,
    layer: usize,
) -> Result<FeedForward<'a>, CheckpointError> {
    match recipe {
        Some(recipe) => Ok(FeedForward::Moe(carve(source, recipe, layer)?)),
        None => Ok(FeedForward::Dense(SwiGlu {
            gate: dense(source, layer, LayerRole::Gate)?,
            up: dense(source, layer, LayerRole::Up)?,
            down: dense(source, layer, LayerRole::Down)?,
        })),
    }
}

fn dense<'a>(
    source: &'a dyn LayerSource,
    layer: usize,
    role: LayerRole,
) -> Result<Box<dyn Rows + 'a>, CheckpointError> {
    Ok(Box::new(SourceRows::new(source, Role::Layer(layer, role))?))
}

fn carve<'a>(
    source: &'a dyn LayerSource,
    recipe: &'a Recipe,
    layer: usize,
) -> Result<MoeLayer<'a>, CheckpointError> {
    let shape = recipe.shape();
    let cut = &recipe.layers()[layer];
    let (shared, routed) = cut.permutation.split_at(shape.shared_neurons);
    let neurons = |role, index| -> Result<Box<dyn Rows + 'a>, CheckpointError> {
        Ok(Box::new(Gathered::new(dense(source, layer, role)?, index)))
    };
    let down = Rc::new(Cached::new(dense(source, layer, LayerRole::Down)?));
    let temperature = recipe.router_temperature();
    let router = cut.router.iter().map(|weight| weight * temperature);
    Ok(MoeLayer {
        shape,
        router: Box::new(Matrix::new(source.config().hidden, router.collect())),
        expert_gate: neurons(LayerRole::Gate, routed)?,
        expert_up: neurons(LayerRole::Up, routed)?,
        expert_down: Box::new(DownColumns {
            dense: Rc::clone(&down),
            neurons: routed,
            per_expert: shape.expert_neurons,
            // Softmax over the chosen experts averages; the dense block sums.
            scale: shape.experts_per_token as f32,
        }),
        shared: SwiGlu {
            gate: neurons(LayerRole::Gate, shared)?,
            up: neurons(LayerRole::Up, shared)?,
            down: Box::new(DownColumns {
                dense: down,
                neurons: shared,
                per_expert: shape.shared_neurons,
                scale: 1.0,
            }),
        },
    })
}

/// Columns of a dense down projection, `per_expert` neurons to each expert, scaled.
struct DownColumns<'a> {
    dense: Rc<Cached<'a>>,
    neurons: &'a [u16],
    per_expert: usize,
    scale: f32,
}

impl Rows for DownColumns<'_> {
    fn rows(&self) -> usize {
        self.neurons.len() / self.per_expert * self.dense.rows()
    }
    fn columns(&self) -> usize {
        self.per_expert
    }
    fn read(&self, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        for (offset, values) in out.chunks_exact_mut(self.per_expert).enumerate() {
            let (expert, row) = (
                (first + offset) / self.dense.rows(),
                (first + offset) % self.dense.rows(),
            );
            let dense = self.dense.row(row)?;
            let neurons = &self.neurons[expert * self.per_expert..];
            for (value, &neuron) in values.iter_mut().zip(neurons) {
                *value = dense[usize::from(neuron)] * self.scale;
            }
        }
        Ok(())
    }
}
