//! The weights of a layer's feed-forward block, dense or Mixture of Experts, and the
//! construction of the latter from the former and a carving recipe.

use std::rc::Rc;

use crate::{
    checkpoint::{
        Cached, CheckpointError, Experts, Gathered, LayerRole, LayerSource, Matrix, Role, Routing,
        Rows, Scaled, SourceRows, read_all,
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
    /// How experts are chosen and weighted; its scale is already in `expert_down`.
    pub routing: Routing,
    /// `[experts, hidden]`, temperature applied.
    pub router: Box<dyn Rows + 'a>,
    /// `[experts]`, where the routing has a bias.
    pub router_bias: Option<Vec<f32>>,
    /// `[experts × expert_neurons, hidden]`
    pub expert_gate: Box<dyn Rows + 'a>,
    /// `[experts × expert_neurons, hidden]`
    pub expert_up: Box<dyn Rows + 'a>,
    /// `[experts × hidden, expert_neurons]`, routing scale applied.
    pub expert_down: Box<dyn Rows + 'a>,
    /// The expert that works on every token.
    pub shared: Option<Shared<'a>>,
}

/// The expert that works on every token.
pub(crate) struct Shared<'a> {
    pub block: SwiGlu<'a>,
    /// `[1, hidden]`: the sigmoid of its product weights the expert's output.
    pub switch: Option<Box<dyn Rows + 'a>>,
}

/// A layer's feed-forward block.
pub(crate) enum FeedForward<'a> {
    /// Every neuron works on every token.
    Dense(SwiGlu<'a>),
    /// A router chooses experts.
    Moe(MoeLayer<'a>),
}

/// The block of `layer`: as the checkpoint has it, or carved when there is a recipe. The
/// recipe was checked against the checkpoint's configuration. What the block adds to the
/// residual stream has that stream's multiplier applied.
pub(crate) fn feed_forward<'a>(
    source: &'a dyn LayerSource,
    recipe: Option<&'a Recipe>,
    layer: usize,
) -> Result<FeedForward<'a>, CheckpointError> {
    let config = source.config();
    match (recipe, config.experts_of(layer)) {
        (Some(recipe), _) => Ok(FeedForward::Moe(carve(source, recipe, layer)?)),
        (None, Some(experts)) => Ok(FeedForward::Moe(moe(source, experts, layer)?)),
        (None, None) => {
            let down = dense(source, layer, LayerRole::Down)?;
            Ok(FeedForward::Dense(SwiGlu {
                gate: dense(source, layer, LayerRole::Gate)?,
                up: dense(source, layer, LayerRole::Up)?,
                down: Scaled::boxed(down, config.multipliers.residual),
            }))
        }
    }
}

fn moe<'a>(
    source: &'a dyn LayerSource,
    experts: &Experts,
    layer: usize,
) -> Result<MoeLayer<'a>, CheckpointError> {
    let residual = source.config().multipliers.residual;
    let rows = |role| dense(source, layer, role);
    let routing = experts.routing;
    let router_bias = match routing.bias {
        true => Some(read_all(rows(LayerRole::RouterBias)?.as_ref())?),
        false => None,
    };
    let shared = match experts.shared_neurons {
        0 => None,
        _ => Some(Shared {
            block: SwiGlu {
                gate: rows(LayerRole::SharedGate)?,
                up: rows(LayerRole::SharedUp)?,
                down: Scaled::boxed(rows(LayerRole::SharedDown)?, residual),
            },
            switch: match experts.shared_switch {
                true => Some(rows(LayerRole::SharedSwitch)?),
                false => None,
            },
        }),
    };
    Ok(MoeLayer {
        shape: experts.shape(),
        routing,
        router: rows(LayerRole::Router)?,
        router_bias,
        expert_gate: rows(LayerRole::ExpertGate)?,
        expert_up: rows(LayerRole::ExpertUp)?,
        expert_down: Scaled::boxed(rows(LayerRole::ExpertDown)?, residual * routing.scale),
        shared,
    })
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
        routing: Routing::SOFTMAX,
        router_bias: None,
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
        shared: Some(Shared {
            block: SwiGlu {
                gate: neurons(LayerRole::Gate, shared)?,
                up: neurons(LayerRole::Up, shared)?,
                down: Box::new(DownColumns {
                    dense: down,
                    neurons: shared,
                    per_expert: shape.shared_neurons,
                    scale: 1.0,
                }),
            },
            switch: None,
        }),
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
