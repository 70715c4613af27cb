//! Running state over a model.

use crate::convert::{datum_type, from_tract, to_tract};
use crate::guard::guard;
use crate::model::Shared;
use crate::plan::{Plan, Shapes};
use mote_api::{Cancel, Canceller, OutputTarget, RunError, RunReport, Session, Tensor, TensorSpec};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tract_linalg::multithread::multithread_tract_scope;
use tract_onnx::prelude::{
    IntoTValue, TValue, TVec, TractError, TractResult, TypedFact, TypedOp, TypedSimpleState,
};
use tract_onnx::tract_core::plan::eval;

pub(crate) struct TractSession {
    shared: Arc<Shared>,
    inputs: Vec<Option<Tensor>>,
    targets: Vec<OutputTarget>,
    results: Vec<Option<Tensor>>,
    /// The plan of the last run's shapes.
    plan: Option<(Shapes, Plan)>,
    cancel: Arc<AtomicBool>,
}

struct CancelHandle(Arc<AtomicBool>);

impl Cancel for CancelHandle {
    fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl TractSession {
    pub fn new(shared: Arc<Shared>) -> Self {
        let outputs = shared.signature.outputs.len();
        Self {
            inputs: vec![None; shared.signature.inputs.len()],
            targets: vec![OutputTarget::Allocate; outputs],
            results: vec![None; outputs],
            plan: None,
            cancel: Arc::default(),
            shared,
        }
    }

    fn bound_inputs(&self) -> Result<Vec<Tensor>, RunError> {
        let specs = self.shared.signature.inputs.iter();
        self.inputs
            .iter()
            .zip(specs)
            .map(|(bound, spec)| {
                bound.clone().ok_or_else(|| RunError::InputMissing {
                    name: spec.name.clone(),
                })
            })
            .collect()
    }

    /// Fresh state for these shapes. tract keeps the state of recurrent operators from turn to
    /// turn, for streaming; ONNX has every run start from the initial state that it is given.
    fn fresh_state(&mut self, shapes: Shapes) -> Result<TypedSimpleState, RunError> {
        if self.plan.as_ref().is_none_or(|(have, _)| *have != shapes) {
            let plan = self.shared.plans.for_shapes(&shapes);
            self.plan = Some((shapes, plan.map_err(RunError::Compute)?));
        }
        let (_, plan) = self.plan.as_ref().expect("set above");
        guard("prepare run", || plan.spawn()).map_err(RunError::Compute)
    }

    /// Computes node by node; between two nodes it looks whether it is cancelled.
    fn compute(
        &self,
        state: &mut TypedSimpleState,
        inputs: TVec<TValue>,
    ) -> Result<TVec<TValue>, RunError> {
        let mut cancelled = false;
        let outputs = guard("run", || {
            multithread_tract_scope(self.shared.executor(), || {
                state.run_plan_with_eval(inputs, |context, op_state, node, values| {
                    if self.cancel.swap(false, Ordering::AcqRel) {
                        cancelled = true;
                        return Err(TractError::msg("cancelled"));
                    }
                    eval::<TypedFact, Box<dyn TypedOp>>(context, op_state, node, values)
                })
            })
        });
        match outputs {
            Ok(outputs) => Ok(outputs),
            Err(_) if cancelled => Err(RunError::Cancelled),
            Err(cause) => Err(RunError::Compute(cause)),
        }
    }

    /// Where output `index` of this run is to be written.
    fn target(&self, index: usize, shape: &[usize]) -> Result<Tensor, RunError> {
        let spec = &self.shared.signature.outputs[index];
        match &self.targets[index] {
            OutputTarget::Into(tensor) if tensor.shape() == shape => Ok(tensor.clone()),
            OutputTarget::Into(tensor) => Err(RunError::Output {
                name: spec.name.clone(),
                why: format!("is {shape:?}, bound to {:?}", tensor.shape()),
            }),
            OutputTarget::Allocate => Ok(Tensor::zeroed(spec.dtype, shape)?),
        }
    }
}

/// A result in the element type that the signature promises.
fn as_promised(result: TValue, spec: &TensorSpec) -> TractResult<TValue> {
    match datum_type(spec.dtype) {
        Some(want) if result.datum_type().unquantized() != want => {
            Ok(result.cast_to_dt(want)?.into_owned().into_tvalue())
        }
        _ => Ok(result),
    }
}

impl Session for TractSession {
    fn bind_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), RunError> {
        let specs = &self.shared.signature.inputs;
        let spec = specs.get(index).ok_or(RunError::NoSuchTensor { index })?;
        if !spec.accepts(tensor.dtype(), tensor.shape()) {
            return Err(RunError::input(spec, tensor.dtype(), tensor.shape()));
        }
        self.inputs[index] = Some(tensor.clone());
        Ok(())
    }

    fn bind_output(&mut self, index: usize, target: OutputTarget) -> Result<(), RunError> {
        let specs = &self.shared.signature.outputs;
        let spec = specs.get(index).ok_or(RunError::NoSuchTensor { index })?;
        if let OutputTarget::Into(tensor) = &target
            && !spec.accepts(tensor.dtype(), tensor.shape())
        {
            return Err(RunError::Output {
                name: spec.name.clone(),
                why: format!("cannot go into {} {:?}", tensor.dtype(), tensor.shape()),
            });
        }
        self.targets[index] = target;
        self.results[index] = None;
        Ok(())
    }

    fn run(&mut self) -> Result<RunReport, RunError> {
        let tensors = self.bound_inputs()?;
        if self.cancel.swap(false, Ordering::AcqRel) {
            return Err(RunError::Cancelled);
        }
        let inputs = guard("copy inputs", || {
            tensors
                .iter()
                .map(|tensor| Ok(to_tract(tensor)?.into_tvalue()))
                .collect::<TractResult<TVec<TValue>>>()
        });
        let inputs = inputs.map_err(RunError::Compute)?;
        let mut bytes_copied: usize = tensors.iter().map(Tensor::bytes).sum();
        let shapes: Shapes = tensors.iter().map(|t| t.shape().to_vec()).collect();

        let start = Instant::now();
        let mut state = self.fresh_state(shapes)?;
        let outputs = self.compute(&mut state, inputs)?;
        let compute_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);

        for (index, output) in outputs.into_iter().enumerate() {
            let spec = &self.shared.signature.outputs[index];
            let output = guard("convert output", || as_promised(output, spec));
            let output = output.map_err(RunError::Compute)?;
            let target = self.target(index, output.shape())?;
            from_tract(&output, &target)?;
            bytes_copied += target.bytes();
            self.results[index] = Some(target);
        }
        Ok(RunReport {
            compute_us,
            bytes_copied: bytes_copied as u64,
        })
    }

    fn output(&self, index: usize) -> Result<Tensor, RunError> {
        let result = self.results.get(index);
        let result = result.ok_or(RunError::NoSuchTensor { index })?;
        result.clone().ok_or_else(|| RunError::Output {
            name: self.shared.signature.outputs[index].name.clone(),
            why: "nothing has run yet".into(),
        })
    }

    fn canceller(&self) -> Canceller {
        Canceller::new(CancelHandle(self.cancel.clone()))
    }
}
