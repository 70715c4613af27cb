//! What the broker and its workers say to each other.

use super::clip::{FrameLabels, GenerateClip, LabelClip, Steered};
use super::receipt::Receipt;
use super::reply::{AudioOut, Done, Embeddings, FrameOut, Preview, Progress, Token};
use super::report::Sandbox;
use super::request::{Embed, Generate, Infer, TransformClip};
use super::status::Status;
use super::tensor::{Tensor, TensorSpec};
use std::os::fd::OwnedFd;

/// Broker to worker.
#[derive(Debug)]
#[allow(missing_docs, reason = "the schema says what each command does")]
pub enum Command {
    LoadModel(Box<LoadModel>),
    TryModel {
        load: Box<LoadModel>,
        terms_json: Vec<u8>,
    },
    StartJob(Box<StartJob>),
    CancelJob {
        job: u64,
    },
    CreditJob {
        job: u64,
        frames: u32,
    },
    PauseJob {
        job: u64,
    },
    ResumeJob {
        job: u64,
    },
    SteerJob(SteerJob),
    MapBuffer {
        buffer: u64,
        bytes: u64,
        writable: bool,
        fd: OwnedFd,
    },
    UnmapBuffer {
        buffer: u64,
    },
    AttachStream {
        stream: u64,
        socket: OwnedFd,
        step_limit_ms: Option<u64>,
        receipt: Box<Receipt>,
    },
    HoldStream {
        stream: u64,
        held: bool,
    },
    SetLoad {
        busy: bool,
        threads_max: Option<u32>,
    },
    SetThrottle {
        throttle_json: Vec<u8>,
    },
    Shutdown,
}

/// What to load. The JSON fields hold plain types of the backends' api crate, which this crate
/// does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct LoadModel {
    pub folder: String,
    pub manifest_json: Vec<u8>,
    pub candidate_json: Vec<u8>,
    pub flavour_json: Vec<u8>,
    pub flavour_folder: String,
    pub threads: u32,
    pub spin: bool,
    pub threads_follow_load: bool,
    pub threads_at_first: Option<u32>,
    pub model_digest: String,
    pub forbid_cpu: bool,
    pub verify_digests: bool,
    pub compiled_folder: String,
    pub cache_bytes_max: u64,
}

/// Another prompt for the shots of a job that have not begun.
#[derive(Clone, PartialEq, Eq)]
pub struct SteerJob {
    /// The broker's id for it.
    pub job: u64,
    /// What they shall show.
    pub prompt: String,
    /// The first of them, where an earlier worker said so.
    pub from_segment: Option<u32>,
}

impl std::fmt::Debug for SteerJob {
    /// Prompts never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SteerJob")
            .field("job", &self.job)
            .field("from_segment", &self.from_segment)
            .finish_non_exhaustive()
    }
}

/// A job to begin.
#[derive(Debug)]
pub struct StartJob {
    /// The broker's id for it.
    pub job: u64,
    /// The work; buffer ids in it are the broker's own.
    pub work: Work,
    /// Tokens a dead worker had emitted already.
    pub resume_token_ids: Vec<u32>,
    /// Seed where the request has none.
    pub seed: u64,
    /// Content frames it may send.
    pub credit: u32,
}

/// Work that goes through the broker.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Work {
    Infer(Infer),
    Generate(Generate),
    TransformClip(TransformClip),
    GenerateClip(Box<GenerateClip>),
    LabelClip(LabelClip),
    Embed(Embed),
}

/// Worker to broker.
#[derive(Debug)]
#[allow(missing_docs, reason = "the schema says what each event is")]
pub enum WorkerEvent {
    Hello {
        build_id: String,
        pid: i32,
    },
    LoadProgress(Progress),
    Loaded(Box<Loaded>),
    /// `rejection_json` is empty when the model itself is at fault.
    LoadFailed {
        status: Status,
        rejection_json: Vec<u8>,
    },
    Job {
        job: u64,
        reply: JobReply,
    },
    StreamEnded {
        stream: u64,
        steps: u64,
        compute_us: u64,
        bytes_copied: u64,
    },
    /// What a probe is about to try, before it tries any of it.
    Probing {
        providers: Vec<String>,
    },
    Probed {
        capabilities_json: Vec<u8>,
    },
    Tried {
        verdict_json: Vec<u8>,
        samples_json: Vec<u8>,
    },
    Faulted {
        job: u64,
        rejection_json: Vec<u8>,
    },
    StreamFaulted {
        stream: u64,
        rejection_json: Vec<u8>,
    },
}

/// What was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the schema")]
pub struct Loaded {
    pub placement_json: Vec<u8>,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    pub load_us: u64,
    pub rss_bytes: u64,
    pub library_version: String,
    pub sandbox: Option<Sandbox>,
    /// Text jobs that one run can serve; at most 1 where runs are not shared.
    pub jobs_per_run: u32,
}

impl JobReply {
    /// Whether it costs the client's credit, as in [`super::Reply::costs_credit`].
    pub fn costs_credit(&self) -> bool {
        matches!(
            self,
            Self::Token(_)
                | Self::Preview(_)
                | Self::Frame(_)
                | Self::Audio(_)
                | Self::Tensor(_)
                | Self::Embeddings(_)
                | Self::Labels(_)
        )
    }
}

/// One answer of a job.
#[derive(Debug)]
#[allow(missing_docs, reason = "as in Reply")]
pub enum JobReply {
    Token(Token),
    Progress(Progress),
    Preview(Preview),
    Frame(FrameOut),
    Audio(AudioOut),
    Tensor(Tensor),
    Embeddings(Embeddings),
    Labels(FrameLabels),
    Done(Box<Done>),
    Failed(Status),
    /// To each [`SteerJob`], in their order.
    Steered(Steered),
}
