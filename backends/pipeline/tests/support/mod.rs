//! A model made of a closure, for tests of what pipelines do with models.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod text;

use mote_api::{
    BackendError, Cancel, Canceller, DType, DeviceStates, LoadError, Model, OutputTarget,
    Placement, RunError, RunReport, Session, Signature, StatePlace, StateSpec, Tensor, TensorSpec,
    Threads,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What a run sees.
pub struct Run<'a> {
    pub inputs: &'a [Tensor],
    /// Memory that outputs are bound to.
    pub targets: &'a [Option<Tensor>],
    /// Whether this run ends as cancelled; it may leave rubbish behind, as real ones do.
    pub cancelled: bool,
}

/// Gives an output, or `None` for one it wrote to its target itself.
pub type Outputs = Result<Vec<Option<Tensor>>, RunError>;
type Compute = dyn Fn(&Run<'_>) -> Outputs + Send + Sync;
type Hook = dyn FnMut(usize) + Send;

/// What happened to all sessions of a model.
#[derive(Default)]
pub struct Log {
    pub runs: AtomicUsize,
    pub binds: AtomicUsize,
    pub sessions: AtomicUsize,
    /// States that all sessions keep now.
    pub states: AtomicUsize,
    /// How many there is room for on the device; 0 when there is no device to speak of.
    pub states_max: AtomicUsize,
    /// Called with the number of each run as it begins.
    hook: Mutex<Option<Box<Hook>>>,
}

impl Log {
    pub fn on_run(&self, hook: impl FnMut(usize) + Send + 'static) {
        *self.hook.lock().expect("not poisoned") = Some(Box::new(hook));
    }

    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }

    pub fn binds(&self) -> usize {
        self.binds.load(Ordering::Relaxed)
    }

    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

struct ClosureModel {
    signature: Signature,
    compute: Arc<Compute>,
    log: Arc<Log>,
}

/// A model that computes with a closure, and what happens to it.
pub fn closure_model(
    signature: Signature,
    compute: impl Fn(&Run<'_>) -> Outputs + Send + Sync + 'static,
) -> (Arc<dyn Model>, Arc<Log>) {
    let log = Arc::new(Log::default());
    let model = ClosureModel {
        signature,
        compute: Arc::new(compute),
        log: Arc::clone(&log),
    };
    (Arc::new(model), log)
}

impl Model for ClosureModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn placement(&self) -> Placement {
        Placement::default()
    }

    fn session(&self) -> Result<Box<dyn Session>, LoadError> {
        self.log.sessions.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(ClosureSession {
            inputs: vec![None; self.signature.inputs.len()],
            targets: vec![None; self.signature.outputs.len()],
            outputs: vec![None; self.signature.outputs.len()],
            signature: self.signature.clone(),
            compute: Arc::clone(&self.compute),
            log: Arc::clone(&self.log),
            pending: Arc::default(),
            states: 0,
        }))
    }

    fn set_threads(&self, _: Threads) -> Result<bool, LoadError> {
        Ok(false)
    }
}

struct ClosureSession {
    signature: Signature,
    inputs: Vec<Option<Tensor>>,
    targets: Vec<Option<Tensor>>,
    outputs: Vec<Option<Tensor>>,
    compute: Arc<Compute>,
    log: Arc<Log>,
    pending: Arc<AtomicBool>,
    states: usize,
}

impl Drop for ClosureSession {
    fn drop(&mut self) {
        self.log.states.fetch_sub(self.states, Ordering::Relaxed);
    }
}

/// A device that has only so much room, and then leaves it all to the host.
impl DeviceStates for ClosureSession {
    fn keep(&mut self, state: &StateSpec) -> Result<Option<usize>, RunError> {
        if self.log.states.load(Ordering::Relaxed) >= self.log.states_max.load(Ordering::Relaxed) {
            return Err(RunError::DeviceMemory {
                name: self.signature.inputs[state.input].name.clone(),
                device: "tiny".into(),
                bytes: state.bytes()?,
                cause: BackendError::new("allocate", "full"),
            });
        }
        self.log.states.fetch_add(1, Ordering::Relaxed);
        self.states += 1;
        Ok(None)
    }

