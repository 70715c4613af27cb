//! [`Session`]: bound tensors over a model.
//!
//! Values bound here describe the caller's memory and know nothing of the engine, so replacing
//! the engine needs no new binding. State on a device (`states`) is the engine's memory: an engine that
//! has such memory is not replaced.

use crate::cancel::CancelState;
use crate::engine::{Computed, Engine};
use crate::failure::{backend_error, run_error};
use crate::model::Shared;
use crate::states::{State, Taken};
use crate::sys::{self, Produced, RawValue, ValueRef};
use mote_api::{
    Access, BufferOrigin, Canceller, DType, DeviceStates, OutputTarget, RunError, RunReport,
    Session, Tensor, TensorSpec,
};
use std::cell::Cell;
use std::sync::Arc;

pub(crate) struct OrtSession {
    pub(crate) model: Arc<Shared>,
    inputs: Vec<Option<Input>>,
    outputs: Vec<Output>,
    cancel: Arc<CancelState>,
    pub(crate) states: Vec<State>,
    pub(crate) taken: Taken,
    /// Bytes of states copied since the last run.
    pub(crate) copied_bytes: u64,
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
        let outputs: Vec<Output> = outputs.map(|_| Output::default()).collect();
        Ok(Self {
            taken: Taken::none(model.interface.signature.inputs.len(), outputs.len()),
            inputs,
            outputs,
            cancel: CancelState::new()?,
            states: Vec::new(),
            copied_bytes: 0,
            model,
        })
    }

    /// Forgets what was bound to an input and an output.
    pub(crate) fn let_go(&mut self, input: usize, output: Option<usize>) {
        self.inputs[input] = None;
        if let Some(output) = output {
            self.outputs[output] = Output::default();
        }
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
        let inputs = self.input_values()?;
        let mut bytes_copied = self.copied_bytes;
        for input in self.inputs.iter().flatten().filter(|input| input.staged) {
            sys::copy(&input.bound, input.value.tensor())?;
            bytes_copied += input.bound.bytes() as u64;
        }
        let engine = self.model.engine();
        let Computed { produced, compute } = self.run_on(&engine, inputs)?;
        for (index, produced) in produced.into_iter().enumerate() {
            if self.taken.outputs[index].is_none() {
                bytes_copied += self.collect(index, produced)?;
            }
        }
        bytes_copied += self.crossed_bytes(&engine);
        self.copied_bytes = 0;
        Ok(RunReport {
            compute_us: u64::try_from(compute.as_micros()).unwrap_or(u64::MAX),
            bytes_copied,
        })
    }

    /// What the run reads: bound tensors, and states.
    fn input_values(&self) -> Result<Vec<ValueRef<'_>>, RunError> {
        let value = |index: usize| match (self.taken.inputs[index], &self.inputs[index]) {
            (Some(state), _) => Ok(self.states[state].read_by_next_run()),
            (None, Some(input)) => Ok(input.value.view()),
            (None, None) => Err(RunError::InputMissing {
                name: self.model.interface.signature.inputs[index].name.clone(),
            }),
        };
        (0..self.inputs.len()).map(value).collect()
    }

    /// Bytes that the library itself brought to the device and back in a run.
    fn crossed_bytes(&self, engine: &Engine) -> u64 {
        let bytes = |tensor: Option<&Tensor>| tensor.map_or(0, |tensor| tensor.bytes() as u64);
        let inputs = std::iter::zip(&engine.places.inputs, &self.inputs);
        let inputs = inputs.filter(|(place, _)| place.is_some());
        let outputs = std::iter::zip(&engine.places.outputs, &self.outputs);
        let outputs = outputs.filter(|(place, _)| place.is_some());
        let read: u64 = inputs
            .map(|(_, i)| bytes(i.as_ref().map(|i| &i.bound)))
            .sum();
        let written: u64 = outputs.map(|(_, o)| bytes(o.tensor.as_ref())).sum();
        read + written
    }

    fn run_on(&self, engine: &Engine, inputs: Vec<ValueRef<'_>>) -> Result<Computed, RunError> {
        let output = |index: usize| match self.taken.outputs[index] {
            Some(state) => Some(self.states[state].written_by_next_run()),
            None => self.outputs[index].value.as_ref().map(RawValue::view),
        };
        let outputs = (0..self.outputs.len()).map(output);
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

pub(crate) fn accepts(spec: &TensorSpec, any_rank: bool, dtype: DType, shape: &[usize]) -> bool {
    match any_rank {
        true => spec.dtype == dtype,
        false => spec.accepts(dtype, shape),
    }
}

fn is_state(spec: &TensorSpec) -> RunError {
    RunError::State {
        name: spec.name.clone(),
        why: "is kept by the session, and not to be bound or read as a tensor".into(),
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
        if self.taken.inputs[index].is_some() {
            return Err(is_state(spec));
        }
        let any_rank = self.model.interface.any_rank.0[index];
        if !accepts(spec, any_rank, tensor.dtype(), tensor.shape()) {
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
        if self.taken.outputs[index].is_some() {
            return Err(is_state(spec));
        }
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
        let any_rank = self.model.interface.any_rank.1[index];
        if !accepts(spec, any_rank, tensor.dtype(), tensor.shape()) {
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
        if result.is_ok() {
            self.states.iter_mut().for_each(State::advance);
        }
        result
    }

    fn output(&self, index: usize) -> Result<Tensor, RunError> {
        let output = self
            .outputs
            .get(index)
            .ok_or(RunError::NoSuchTensor { index })?;
        if self.taken.outputs[index].is_some() {
            return Err(is_state(&self.model.interface.signature.outputs[index]));
        }
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

    fn device_states(&mut self) -> Option<&mut dyn DeviceStates> {
        Some(self)
    }
}
