//! The client of Mote: blocking, no runtime, usable from several threads.
//!
//! ```no_run
//! use mote_client::{Client, DType, Embed, Generate, GenerationEvent, Input, Prompt, WorkOptions};
//!
//! # fn main() -> Result<(), mote_client::ClientError> {
//! let client = Client::connect_default("example")?;
//!
//! // Tensors in, tensors out.
//! let image = vec![0u8; 3 * 224 * 224 * 4];
//! let input = Input::bytes("input", DType::F32, &[1, 3, 224, 224], &image);
//! let result = client.infer("resnet", &[input], &[], &WorkOptions::default())?;
//! println!("{} on {}", result.outputs[0].name, result.done.receipt.device.name);
//!
//! // Text in, text out.
//! let request = Generate {
//!     tokens_max: Some(64),
//!     ..Generate::new("smollm2-135m", Prompt::Plain("Once upon a time".into()))
//! };
//! for event in client.generate(request)? {
//!     if let GenerationEvent::Token(token) = event? {
//!         print!("{}", token.text);
//!     }
//! }
//!
//! // Texts in, a vector for each out.
//! let texts = vec!["one ocean".to_owned(), "the other".to_owned()];
//! let result = client.embed(Embed::new("qwen3-embedding", texts))?.wait()?;
//! println!("{:.2} alike", result.vectors.cosine(0, 1));
//!
//! // A stream over buffers that are mapped once: nothing is copied, no descriptor travels.
//! let mut stream = client.open_stream("silero-vad", &WorkOptions::default())?;
//! let mut audio = stream.buffer(512 * 4)?;
//! for _ in 0..100 {
//!     audio.with_slice_mut(|samples| samples.fill(0));
//!     let result = stream.push(&[Input::buffer("input", DType::F32, &[1, 512], &audio)], &[])?;
//!     println!("{} µs", result.compute_us);
//! }
//! println!("{} steps", stream.close()?.steps);
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

mod buffer;
mod call;
mod client;
mod clip;
mod embed;
mod error;
mod generation;
mod inbox;
mod infer;
mod link;
mod mapping;
mod pool;
mod steering;
mod stream;
mod tensor;
mod watch;

pub use buffer::Buffer;
pub use call::Canceller;
pub use client::Client;
pub use clip::{ClipAudio, ClipEvent, ClipFrame, ClipWork};
pub use embed::{EmbedResult, Embedding, EmbeddingEvent, Vectors};
pub use error::{ClientError, ProtocolError};
pub use generation::{Generation, GenerationEvent};
pub use infer::InferResult;
pub use steering::ClipSteering;
pub use stream::{FramesPush, Stream, StreamResult};
pub use tensor::{Input, Output, OwnedData, OwnedTensor};
pub use watch::Watch;

pub use mote_wire::limits::Limits;
pub use mote_wire::types::{
    AudioOut, BufferRange, CandidateInfo, Capability, ChatMessage, ClipFormat, ClipSegment,
    ColorMatrix, ColorRange, Constraint, DType, Device, Done, Embed, EmbedKind, Event, EventKind,
    Explanation, FinishReason, FrameFormat, FrameLabels, FrameOut, FramePlane, Generate,
    GenerateClip, Label, LabelBox, LabelClip, LogitBias, Logprobs, ModelDetails, ModelInfo,
    PowerReport, Preview, Priority, Progress, Prompt, ProviderShare, Reason, Reasoning, Receipt,
    Rejected, Sampling, Sandbox, SandboxPart, SandboxState, Stage, Status, StatusReport, Steered,
    TensorSpec, Token, TopToken, TransformClip, TrialInfo, VariantInfo, VideoFrame, WorkOptions,
    WorkerInfo, WorkerState,
};
