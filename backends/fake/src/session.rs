//! Running state over a script.

use crate::compute::compute;
use crate::fault::{CancelFlag, CancelHandle, Faults};
use crate::model::Loaded;
use crate::text;
use mote_api::{Canceller, OutputTarget, RunError, RunReport, Session, Tensor, TensorSpec};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

pub(crate) struct FakeSession {
    loaded: Arc<Loaded>,
    inputs: Vec<Option<Tensor>>,
    outputs: Outputs,
    cancel: Arc<CancelFlag>,
}

/// Where outputs go, and what the last run left.
pub(crate) struct Outputs {
    specs: Vec<TensorSpec>,
    targets: Vec<OutputTarget>,
    results: Vec<Option<Tensor>>,
    /// Bytes written in this run.
    pub bytes_written: u64,
}

impl Outputs {
    fn new(specs: &[TensorSpec]) -> Self {
        Self {
            specs: specs.to_vec(),
            targets: vec![OutputTarget::Allocate; specs.len()],
            results: vec![None; specs.len()],
            bytes_written: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.specs.len()
    }

    pub fn spec(&self, index: usize) -> &TensorSpec {
        &self.specs[index]
    }

    /// Where output `index` of this run is to be written.
    pub fn prepare(&mut self, index: usize, shape: &[usize]) -> Result<Tensor, RunError> {
        let spec = &self.specs[index];
        let tensor = match &self.targets[index] {
            OutputTarget::Into(tensor) if tensor.shape() == shape => tensor.clone(),
            OutputTarget::Into(tensor) => {
                return Err(RunError::Output {
                    name: spec.name.clone(),
                    why: format!("is {shape:?}, bound to {:?}", tensor.shape()),
                });
            }
            OutputTarget::Allocate => Tensor::zeroed(spec.dtype, shape)?,
        };
        self.bytes_written += tensor.bytes() as u64;
        self.results[index] = Some(tensor.clone());
        Ok(tensor)
    }

    /// The memory bound to output `index`, if any.
    pub fn bound(&self, index: usize) -> Option<&Tensor> {
        match &self.targets[index] {
            OutputTarget::Into(tensor) => Some(tensor),
            OutputTarget::Allocate => None,
        }
    }
}

impl FakeSession {
    pub fn new(loaded: Arc<Loaded>) -> Self {
        Self {
            inputs: vec![None; loaded.signature.inputs.len()],
            outputs: Outputs::new(&loaded.signature.outputs),
            cancel: Arc::default(),
            loaded,
        }
    }
}

impl Session for FakeSession {
    fn bind_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), RunError> {
        let specs = &self.loaded.signature.inputs;
        let spec = specs.get(index).ok_or(RunError::NoSuchTensor { index })?;
        if !spec.accepts(tensor.dtype(), tensor.shape()) {
            return Err(RunError::input(spec, tensor.dtype(), tensor.shape()));
        }
        self.inputs[index] = Some(tensor.clone());
        Ok(())
    }

    fn bind_output(&mut self, index: usize, target: OutputTarget) -> Result<(), RunError> {
        let specs = &self.loaded.signature.outputs;
        let spec = specs.get(index).ok_or(RunError::NoSuchTensor { index })?;
        if let OutputTarget::Into(tensor) = &target
            && !spec.accepts(tensor.dtype(), tensor.shape())
        {
            return Err(RunError::Output {
                name: spec.name.clone(),
                why: format!("cannot go into {} {:?}", tensor.dtype(), tensor.shape()),
            });
        }
        self.outputs.targets[index] = target;
        self.outputs.results[index] = None;
        Ok(())
    }

    fn run(&mut self) -> Result<RunReport, RunError> {
        let loaded = self.loaded.clone();
        let start = Instant::now();
        let inputs: Vec<Tensor> = self
            .inputs
            .iter()
            .zip(&loaded.signature.inputs)
            .map(|(bound, spec)| {
                bound.clone().ok_or_else(|| RunError::InputMissing {
                    name: spec.name.clone(),
                })
            })
            .collect::<Result<_, _>>()?;
        let run = 1 + loaded.runs.fetch_add(1, Ordering::Relaxed);
        let faults = Faults::new(&loaded.script, loaded.provider);
        faults.during_run(run, &self.cancel)?;
        let wrong = loaded.script.wrong_numbers && faults.strikes();
        self.outputs.bytes_written = 0;
        match &loaded.script.text {
            Some(script) => text::compute(script, wrong, &inputs, &mut self.outputs)?,
            None => compute(&loaded.script.compute, wrong, &inputs, &mut self.outputs)?,
        }
        let bytes_read: usize = inputs.iter().map(Tensor::bytes).sum();
        Ok(RunReport {
            compute_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            bytes_copied: bytes_read as u64 + self.outputs.bytes_written,
        })
    }

    fn output(&self, index: usize) -> Result<Tensor, RunError> {
        let result = self.outputs.results.get(index);
        let result = result.ok_or(RunError::NoSuchTensor { index })?;
        result.clone().ok_or_else(|| RunError::Output {
            name: self.outputs.specs[index].name.clone(),
            why: "nothing has run yet".into(),
        })
    }

    fn canceller(&self) -> Canceller {
        Canceller::new(CancelHandle(self.cancel.clone()))
    }
}
