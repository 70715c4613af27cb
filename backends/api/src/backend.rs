//! The three traits: [`Backend`] → [`Model`] → [`Session`].

use crate::capability::Capability;
use crate::error::{LoadError, RunError};
use crate::manifest::BackendKind;
use crate::plan::Placement;
use crate::state::DeviceStates;
use crate::tensor::{DType, Tensor};
use crate::threads::Threads;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// One inference library, loaded for the life of the process.
pub trait Backend: Send + Sync {
    /// Which library this is.
    fn kind(&self) -> BackendKind;

    /// The library's own version string.
    fn version(&self) -> &str;

    /// Names of the execution providers or delegates that can be probed, each once.
    fn providers(&self) -> Vec<String>;

    /// What really works here of one of [`Backend::providers`]: one entry per kind of device it may
    /// compute on, each proven by running a tiny model with CPU fallback forbidden, or with the
    /// typed reason why it does not. Slow and possibly fatal: called in a probe process only.
    fn probe_provider(&self, provider: &str) -> Vec<Capability>;

    /// What really works here of all.
    fn probe(&self) -> Vec<Capability> {
        let providers = self.providers();
        let found = providers.iter().map(|name| self.probe_provider(name));
        found.flatten().collect()
    }

    /// Loads and compiles a model for exactly the provider asked for, and reads back what the
    /// library really placed where.
    ///
    /// # Errors
    /// When the file is missing or malformed, an operator is unknown to the provider, or the
    /// library fails. Never falls back to another provider by itself.
    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Model>, LoadError>;
}

/// What to load, and how.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    /// The model file; external data lies beside it.
    pub file: PathBuf,
    /// Execution provider or delegate by its runtime's own name (`CPUExecutionProvider`,
    /// `XNNPACK`, …); empty for the backend's plain CPU path.
    pub provider: String,
    /// Options of the provider, passed through as they are (for an external delegate, `path`
    /// names the library).
    pub provider_options: Vec<(String, String)>,
    /// Threads to compute with.
    pub threads: Threads,
    /// Refuse a placement in which the CPU runs any node.
    pub forbid_cpu: bool,
    /// Open dimensions by the names that the file has for them, and what they are to be: some
    /// devices take models of fixed shapes only. A backend that cannot fix one refuses the load.
    pub dimensions: BTreeMap<String, usize>,
    /// A folder for what the provider compiles, of this file on this device alone: what lies there
    /// is used, if it still fits, and else replaced. Without one nothing is kept.
    pub compiled: Option<PathBuf>,
    /// A folder for the library's own profile of all runs, which [`Model::end_profile`] reads.
    pub profile: Option<PathBuf>,
}

/// Name, element type and shape of one model input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The tensor's name in the model file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; `None` is decided at run time.
    pub shape: Vec<Option<usize>>,
}

impl TensorSpec {
    /// Whether a tensor of this type and shape may be bound here.
    pub fn accepts(&self, dtype: DType, shape: &[usize]) -> bool {
        dtype == self.dtype
            && shape.len() == self.shape.len()
            && shape
                .iter()
                .zip(&self.shape)
                .all(|(have, want)| want.is_none_or(|w| w == *have))
    }
}

/// All inputs and outputs of a model, in the model's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// Inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Position of an input by name.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| spec.name == name)
    }

    /// The first input with a dimension that is decided at run time, and its place.
    pub fn first_open(&self) -> Option<(&TensorSpec, usize)> {
        self.inputs.iter().find_map(|spec| {
            let open = spec.shape.iter().position(Option::is_none)?;
            Some((spec, open))
        })
    }

    /// Position of an output by name.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| spec.name == name)
    }
}

/// A model that is loaded and compiled for one provider.
pub trait Model: Send + Sync {
    /// Inputs and outputs.
    fn signature(&self) -> &Signature;

    /// What runs where, as the library itself reports it after the load.
    fn placement(&self) -> Placement;

    /// New running state: nothing bound, recurrent state at its start.
    ///
    /// # Errors
    /// When the library fails or has no memory.
    fn session(&self) -> Result<Box<dyn Session>, LoadError>;

