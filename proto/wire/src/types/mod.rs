//! The messages as plain Rust types: what the rest of Mote sees of the wire.
//!
//! Generated protobuf types stop in this crate; `convert/` goes both ways, one file per topic, and
//! refuses what does not hold with [`Status::Invalid`] naming the field.

mod clip;
mod frame;
mod receipt;
mod reply;
mod report;
mod request;
mod status;
mod tensor;
mod worker;

pub use clip::{
    ClipSegment, FrameLabels, GenerateClip, Label, LabelBox, LabelClip, SteerClip, Steered,
};
pub use frame::{ColorMatrix, ColorRange, FrameFormat, FramePlane, VideoFrame};
pub use receipt::{Device, ProviderShare, Reason, Receipt, Rejected};
pub use reply::{
    AudioOut, Done, Embeddings, FinishReason, FrameOut, Logprobs, Preview, Progress, Reply, Stage,
    StreamOpened, StreamResult, Token, TopToken, Welcome,
};
pub use report::{
    CandidateInfo, Capability, Event, EventKind, Explanation, ModelDetails, ModelInfo, PowerReport,
    Sandbox, SandboxPart, SandboxState, StatusReport, TrialInfo, VariantInfo, WorkerInfo,
    WorkerState,
};
pub use request::{
    ChatMessage, ClipFormat, Constraint, Embed, EmbedKind, Generate, Hello, Infer, LogitBias,
    OpenStream, Priority, Prompt, Reasoning, RegisterBuffer, Request, Sampling, StreamPush,
    TransformClip, WorkOptions,
};
pub use status::Status;
pub use tensor::{BufferRange, DType, OutputTarget, Tensor, TensorData, TensorSpec};
pub use worker::{Command, JobReply, LoadModel, Loaded, StartJob, SteerJob, Work, WorkerEvent};
