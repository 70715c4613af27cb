//! Compiled graphs. Free dimensions are compiled per set of input shapes: with numbers in the
//! place of symbols tract folds shape arithmetic away and lays convolutions out.

use crate::convert::datum_type;
use crate::guard::guard;
use mote_api::{BackendError, TensorSpec};
use std::sync::{Arc, Mutex, PoisonError};
use tract_onnx::prelude::{
    InferenceFact, InferenceModel, InferenceModelExt, TVec, TypedModel, TypedSimplePlan,
};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::source::TypedSource;

/// Plans kept of one model, one per set of input shapes; each may hold weights of its own in the
/// layout that its kernels want. The least recently used one leaves.
pub const PLANS_MAX: usize = 4;
/// Numbers tried in turn for every free dimension, to find out at load whether a model compiles
/// that does not with symbols: sizes of pictures, of small pictures, and single items.
const TRIAL_DIMS: [usize; 3] = [256, 32, 1];

pub(crate) type Plan = Arc<TypedSimplePlan>;
/// Shapes of all inputs, in the model's order.
pub(crate) type Shapes = Vec<Vec<usize>>;

/// Nodes that compute.
pub(crate) fn nodes(plan: &Plan) -> u32 {
    let computes = |id: &&usize| {
        let node = plan.model().node(**id);
        !node.op_is::<Const>() && !node.op_is::<TypedSource>()
    };
    let count = plan.order_without_consts().iter().filter(computes).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// All plans of one model.
pub(crate) struct Plans {
    /// What plans for new shapes are compiled from; `None` when every dimension is fixed.
    source: Option<InferenceModel>,
    specs: Vec<TensorSpec>,
    fixed: Option<Plan>,
    /// Least recently used first.
    by_shapes: Mutex<Vec<(Shapes, Plan)>>,
}

/// What the load compiled.
pub(crate) struct Compiled {
    pub plans: Plans,
    /// The graph that the signature is completed from.
    pub typed: TypedModel,
    /// Whether `typed` holds for all input shapes.
    pub any_shape: bool,
    /// Nodes that compute.
    pub nodes: u32,
}

impl Plans {
    /// Compiles what can be compiled before shapes are known.
    pub fn compile(model: InferenceModel, specs: &[TensorSpec]) -> Result<Compiled, BackendError> {
        let fixed = specs.iter().all(|spec| !spec.shape.contains(&None));
        let typed = guard("analyse model", || model.clone().into_typed());
        if fixed {
            let typed = typed?;
            let plan = optimise(typed.clone())?;
            return Ok(Compiled {
                nodes: nodes(&plan),
                plans: Self::new(None, specs, Some(plan)),
                typed,
                any_shape: true,
            });
        }
        let (typed, any_shape) = match typed {
            Ok(typed) => (typed, true),
            // Many models only compile with numbers; then their errors are the telling ones.
            Err(_) => (try_numbers(&model, specs)?, false),
        };
        let plan = optimise(typed.clone())?;
        Ok(Compiled {
            nodes: nodes(&plan),
            plans: Self::new(Some(model), specs, None),
            typed,
            any_shape,
        })
    }

    fn new(source: Option<InferenceModel>, specs: &[TensorSpec], fixed: Option<Plan>) -> Self {
        Self {
            source,
            specs: specs.to_vec(),
            fixed,
            by_shapes: Mutex::new(Vec::new()),
        }
    }

    /// The plan for inputs of these shapes, compiled if it is not kept.
    pub fn for_shapes(&self, shapes: &Shapes) -> Result<Plan, BackendError> {
        let source = match (&self.fixed, &self.source) {
            (Some(plan), _) => return Ok(plan.clone()),
            (None, Some(source)) => source,
            (None, None) => return Err(BackendError::new("compile plan", "no model")),
        };
        // Plans are pushed whole, so a panic elsewhere leaves the list sound.
        let mut kept = self
            .by_shapes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = kept.iter().position(|(have, _)| have == shapes) {
            let entry = kept.remove(index);
            let plan = entry.1.clone();
            kept.push(entry);
            return Ok(plan);
        }
        let plan = optimise(with_shapes(source, &self.specs, shapes)?)?;
        if kept.len() == PLANS_MAX {
            kept.remove(0);
        }
        kept.push((shapes.clone(), plan.clone()));
        Ok(plan)
    }
}

fn optimise(typed: TypedModel) -> Result<Plan, BackendError> {
    guard("optimise model", || {
        TypedSimplePlan::new(typed.into_optimized()?)
    })
}

/// A model compiled with the first number that works, or the error of the first.
fn try_numbers(model: &InferenceModel, specs: &[TensorSpec]) -> Result<TypedModel, BackendError> {
    let mut tries = TRIAL_DIMS.iter().map(|&trial| {
        let dims = |spec: &TensorSpec| spec.shape.iter().map(|d| d.unwrap_or(trial)).collect();
        let shapes: Shapes = specs.iter().map(dims).collect();
        with_shapes(model, specs, &shapes)
    });
    let first = tries
        .next()
        .unwrap_or_else(|| Err(BackendError::new("try shapes", "none")));
    first.or_else(|cause| tries.find_map(Result::ok).ok_or(cause))
}

fn with_shapes(
    model: &InferenceModel,
    specs: &[TensorSpec],
    shapes: &Shapes,
) -> Result<TypedModel, BackendError> {
    let mut model = model.clone();
    guard("analyse model for shapes", || {
        for (index, (spec, shape)) in specs.iter().zip(shapes).enumerate() {
            let mut fact = InferenceFact::shape(shape.iter().copied().collect::<TVec<usize>>());
            if let Some(datum_type) = datum_type(spec.dtype) {
                fact = fact.with_datum_type(datum_type);
            }
            model.set_input_fact(index, fact)?;
        }
        model.into_typed()
    })
}
