//! What the server answers.

use super::clip::{FrameLabels, Steered};
use super::receipt::Receipt;
use super::report::{Capability, Event, Explanation, ModelDetails, ModelInfo, StatusReport};
use super::status::Status;
use super::tensor::{Tensor, TensorSpec};
use crate::limits::Limits;
use serde::Serialize;
use std::os::fd::OwnedFd;

/// One answer.
#[derive(Debug)]
#[allow(missing_docs, reason = "the schema says what each answer is")]
pub enum Reply {
    Welcome(Welcome),
    Accepted { queue_position: u32 },
    Token(Token),
    Progress(Progress),
    Preview(Preview),
    Frame(FrameOut),
    Audio(AudioOut),
    Tensor(Tensor),
    Embeddings(Embeddings),
    Labels(FrameLabels),
    Steered(Steered),
    Done(Box<Done>),
    Failed(Status),
    ModelList(Vec<ModelInfo>),
    ModelDetails(Box<ModelDetails>),
    DeviceList(Vec<Capability>),
    Explanation(Box<Explanation>),
    StreamOpened(StreamOpened),
    StreamResult(StreamResult),
    StatusReport(Box<StatusReport>),
    Event(Event),
    Ok,
}

impl Reply {
    /// Whether it costs the client's credit.
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
                | Self::Event(_)
        )
    }

    /// Whether it is the last answer to its request. (`StreamResult` answers one push.)
    pub fn closes(&self) -> bool {
        !self.costs_credit()
            && !matches!(
                self,
                Self::Accepted { .. } | Self::Progress(_) | Self::Steered(_)
            )
    }
}

/// Answer to `Hello`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The wire version that is spoken from here on.
    pub version: u32,
    /// Version of the daemon.
    pub server_version: String,
    /// What the daemon accepts.
    pub limits: Limits,
}

/// One token of an answer.
#[derive(Clone, PartialEq, Serialize)]
pub struct Token {
    /// Position in the answer, from 0.
    pub index: u32,
    /// Id in the vocabulary.
    pub id: u32,
    /// Whole characters; empty while one is incomplete.
    pub text: String,
    /// Text of the reasoning likewise, when the request asks for it apart; the other is then the
    /// answer's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// Whether it is of the reasoning, or one of its tags.
    pub is_reasoning: bool,
    /// How likely it was, when the request asks.
    pub logprobs: Option<Logprobs>,
}

impl Token {
    /// A token of which nothing but its text is told.
    pub fn new(index: u32, id: u32, text: impl Into<String>) -> Self {
        Self {
            index,
            id,
            text: text.into(),
            reasoning: String::new(),
            is_reasoning: false,
            logprobs: None,
        }
    }
}

/// Natural logarithms of probabilities by the model's own distribution.
#[derive(Clone, PartialEq, Serialize)]
pub struct Logprobs {
    /// Of the token that was taken.
    pub chosen: f32,
    /// Of the likeliest tokens, the likeliest first.
    pub top: Vec<TopToken>,
}

/// A token that could have been taken.
#[derive(Clone, PartialEq, Serialize)]
pub struct TopToken {
    /// Id in the vocabulary.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// What it decodes to alone.
    pub text: String,
}

impl std::fmt::Debug for Logprobs {
    /// Outputs never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logprobs").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TopToken {
    /// Outputs never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopToken").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Token {
    /// Outputs never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// What a job is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Stage {
    Queued,
    Trying,
    Loading,
    /// In milliseconds, as nobody tells how far it is.
    Compiling,
    Prefill,
    Decode,
    Transform,
    Encode,
    Embed,
    Denoise,
    Label,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// What it is doing.
    pub stage: Stage,
    /// Units done: tokens, texts, frames, files, milliseconds.
    pub done: u64,
    /// Units in all, when known.
    pub total: Option<u64>,
    /// Expected time to the end, when known.
    pub remaining_ms: Option<u64>,
}

/// A small picture of work in progress.
#[derive(Clone, PartialEq, Eq)]
pub struct Preview {
    /// Output frame it shows; where a clip is generated, steps done.
    pub frame_index: u64,
    /// Width of the PNG.
    pub width: u32,
    /// Height of the PNG.
    pub height: u32,
    /// The PNG file.
    pub png: Vec<u8>,
}

impl std::fmt::Debug for Preview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preview")
            .field("frame_index", &self.frame_index)
            .finish_non_exhaustive()
    }
}

/// One frame of a clip.
#[derive(Debug)]
pub struct FrameOut {
    /// Its place in the clip.
    pub frame_index: u64,
    /// Pixels.
    pub frame: Tensor,
}

/// Sound of a clip.
#[derive(Debug)]
pub struct AudioOut {
    /// The first of these samples, counted in each channel from the clip's beginning.
    pub sample_index: u64,
    /// Samples per second of each channel, 1 to [`AUDIO_SAMPLE_RATE_MAX`](crate::limits::AUDIO_SAMPLE_RATE_MAX).
    pub sample_rate: u32,
    /// f32 `[samples, channels]`, from -1 to 1, inline or passed: 1 to
    /// [`AUDIO_CHANNELS_MAX`](crate::limits::AUDIO_CHANNELS_MAX) channels, and at most
    /// [`AUDIO_BYTES_MAX`](crate::limits::AUDIO_BYTES_MAX).
    pub audio: Tensor,
}

impl AudioOut {
    /// Samples of each channel.
    pub fn samples(&self) -> u64 {
        self.audio.shape.first().copied().unwrap_or(0)
    }
}

/// A vector for each text.
#[derive(Debug)]
pub struct Embeddings {
    /// f32 `[texts, dimensions]`.
    pub vectors: Tensor,
    /// Tokens of each text that were computed.
    pub tokens: Vec<u32>,
    /// Places of the texts that were cut, ascending.
    pub truncated: Vec<u32>,
}

/// A stream's own socket.
#[derive(Debug)]
pub struct StreamOpened {
    /// The socket to the worker.
    pub socket: OwnedFd,
    /// What a push takes; state and constant inputs are not among them.
    pub inputs: Vec<TensorSpec>,
    /// What a push gives; state outputs are not among them.
    pub outputs: Vec<TensorSpec>,
}

/// Answer to one push.
#[derive(Debug)]
pub struct StreamResult {
    /// Outputs, those in the client's buffers included.
    pub outputs: Vec<Tensor>,
    /// Time inside the library.
    pub compute_us: u64,
    /// Bytes copied between the client's memory and the library's.
    pub bytes_copied: u64,
    /// Bytes written by the passes between frames and tensors.
    pub bytes_converted: u64,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// All work was done.
    #[default]
    Complete,
    /// The model ended its answer.
    EndOfAnswer,
    /// A stop string was met.
    StopString,
    /// As many tokens as were asked for.
    TokensMax,
    /// The context is full.
    ContextFull,
}

/// The last answer to work that went well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// What computed it.
    pub receipt: Receipt,
    /// Why it ended.
    pub finish: FinishReason,
}
