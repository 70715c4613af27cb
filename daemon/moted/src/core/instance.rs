//! One loaded model: a worker process from the decision to start it to its end.

use super::power::Pace;
use super::trials::TrialNote;
use crate::catalogue::{Entry, Stamp};
use crate::convert;
use crate::ids::{JobId, StreamId, WantId, WorkerId};
use crate::policy::history::Key;
use crate::policy::ledger::Pool;
use crate::policy::power::Throttle;
use mote_api::{Candidate, Placement, Rejection};
use mote_wire::types::{Receipt, Rejected, Sandbox, TensorSpec, WorkerState};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for memory that others give back.
    AwaitingMemory,
    /// Waits because its like has crashed.
    BackingOff,
    /// The process was started and has not said hello.
    Starting,
    /// It loads the model.
    Loading,
    /// It takes work.
    Ready,
    /// It was told to leave.
    Stopping,
}

/// What is known once the model is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadedModel {
    /// What runs where.
    pub placement: Placement,
    /// Inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
    /// Time it took.
    pub load_us: u64,
    /// Version the library says it has.
    pub library_version: String,
    /// What the worker is kept in.
    pub sandbox: Option<Sandbox>,
    /// Text jobs that one run can serve.
    pub jobs_per_run: u32,
}

/// A worker and its model.
#[derive(Debug)]
pub struct Instance {
    /// Its number.
    pub worker: WorkerId,
    /// The model as it was described when the worker was started.
    pub entry: Arc<Entry>,
    /// Where it runs.
    pub candidate: Candidate,
    /// Set-backs on the way to this candidate, as receipts tell them.
    pub rejected: Vec<Rejected>,
    /// What its trial told.
    pub trial: TrialNote,
    /// Why the job that fails next does so, when another candidate may carry it out.
    pub fault: Option<(JobId, Rejection)>,
    /// Limit of threads the requests gave; without one, threads follow the machine's load.
    pub threads_max: Option<usize>,
    /// Whether no node is on the CPU.
    pub cpu_free: bool,
    /// Memory reserved for it.
    pub need_bytes: u64,
    /// Whose memory that is.
    pub pool: Pool,
    /// Where it is in its life.
    pub state: State,
    /// Its process, once started.
    pub pid: Option<i32>,
    /// The pace it was told last.
    pub pace: Pace,
    /// What it was told last of what slows the machine down.
    pub throttle: Throttle,
    /// Files that are being verified by this load.
    pub verifying: Option<Stamp>,
    /// Whether the model was loaded at any time.
    pub was_ready: bool,
    /// Set when it is ready.
    pub loaded: LoadedModel,
    /// What waits for it to be ready.
    pub wants: BTreeSet<WantId>,
    /// Jobs that are queued for it or run on it.
    pub jobs: BTreeSet<JobId>,
    /// Its streams.
    pub streams: BTreeSet<StreamId>,
    /// When its load began.
    pub load_began: Instant,
    /// When it was used last.
    pub last_used: Instant,
}

impl Instance {
    /// The model's name.
    pub fn model(&self) -> &str {
        &self.entry.manifest.name
    }

    /// What it is on record as.
    pub fn key(&self) -> Key {
        Key {
            digest: self.entry.digest.clone(),
            candidate: self.candidate.clone(),
        }
    }

    /// Says in a receipt what the model runs on, and what is known of that.
    pub fn describe(&self, receipt: &mut Receipt) {
        let (entry, candidate) = (&self.entry, &self.candidate);
        receipt.model.clone_from(&entry.manifest.name);
        receipt.model_digest.clone_from(&entry.digest);
        receipt.variant.clone_from(&candidate.variant);
        receipt.backend = candidate.backend.to_string();
        receipt.flavour.clone_from(&candidate.flavour);
        receipt
            .library_version
            .clone_from(&self.loaded.library_version);
        receipt.precision = candidate.precision.to_string();
        receipt.device = convert::device(&candidate.device);
        receipt.placement = convert::shares(&self.loaded.placement);
        receipt.placement_read_back = self.loaded.placement.read_back;
        receipt.rejected.clone_from(&self.rejected);
        self.trial
            .verification
            .clone_into(&mut receipt.verification);
        receipt.measured = self.trial.measured;
        receipt.measured_at_s = self.trial.tried_at_s;
    }

    /// Whether nothing needs it.
    pub fn is_idle(&self) -> bool {
        self.wants.is_empty() && self.jobs.is_empty() && self.streams.is_empty()
    }

    /// Whether there is a process, or will be as soon as the system has started it.
    pub fn has_process(&self) -> bool {
        !matches!(self.state, State::AwaitingMemory | State::BackingOff)
    }

    /// As it is told to clients.
    pub fn wire_state(&self) -> WorkerState {
        match self.state {
            State::AwaitingMemory | State::BackingOff | State::Starting => WorkerState::Starting,
            State::Loading => WorkerState::Loading,
            State::Ready => WorkerState::Ready,
            State::Stopping => WorkerState::Stopping,
        }
    }
}
