//! Running state over a model that LiteRT compiled.

use super::compiled::{Compiled, TensorBuffer};
use super::model::Shared;
use super::objects::Side;
use crate::binding::{Bindings, may_lie_in, overlap, same_memory};
use mote_api::{
    BackendError, Cancel, Canceller, LoadError, OutputTarget, RunError, RunReport, Session, Tensor,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub(crate) struct LiteRtSession {
    shared: Arc<Shared>,
    bindings: Bindings,
    /// Before `compiled`, so that buffers go first.
    input_places: Vec<Option<Place>>,
    output_places: Vec<Option<Place>>,
    compiled: Compiled,
    /// Shapes that the model is compiled for at present.
    input_shapes: Vec<Vec<usize>>,
    output_shapes: Vec<Vec<usize>>,
    cancel: Arc<AtomicBool>,
}

/// Where a tensor lies in a run.
struct Place {
    buffer: TensorBuffer,
    /// The bound memory that the buffer is over; `None` when the library has memory of its own,
    /// to copy to and from. After `buffer`, which goes first.
    bound: Option<Tensor>,
}

struct CancelHandle(Arc<AtomicBool>);

impl Cancel for CancelHandle {
    fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }
}

fn failed(error: LoadError) -> RunError {
    RunError::Compute(match error {
        LoadError::Session(cause) => cause,
        other => BackendError::new("resize inputs", other),
    })
}

impl LiteRtSession {
    pub fn new(
        shared: Arc<Shared>,
        mut compiled: Compiled,
        cancel: Arc<AtomicBool>,
    ) -> Result<Self, LoadError> {
        let (input_shapes, output_shapes) =
            shared.shapes(&mut compiled).map_err(LoadError::Session)?;
        let empty = |count| (0..count).map(|_| None).collect();
        Ok(Self {
            input_places: empty(input_shapes.len()),
            output_places: empty(output_shapes.len()),
            bindings: Bindings::new(&shared.signature),
            shared,
            compiled,
            input_shapes,
            output_shapes,
            cancel,
        })
    }

    /// Has the model compiled for these inputs' shapes. It is a new one: an accelerator need not
    /// bear to be resized. Recurrent state starts anew.
    fn fit_shapes(&mut self, inputs: &[Tensor]) -> Result<(), RunError> {
        let shapes = inputs.iter().map(Tensor::shape);
        if shapes.eq(self.input_shapes.iter().map(Vec::as_slice)) {
            return Ok(());
        }
        let mut compiled = self.shared.compile(&self.cancel).map_err(failed)?;
        for (at, input) in inputs.iter().enumerate() {
            if input.shape() != self.shared.file_shapes[at] {
                let resized = compiled.resize_input(at, input.shape());
                resized.map_err(RunError::Compute)?;
            }
        }
        let shapes = self.shared.shapes(&mut compiled);
        let places = self.input_places.iter_mut().chain(&mut self.output_places);
        places.for_each(|place| *place = None);
        self.compiled = compiled;
        (self.input_shapes, self.output_shapes) = shapes.map_err(RunError::Compute)?;
        Ok(())
    }

    /// Sees to it that each tensor has a buffer: over bound memory where that is possible.
    fn place(&mut self, inputs: &[Tensor]) -> Result<(), RunError> {
        for (at, input) in inputs.iter().enumerate() {
            let wanted = may_lie_in(input, self.shared.is_foreign()).then_some(input);
            let element = self.shared.inputs[at].element;
            let tensor = ((Side::Input, at), element, input.shape());
            put(&self.compiled, tensor, &mut self.input_places[at], wanted)
                .map_err(RunError::Compute)?;
        }
        for (at, shape) in self.output_shapes.iter().enumerate() {
            let wanted = match &self.bindings.targets[at] {
                OutputTarget::Into(tensor) => {
                    let apart = !inputs.iter().any(|input| overlap(input, tensor));
                    (apart && tensor.shape() == shape).then_some(tensor)
                }
                OutputTarget::Allocate => None,
            };
            let element = self.shared.outputs[at].element;
            let tensor = ((Side::Output, at), element, &shape[..]);
            put(&self.compiled, tensor, &mut self.output_places[at], wanted)
                .map_err(RunError::Compute)?;
        }
        Ok(())
    }

    fn invoke(&mut self) -> Result<(), RunError> {
        let inputs = buffers(&self.input_places);
        let outputs = buffers(&self.output_places);
        let ran = self.compiled.run(&inputs, &outputs);
        // A cancel that came after the last node was meant for this run, too.
        if self.cancel.swap(false, Ordering::AcqRel) {
            return Err(RunError::Cancelled);
        }
        ran.map_err(RunError::Compute)
    }

    /// Copies what does not lie in bound memory; answers the bytes copied.
    fn collect(&mut self) -> Result<usize, RunError> {
        let mut bytes_copied = 0;
        for (at, shape) in self.output_shapes.iter().enumerate() {
            let spec = &self.shared.signature.outputs[at];
            let target = self.bindings.target(at, spec, shape)?;
            if let Some(place) = &mut self.output_places[at]
                && place.bound.is_none()
            {
                place.buffer.copy_out(&target).map_err(RunError::Compute)?;
                bytes_copied += target.bytes();
            }
            self.bindings.results[at] = Some(target);
        }
        Ok(bytes_copied)
    }
}

fn buffers(places: &[Option<Place>]) -> Vec<&TensorBuffer> {
    let places = places.iter().flatten();
    places.map(|place| &place.buffer).collect()
}

/// Puts a tensor into `wanted`, or else into memory of the library's.
fn put(
    compiled: &Compiled,
    ((side, at), element, shape): ((Side, usize), i32, &[usize]),
    place: &mut Option<Place>,
    wanted: Option<&Tensor>,
) -> Result<(), BackendError> {
    let have = place.as_ref().map(|place| &place.bound);
    let stays = match (have, wanted) {
        (Some(Some(have)), Some(wanted)) => same_memory(have, wanted),
        _ => false,
    };
    if stays {
        return Ok(());
    }
    let over = wanted.and_then(|memory| {
        let buffer = compiled.buffer_over((side, at), element, memory)?;
        let bound = Some(memory.clone());
        Some(Place { buffer, bound })
    });
    if over.is_some() {
        *place = over;
    } else if !matches!(have, Some(None)) {
        let buffer = compiled.managed_buffer((side, at), element, shape)?;
        let bound = None;
        *place = Some(Place { buffer, bound });
    }
    Ok(())
}

impl Session for LiteRtSession {
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
        if self.cancel.swap(false, Ordering::AcqRel) {
            return Err(RunError::Cancelled);
        }
        self.fit_shapes(&inputs)?;
        self.place(&inputs)?;
        let mut bytes_copied = 0;
        for (tensor, place) in inputs.iter().zip(&mut self.input_places) {
            if let Some(place) = place
                && place.bound.is_none()
            {
                place.buffer.copy_in(tensor).map_err(RunError::Compute)?;
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
