//! Running state over a model: an interpreter, and memory that its tensors lie in or are copied
//! to and from.

use crate::binding::{Bindings, may_lie_in, overlap, same_memory};
use crate::cancel::{CancelHandle, CancelState};
use crate::interpreter::{Interpreter, Side};
use crate::model::Shared;
use crate::sys::STATUS_CANCELLED;
use mote_api::{
    BackendError, Canceller, LoadError, OutputTarget, RunError, RunReport, Session, Tensor,
};
use std::sync::Arc;
use std::time::Instant;

pub(crate) struct TfliteSession {
    shared: Arc<Shared>,
    interpreter: Interpreter,
    bindings: Bindings,
    input_places: Vec<Place>,
    output_places: Vec<Place>,
    cancel: Arc<CancelState>,
}

/// Where a tensor of the interpreter lies.
enum Place {
    /// In the library's memory: copied.
    Library,
    /// In the bound memory: nothing to copy.
    Bound(Tensor),
    /// In memory of ours, since the library cannot take a tensor back: copied.
    Staging,
}

impl TfliteSession {
    pub fn new(shared: Arc<Shared>, interpreter: Interpreter, cancel: Arc<CancelState>) -> Self {
        let library = |count| (0..count).map(|_| Place::Library).collect();
        let inputs = shared.signature.inputs.len();
        let outputs = shared.signature.outputs.len();
        Self {
            bindings: Bindings::new(&shared.signature),
            shared,
            interpreter,
            input_places: library(inputs),
            output_places: library(outputs),
            cancel,
        }
    }

    /// Makes the interpreter one for these inputs' shapes. Delegates may refuse to be resized and
    /// adopted memory would not fit any more, so it is a new one; recurrent state starts anew.
    fn fit_shapes(&mut self, inputs: &[Tensor]) -> Result<(), RunError> {
        let fits = |(position, tensor): (usize, &Tensor)| {
            let view = self.interpreter.tensor(Side::Input, position);
            view.is_some_and(|view| view.shape() == tensor.shape())
        };
        if inputs.iter().enumerate().all(fits) {
            return Ok(());
        }
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| t.shape().to_vec()).collect();
        let rebuilt = self.shared.interpreter(Some(&shapes), &self.cancel);
        self.interpreter = rebuilt.map_err(|error| {
            RunError::Compute(match error {
                LoadError::Session(cause) => cause,
                other => BackendError::new("resize inputs", other),
            })
        })?;
        let places = self.input_places.iter_mut().chain(&mut self.output_places);
        places.for_each(|place| *place = Place::Library);
        Ok(())
    }

    /// Puts the interpreter's tensors into bound memory where that is possible.
    fn place(&mut self, inputs: &[Tensor]) -> Result<(), RunError> {
        let foreign = self.shared.is_foreign();
        let mut moved = false;
        for (position, tensor) in inputs.iter().enumerate() {
            let wanted = may_lie_in(tensor, foreign).then_some(tensor);
            let place = &mut self.input_places[position];
            moved |= move_to(
                &mut self.interpreter,
                (Side::Input, position),
                place,
                wanted,
            )?;
        }
        for position in 0..self.bindings.targets.len() {
            let wanted = match &self.bindings.targets[position] {
                OutputTarget::Into(tensor) => {
                    let view = self.interpreter.tensor(Side::Output, position);
                    let same_shape = view.is_some_and(|view| view.shape() == tensor.shape());
                    let apart = !inputs.iter().any(|input| overlap(input, tensor));
                    (same_shape && apart).then_some(tensor)
                }
                OutputTarget::Allocate => None,
            };
            let place = &mut self.output_places[position];
            moved |= move_to(
                &mut self.interpreter,
                (Side::Output, position),
                place,
                wanted,
            )?;
        }
        if moved {
            self.interpreter.allocate().map_err(RunError::Compute)?;
        }
        Ok(())
    }

    fn invoke(&mut self) -> Result<(), RunError> {
        let invoked = self.interpreter.invoke();
        // A cancel that came after the check in `run` but before the library listened is seen
        // here: it was meant for this run.
        let cancelled = self.cancel.take();
        match invoked {
            Ok(()) if !cancelled => Ok(()),
            Ok(()) | Err(STATUS_CANCELLED) => Err(RunError::Cancelled),
            Err(status) => {
                let cause = self.interpreter.error("TfLiteInterpreterInvoke", status);
                Err(RunError::Compute(cause))
            }
        }
    }

    /// Copies what does not lie in bound memory; answers the bytes copied.
    fn collect(&mut self) -> Result<usize, RunError> {
        let mut bytes_copied = 0;
        for position in 0..self.bindings.targets.len() {
            let spec = &self.shared.signature.outputs[position];
            let failed = |why: String| RunError::Output {
                name: spec.name.clone(),
                why,
            };
            let view = self.interpreter.tensor(Side::Output, position);
            let view = view.ok_or_else(|| failed("is gone".into()))?;
            let shape = view.shape();
            let target = self.bindings.target(position, spec, &shape)?;
            if !matches!(self.output_places[position], Place::Bound(_)) {
                if !view.copy_out(&target) {
                    return Err(failed("the library gave no data".into()));
                }
                bytes_copied += target.bytes();
            }
            self.bindings.results[position] = Some(target);
        }
        Ok(bytes_copied)
    }
}