    /// Changes threads and spinning for all sessions from their next run on; bound tensors and
    /// state outlive it. Answers whether anything changed: a backend that cannot change
    /// its mind keeps what it has and says `false`.
    ///
    /// # Errors
    /// When the library fails; the old threads stay in use.
    fn set_threads(&self, threads: Threads) -> Result<bool, LoadError>;

    /// Ends the profile that [`LoadRequest::profile`] began and tells what the library itself wrote
    /// down of all runs since; `None` when there is no profile, or the library keeps none. Its file
    /// is removed.
    ///
    /// # Errors
    /// When the profile cannot be written or read.
    fn end_profile(&self) -> Result<Option<Profile>, LoadError> {
        Ok(None)
    }
}

/// What a library itself wrote down of the runs of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Per provider, the one that took the most time first.
    pub shares: Vec<ProfileShare>,
}

/// One provider's share of a [`Profile`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileShare {
    /// The runtime's own name of the provider.
    pub provider: String,
    /// Different kernels that ran, each once or more often: a node, or a group of nodes that were
    /// compiled into one.
    pub kernels: u32,
    /// Time in all of them, over all runs.
    pub time_us: u64,
}

impl Profile {
    /// The share of a provider, if any of its kernels ran.
    pub fn of(&self, provider: &str) -> Option<&ProfileShare> {
        self.shares.iter().find(|share| share.provider == provider)
    }
}

/// Where an output goes.
#[derive(Clone, Debug)]
pub enum OutputTarget {
    /// Into this memory; its shape is the shape expected.
    Into(Tensor),
    /// Into memory the backend allocates; fetched with [`Session::output`].
    Allocate,
}

/// What one run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunReport {
    /// Time inside the library.
    pub compute_us: u64,
    /// Bytes copied between bound tensors and the library's own memory or the device's, because a
    /// tensor could not be bound in place; with those of states since the run before.
    pub bytes_copied: u64,
}

/// Running state over a [`Model`]: bound tensors, and recurrent state where the library keeps it.
/// One thread at a time; bindings stay until they are replaced.
pub trait Session: Send {
    /// Binds input `index` (position in the signature). The memory is read at each run, so new
    /// values need no new binding.
    ///
    /// # Errors
    /// [`RunError::Input`] when type, rank or a fixed dimension does not fit.
    fn bind_input(&mut self, index: usize, tensor: &Tensor) -> Result<(), RunError>;

    /// Binds output `index`. Unbound outputs are allocated.
    ///
    /// # Errors
    /// [`RunError::Output`] when type or rank does not fit.
    fn bind_output(&mut self, index: usize, target: OutputTarget) -> Result<(), RunError>;

    /// Computes once. All inputs must be bound.
    ///
    /// # Errors
    /// [`RunError::Cancelled`] after [`Canceller::cancel`]; otherwise what failed.
    fn run(&mut self) -> Result<RunReport, RunError>;

    /// The tensor of output `index` of the last run, with its shape at run time. For an output
    /// bound with [`OutputTarget::Into`] this is that memory.
    ///
    /// # Errors
    /// [`RunError::Output`] before the first run.
    fn output(&self, index: usize) -> Result<Tensor, RunError>;

    /// A handle that stops the run in progress from another thread.
    fn canceller(&self) -> Canceller;

    /// State in memory of the device that the model computes on, where the library has such memory.
    /// Without it, [`Stateful`](crate::Stateful) keeps state in host memory.
    fn device_states(&mut self) -> Option<&mut dyn DeviceStates> {
        None
    }
}

/// How a backend stops a run in progress.
pub trait Cancel: Send + Sync {
    /// Makes the run in progress, or else the next one, end early with [`RunError::Cancelled`].
    fn cancel(&self);
}

/// A shared handle to [`Cancel`].
#[derive(Clone)]
pub struct Canceller(Arc<dyn Cancel>);

impl Canceller {
    /// Wraps a backend's way to cancel.
    pub fn new(cancel: impl Cancel + 'static) -> Self {
        Self(Arc::new(cancel))
    }

    /// Makes the run in progress, or else the next one, end early with [`RunError::Cancelled`].
    /// One call stops one run; the session stays usable.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Canceller")
    }
}
