//! [`Session`]: bound tensors over a model.
//!
//! Values bound here describe the caller's memory and know nothing of the engine, so replacing
//! the engine needs no new binding.

use crate::cancel::CancelState;
use crate::engine::{Computed, Engine};
use crate::failure::{backend_error, run_error};
use crate::model::Shared;
use crate::sys::{self, Produced, RawValue};
use mote_api::{
    Access, BufferOrigin, Canceller, DType, OutputTarget, RunError, RunReport, Session, Tensor,
    TensorSpec,
};
use std::cell::Cell;
use std::sync::Arc;

pub(crate) struct OrtSession {
    model: Arc<Shared>,
    inputs: Vec<Option<Input>>,
    outputs: Vec<Output>,
    cancel: Arc<CancelState>,
}

/// A bound input.
struct Input {
    bound: Tensor,
    /// Over `bound`, or over private memory that `bound` is copied into before each run.
    value: RawValue,
    staged: bool,
}

/// Where an output goes, and how it gets there.
#[derive(Default)]
struct Output {
    /// The tensor bound, or the one made for the last run.
    tensor: Option<Tensor>,
    bound: bool,
    /// What the library writes to; it allocates where there is none, and the result is copied.
    value: Option<RawValue>,
    /// Whether `value` is private memory, to be copied after the run.
    staged: bool,
    /// Whether the last run computed it.
    computed: bool,
    /// Whether the caller holds `tensor`, so that the next run must not overwrite it.
    lent: Cell<bool>,
}

/// Whether the library must not see memory that another process can write: kernels check indices
/// before they use them, and count the true elements of a mask before they copy as many.
fn needs_private(tensor: &Tensor) -> bool {
    let dtype = tensor.dtype();
    tensor.buffer().origin() == BufferOrigin::Shared && (dtype.may_index() || dtype == DType::Bool)
}

impl OrtSession {
    pub(crate) fn new(model: Arc<Shared>) -> Result<Self, ort::Error> {
        let inputs = model
            .interface
            .signature
            .inputs
            .iter()
            .map(|_| None)
            .collect();
        let outputs = model.interface.signature.outputs.iter();
        Ok(Self {
            inputs,
            outputs: outputs.map(|_| Output::default()).collect(),
            cancel: CancelState::new()?,
            model,
        })
    }

    /// A value over `tensor`, or over a private twin of it.
    fn value(&self, tensor: &Tensor, staged: bool) -> Result<RawValue, RunError> {
        let made = match staged {
            true => RawValue::over(
                &Tensor::zeroed(tensor.dtype(), tensor.shape())?,
                &self.model.memory,
            ),
            false => RawValue::over(tensor, &self.model.memory),
        };
        made.map_err(|error| RunError::Compute(backend_error("bind a tensor", &error)))
    }

    fn mark_computed(&mut self, computed: bool) {
        for output in &mut self.outputs {
            output.computed = computed;
        }
    }

    fn compute(&mut self) -> Result<RunReport, RunError> {
        if let Some(index) = self.inputs.iter().position(Option::is_none) {
            let name = self.model.interface.signature.inputs[index].name.clone();
            return Err(RunError::InputMissing { name });
        }
        let mut bytes_copied = 0;
        for input in self.inputs.iter().flatten().filter(|input| input.staged) {
            sys::copy(&input.bound, input.value.tensor())?;
            bytes_copied += input.bound.bytes() as u64;
        }
        let engine = self.model.engine();
        let Computed { produced, compute } = self.run_on(&engine)?;
        for (index, produced) in produced.into_iter().enumerate() {
            bytes_copied += self.collect(index, produced)?;
        }
        Ok(RunReport {
            compute_us: u64::try_from(compute.as_micros()).unwrap_or(u64::MAX),
            bytes_copied,
        })
    }

    fn run_on(&self, engine: &Engine) -> Result<Computed, RunError> {
        let inputs: Vec<&RawValue> = self.inputs.iter().flatten().map(|i| &i.value).collect();
        let outputs = self.outputs.iter().map(|output| output.value.as_ref());
        engine
            .run(self.cancel.options(), inputs.into_iter(), outputs)
            .map_err(|error| {
                let specs = &self.model.interface.signature.outputs;
                let bound: Vec<_> = std::iter::zip(specs, &self.outputs)
                    .filter_map(|(spec, output)| {
                        let tensor = output.tensor.as_ref().filter(|_| output.bound)?;
                        Some((spec.name.as_str(), tensor.shape()))
                    })
                    .collect();
                run_error(self.model.row.name, &bound, &error)
            })
    }