/// Puts a tensor into `wanted`, or else somewhere to copy from and to. Answers whether memory
/// changed, so that tensors must be allocated again.
fn move_to(
    interpreter: &mut Interpreter,
    (side, position): (Side, usize),
    place: &mut Place,
    wanted: Option<&Tensor>,
) -> Result<bool, RunError> {
    if let Some(wanted) = wanted {
        if matches!(place, Place::Bound(have) if same_memory(have, wanted)) {
            return Ok(false);
        }
        if interpreter.adopt(side, position, wanted) {
            *place = Place::Bound(wanted.clone());
            return Ok(true);
        }
    }
    let Place::Bound(old) = place else {
        return Ok(false);
    };
    let staging = Tensor::zeroed(old.dtype(), old.shape())?;
    if !interpreter.adopt(side, position, &staging) {
        let why = "the library does not let go of bound memory";
        return Err(RunError::Compute(BackendError::new("unbind tensor", why)));
    }
    *place = Place::Staging;
    Ok(true)
}

impl Session for TfliteSession {
    fn bind_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), RunError> {
        self.bindings
            .bind_input(&self.shared.signature, index, tensor)
    }

    fn bind_output(&mut self, index: usize, target: OutputTarget) -> Result<(), RunError> {
        self.bindings
            .bind_output(&self.shared.signature, index, target)
    }

    fn run(&mut self) -> Result<RunReport, RunError> {
        let inputs = self.bindings.all_inputs(&self.shared.signature)?;
        if self.cancel.take() {
            return Err(RunError::Cancelled);
        }
        self.fit_shapes(&inputs)?;
        self.place(&inputs)?;
        let mut bytes_copied = 0;
        for (position, tensor) in inputs.iter().enumerate() {
            if !matches!(self.input_places[position], Place::Bound(_)) {
                let view = self.interpreter.tensor(Side::Input, position);
                if !view.is_some_and(|view| view.copy_in(tensor)) {
                    let why = format!("input {position} has no memory");
                    return Err(RunError::Compute(BackendError::new("copy input", why)));
                }
                bytes_copied += tensor.bytes();
            }
        }
        let start = Instant::now();
        self.invoke()?;
        let compute_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        bytes_copied += self.collect()?;
        Ok(RunReport {
            compute_us,
            bytes_copied: bytes_copied as u64,
        })
    }

    fn output(&self, index: usize) -> Result<Tensor, RunError> {
        self.bindings.output(&self.shared.signature, index)
    }

    fn canceller(&self) -> Canceller {
        Canceller::new(CancelHandle(self.cancel.clone()))
    }
}