    fn reshape(&mut self, index: usize, _: &[usize]) -> Result<(), RunError> {
        Err(RunError::NoSuchTensor { index })
    }

    fn exchange(&mut self, index: usize, _: usize) -> Result<(), RunError> {
        Err(RunError::NoSuchTensor { index })
    }

    fn place(&self, index: usize) -> Result<StatePlace, RunError> {
        Err(RunError::NoSuchTensor { index })
    }

    fn clear(&mut self, index: usize) -> Result<(), RunError> {
        Err(RunError::NoSuchTensor { index })
    }

    fn read(&mut self, index: usize, _: &Tensor) -> Result<(), RunError> {
        Err(RunError::NoSuchTensor { index })
    }

    fn write(&mut self, index: usize, _: &Tensor) -> Result<(), RunError> {
        Err(RunError::NoSuchTensor { index })
    }
}

struct Pending(Arc<AtomicBool>);

impl Cancel for Pending {
    fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Session for ClosureSession {
    fn bind_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), RunError> {
        let spec = &self.signature.inputs[index];
        if !spec.accepts(tensor.dtype(), tensor.shape()) {
            return Err(RunError::input(spec, tensor.dtype(), tensor.shape()));
        }
        self.log.binds.fetch_add(1, Ordering::Relaxed);
        self.inputs[index] = Some(tensor.clone());
        Ok(())
    }

    fn bind_output(&mut self, index: usize, target: OutputTarget) -> Result<(), RunError> {
        self.log.binds.fetch_add(1, Ordering::Relaxed);
        self.targets[index] = match target {
            OutputTarget::Into(tensor) => Some(tensor),
            OutputTarget::Allocate => None,
        };
        Ok(())
    }

    fn run(&mut self) -> Result<RunReport, RunError> {
        let number = self.log.runs.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(hook) = self.log.hook.lock().expect("not poisoned").as_mut() {
            hook(number);
        }
        let cancelled = self.pending.swap(false, Ordering::AcqRel);
        let missing = self.inputs.iter().position(Option::is_none);
        if let Some(index) = missing {
            let name = self.signature.inputs[index].name.clone();
            return Err(RunError::InputMissing { name });
        }
        let inputs: Vec<Tensor> = self.inputs.iter().flatten().cloned().collect();
        let outputs = (self.compute)(&Run {
            inputs: &inputs,
            targets: &self.targets,
            cancelled,
        })?;
        if cancelled {
            return Err(RunError::Cancelled);
        }
        for (index, made) in outputs.into_iter().enumerate() {
            self.outputs[index] = match (&self.targets[index], made) {
                (Some(target), Some(made)) => {
                    assert_eq!(
                        target.shape(),
                        made.shape(),
                        "bound shape of output {index}"
                    );
                    target.write_bytes(&made.read_bytes()?)?;
                    Some(target.clone())
                }
                (Some(target), None) => Some(target.clone()),
                (None, made) => made,
            };
        }
        Ok(RunReport {
            compute_us: 1,
            bytes_copied: 0,
        })
    }

    fn output(&self, index: usize) -> Result<Tensor, RunError> {
        self.outputs[index].clone().ok_or_else(|| RunError::Output {
            name: self.signature.outputs[index].name.clone(),
            why: "before the first run".into(),
        })
    }

    fn canceller(&self) -> Canceller {
        Canceller::new(Pending(Arc::clone(&self.pending)))
    }

    fn device_states(&mut self) -> Option<&mut dyn DeviceStates> {
        let room = self.log.states_max.load(Ordering::Relaxed);
        (room > 0).then_some(self as &mut dyn DeviceStates)
    }
}

pub fn spec(name: &str, dtype: DType, shape: &[i64]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        dtype,
        shape: shape.iter().map(|&d| usize::try_from(d).ok()).collect(),
    }
}

pub fn refuse(why: &str) -> RunError {
    RunError::Compute(BackendError::new("compute", why))
}

/// Cases that each change something sound, by the name that the refusal must give.
pub type Changes<T> = Vec<(&'static str, fn(&mut T))>;

/// A well-spread function of two numbers (splitmix64).
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = (a ^ b.rotate_left(32)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