    /// Brings the result of output `index` to its tensor; how many bytes were copied for it.
    fn collect(&mut self, index: usize, produced: Option<Produced>) -> Result<u64, RunError> {
        let spec = &self.model.interface.signature.outputs[index];
        let output = &mut self.outputs[index];
        let fail = |why: String| RunError::Output {
            name: spec.name.clone(),
            why,
        };
        if let Some(value) = &output.value {
            let (true, Some(tensor)) = (output.staged, &output.tensor) else {
                return Ok(0);
            };
            sys::copy(value.tensor(), tensor)?;
            return Ok(tensor.bytes() as u64);
        }
        let produced = produced.ok_or_else(|| fail("the library gave no value".into()))?;
        let library = |error| RunError::Compute(backend_error("read an output", &error));
        let (code, shape) = produced.describe().map_err(library)?;
        if sys::dtype(code) != Some(spec.dtype) {
            return Err(fail("its element type is not the declared one".into()));
        }
        let tensor = match output.tensor.take() {
            Some(tensor) if output.bound && tensor.shape() != shape => {
                let have = tensor.shape().to_vec();
                output.tensor = Some(tensor);
                return Err(fail(format!(
                    "bound as {have:?}, but the run computed {shape:?}"
                )));
            }
            Some(tensor) if output.bound => tensor,
            Some(tensor) if !output.lent.get() && tensor.shape() == shape => tensor,
            _ => Tensor::zeroed(spec.dtype, &shape)?,
        };
        produced.copy_to(&tensor).map_err(library)?;
        let bytes = tensor.bytes() as u64;
        output.lent.set(false);
        output.tensor = Some(tensor);
        Ok(bytes)
    }
}

fn accepts(spec: &TensorSpec, any_rank: bool, tensor: &Tensor) -> bool {
    match any_rank {
        true => spec.dtype == tensor.dtype(),
        false => spec.accepts(tensor.dtype(), tensor.shape()),
    }
}

/// Dimensions for people; −1 is decided at run time.
fn dims(spec: &TensorSpec) -> Vec<i64> {
    let dim = |dim: &Option<usize>| dim.and_then(|d| i64::try_from(d).ok()).unwrap_or(-1);
    spec.shape.iter().map(dim).collect()
}

/// Whether both are the same elements of the same memory.
fn same(one: &Tensor, other: &Tensor) -> bool {
    one.as_ptr() == other.as_ptr()
        && one.shape() == other.shape()
        && one.dtype() == other.dtype()
        && one.buffer().origin() == other.buffer().origin()
}

impl Session for OrtSession {
    fn bind_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), RunError> {
        let signature = &self.model.interface.signature;
        let spec = signature
            .inputs
            .get(index)
            .ok_or(RunError::NoSuchTensor { index })?;
        if !accepts(spec, self.model.interface.any_rank.0[index], tensor) {
            return Err(RunError::input(spec, tensor.dtype(), tensor.shape()));
        }
        // While `bound` lives nothing else can lie at its address, so this is the same memory.
        if let Some(input) = &self.inputs[index]
            && same(&input.bound, tensor)
        {
            return Ok(());
        }
        let staged = needs_private(tensor);
        let value = self.value(tensor, staged)?;
        let bound = tensor.clone();
        self.inputs[index] = Some(Input {
            bound,
            value,
            staged,
        });
        Ok(())
    }

    fn bind_output(&mut self, index: usize, target: OutputTarget) -> Result<(), RunError> {
        let signature = &self.model.interface.signature;
        let spec = signature
            .outputs
            .get(index)
            .ok_or(RunError::NoSuchTensor { index })?;
        let tensor = match target {
            OutputTarget::Allocate => {
                if self.outputs[index].bound {
                    self.outputs[index] = Output::default();
                }
                return Ok(());
            }
            OutputTarget::Into(tensor) => tensor,
        };
        let refuse = |why: String| RunError::Output {
            name: spec.name.clone(),
            why,
        };
        if !accepts(spec, self.model.interface.any_rank.1[index], &tensor) {
            return Err(refuse(format!(
                "it is {} {:?}, not {} {:?}",
                spec.dtype,
                dims(spec),
                tensor.dtype(),
                tensor.shape()
            )));
        }
        if tensor.buffer().access() == Access::ReadOnly {
            return Err(refuse("its memory is read-only".into()));
        }
        let output = &self.outputs[index];
        if output.bound && output.tensor.as_ref().is_some_and(|old| same(old, &tensor)) {
            return Ok(());
        }
        let staged = needs_private(&tensor);
        let value = match self.model.interface.passed_through[index] {
            true => None,
            false => Some(self.value(&tensor, staged)?),
        };
        self.outputs[index] = Output {
            tensor: Some(tensor),
            bound: true,
            value,
            staged,
            ..Output::default()
        };
        Ok(())
    }

    fn run(&mut self) -> Result<RunReport, RunError> {
        self.mark_computed(false);
        self.cancel.begin()?;
        let result = self.compute();
        if self.cancel.end() {
            return Err(RunError::Cancelled);
        }
        self.mark_computed(result.is_ok());
        result
    }

    fn output(&self, index: usize) -> Result<Tensor, RunError> {
        let output = self
            .outputs
            .get(index)
            .ok_or(RunError::NoSuchTensor { index })?;
        match &output.tensor {
            Some(tensor) if output.computed => {
                output.lent.set(true);
                Ok(tensor.clone())
            }
            _ => Err(RunError::Output {
                name: self.model.interface.signature.outputs[index].name.clone(),
                why: "no run has computed it".into(),
            }),
        }
    }

    fn canceller(&self) -> Canceller {
        self.cancel.canceller()
    }
}
