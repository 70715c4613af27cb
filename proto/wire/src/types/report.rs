//! Reports about models, devices and the daemon itself.

use super::receipt::{Device, ProviderShare, Reason, Rejected};
use super::status::Status;
use super::tensor::TensorSpec;
use serde::{Deserialize, Serialize};

/// One model of the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct ModelInfo {
    pub name: String,
    pub task: String,
    pub description: String,
    pub licence: String,
    pub source: String,
    pub digest: String,
    pub bytes: u64,
    pub variants: Vec<VariantInfo>,
    pub loaded: bool,
    pub pinned: bool,
    /// Why it cannot be served.
    pub problem: Option<Status>,
}

/// One variant of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct VariantInfo {
    pub name: String,
    pub backend: String,
    pub precision: String,
    pub weights_bytes: u64,
}

/// All about one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelDetails {
    /// The catalogue's entry.
    pub model: ModelInfo,
    /// Its folder.
    pub folder: String,
    /// The manifest, written out.
    pub manifest_toml: String,
    /// Whether the manifest was inferred from the files.
    pub inferred: bool,
    /// Inputs, when it is loaded.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, when it is loaded.
    pub outputs: Vec<TensorSpec>,
}

/// One provider of one runtime flavour, as probed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct Capability {
    pub flavour: String,
    pub backend: String,
    pub library_version: String,
    pub provider: String,
    pub device: Option<Device>,
    /// `None` when it was proven to work.
    pub absence: Option<Reason>,
    /// Whether the runtime was installed for this provider.
    pub expected: bool,
}

/// Where a model would run, and why not elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct Explanation {
    pub model: String,
    pub model_digest: String,
    /// `None` when nothing can run it.
    pub chosen: Option<CandidateInfo>,
    pub rejected: Vec<Rejected>,
    /// As read back after it was loaded last.
    pub placement: Vec<ProviderShare>,
    pub placement_read_back: bool,
    pub need_bytes: u64,
    pub budget_bytes: u64,
    pub notes: Vec<String>,
    pub trials: Vec<TrialInfo>,
}

/// What was found when a way to run was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct TrialInfo {
    pub candidate: CandidateInfo,
    pub verification: String,
    pub detail: String,
    pub run_us: u64,
    pub runs: u32,
    pub load_us: u64,
    pub host_cpu_us: u64,
    pub grown_bytes: u64,
    pub placement: Vec<ProviderShare>,
    pub tried_at_s: u64,
}

/// A way to run a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct CandidateInfo {
    pub variant: String,
    pub backend: String,
    pub flavour: String,
    pub library_version: String,
    pub provider: String,
    pub device: Device,
    pub precision: String,
}

/// The daemon at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct StatusReport {
    pub server_version: String,
    pub uptime_ms: u64,
    pub rss_bytes: u64,
    pub connections: u32,
    pub jobs_running: u32,
    pub jobs_queued: u32,
    pub streams: u32,
    pub buffers: u32,
    pub budget_bytes: u64,
    pub reserved_bytes: u64,
    /// `idle` or `busy`.
    pub machine_load: String,
    pub workers: Vec<WorkerInfo>,
    /// The broker's process; `None` when it does not say.
    pub pid: Option<i32>,
    /// `None` when it does not say.
    pub power: Option<PowerReport>,
}

/// What work may cost on this machine now, and what slows it down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PowerReport {
    /// `performance`, `balanced` or `efficient`.
    pub policy: String,
    /// Why, for people.
    pub why: String,
    /// As in a receipt.
    pub throttle: String,
    /// Whether work of the lowest priority waits for better times.
    pub background_paused: bool,
    /// Whether a lock is held that delays sleep.
    pub sleep_delayed: bool,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum WorkerState {
    #[default]
    Starting,
    Loading,
    Ready,
    Stopping,
}

/// One worker process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct WorkerInfo {
    pub pid: i32,
    pub model: String,
    pub flavour: String,
    pub state: WorkerState,
    pub reserved_bytes: u64,
    pub rss_bytes: u64,
    pub jobs: u32,
    pub streams: u32,
    /// `None` until the model is loaded.
    pub sandbox: Option<Sandbox>,
}

/// What keeps a worker from doing anything but its work, as it was read back from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// False when the daemon was started without it.
    pub enabled: bool,
    /// One entry per mechanism.
    pub parts: Vec<SandboxPart>,
}

/// One mechanism of a [`Sandbox`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxPart {
    /// `no_new_privileges`, `files`, `system_calls`, …
    pub name: String,
    /// Whether it holds.
    pub state: SandboxState,
    /// How far it goes, or what is missing; for people.
    pub detail: String,
}

/// Whether a mechanism holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// All of it.
    Active,
    /// As far as this kernel can.
    Partial,
    /// Not at all.
    #[default]
    Inactive,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Milliseconds since the daemon started.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[allow(missing_docs, reason = "as in the schema")]
pub enum EventKind {
    WorkerStarted {
        pid: i32,
        model: String,
        flavour: String,
    },
    WorkerEnded {
        pid: i32,
        model: String,
        signal: i32,
        exit_code: i32,
        expected: bool,
    },
    ModelLoaded {
        model: String,
        load_us: u64,
    },
    ModelUnloaded {
        model: String,
    },
    JobStarted {
        job: u64,
        model: String,
    },
    JobEnded {
        job: u64,
        model: String,
        outcome: String,
    },
    EventsDropped {
        count: u64,
    },
}
