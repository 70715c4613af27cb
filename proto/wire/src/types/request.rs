//! What clients ask for. Everything here was checked when it was parsed.

use super::clip::{GenerateClip, LabelClip, SteerClip};
use super::frame::VideoFrame;
use super::tensor::{OutputTarget, Tensor};
use std::os::fd::OwnedFd;

/// One request, with the descriptors that came with it.
#[derive(Debug)]
#[allow(missing_docs, reason = "the schema says what each verb does")]
pub enum Request {
    Hello(Hello),
    ListModels,
    InspectModel {
        model: String,
        load: bool,
    },
    ListDevices {
        refresh: bool,
    },
    Explain {
        model: String,
        options: WorkOptions,
        measure: bool,
    },
    Load {
        model: String,
        options: WorkOptions,
    },
    Unload {
        model: String,
    },
    Pin {
        model: String,
        pinned: bool,
    },
    Infer(Infer),
    OpenStream(OpenStream),
    StreamPush(StreamPush),
    StreamClose,
    Generate(Box<Generate>),
    TransformClip(TransformClip),
    GenerateClip(Box<GenerateClip>),
    LabelClip(LabelClip),
    Embed(Box<Embed>),
    Cancel {
        target: u64,
    },
    Credit {
        target: u64,
        frames: u32,
    },
    Pause {
        target: u64,
        paused: bool,
    },
    SteerClip(SteerClip),
    RegisterBuffer(RegisterBuffer),
    UnregisterBuffer {
        buffer: u64,
    },
    Watch,
    GetStatus,
    Rescan,
    /// A verb of a later version, or one that is not served yet.
    Unsupported {
        what: String,
    },
}

/// First frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest wire version the client speaks.
    pub version_min: u32,
    /// Newest.
    pub version_max: u32,
    /// Name of the client program.
    pub client_name: String,
}

/// Who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A person waits.
    Interactive,
    /// The usual.
    #[default]
    Normal,
    /// Whenever nothing else runs.
    Background,
}

/// What every piece of work may ask for; empty texts and zeros leave the choice to the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkOptions {
    /// Who goes first.
    pub priority: Priority,
    /// From receipt to the last step.
    pub deadline_ms: Option<u64>,
    /// Take this backend and nothing else.
    pub require_backend: Option<String>,
    /// Take this runtime flavour and nothing else.
    pub require_flavour: Option<String>,
    /// Take this provider and nothing else.
    pub require_provider: Option<String>,
    /// Take this variant and nothing else.
    pub require_variant: Option<String>,
    /// Refuse a placement in which the CPU runs any node.
    pub forbid_cpu: bool,
    /// Threads to compute with.
    pub threads_max: Option<u32>,
    /// Content frames the server may send at once; 1..=[`crate::limits::CREDIT_MAX`].
    pub credit: u32,
}

/// Tensors in, tensors out.
#[derive(Debug)]
pub struct Infer {
    /// Model.
    pub model: String,
    /// Inputs, names unique.
    pub inputs: Vec<Tensor>,
    /// Where outputs go; names unique.
    pub outputs: Vec<OutputTarget>,
    /// Options.
    pub options: WorkOptions,
}

/// A stateful stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenStream {
    /// Model.
    pub model: String,
    /// Options.
    pub options: WorkOptions,
}

/// One step of a stream.
#[derive(Debug, Default)]
pub struct StreamPush {
    /// Inputs, names unique.
    pub inputs: Vec<Tensor>,
    /// Where outputs go; names unique.
    pub outputs: Vec<OutputTarget>,
    /// Inputs that are frames; names unique.
    pub frames: Vec<VideoFrame>,
    /// Outputs that are to be written as frames; names unique.
    pub frame_outputs: Vec<VideoFrame>,
}

/// Text to be answered.
#[derive(Clone, PartialEq)]
pub struct Generate {
    /// Model.
    pub model: String,
    /// What to answer.
    pub prompt: Prompt,
    /// Tokens of the answer at most.
    pub tokens_max: Option<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// Tell how likely each token was, and so many of the likeliest: at most
    /// [`crate::limits::LOGPROBS_MAX`].
    pub logprobs: Option<u32>,
    /// Added to logits before anything else shapes the draw; ids unique, at most
    /// [`crate::limits::LOGIT_BIAS_MAX`].
    pub logit_bias: Vec<LogitBias>,
    /// What form the answer must have.
    pub constraint: Option<Constraint>,
    /// Tell reasoning apart from the answer.
    pub reasoning: Option<Reasoning>,
    /// A JSON list of tools for the chat template; at most [`crate::limits::TOOLS_BYTES_MAX`].
    pub tools_json: Option<String>,
    /// Give the same tokens whatever other answers there are, with the same number of threads.
    pub deterministic: bool,
    /// Go on without the oldest part when the context is full.
    pub slide_context: bool,
    /// Tokens that are drafted and verified in one run; at most [`crate::limits::DRAFT_TOKENS_MAX`].
    pub draft_tokens_max: Option<u32>,
    /// Options.
    pub options: WorkOptions,
}

impl Generate {
    /// A greedy request with nothing else said.
    pub fn new(model: impl Into<String>, prompt: Prompt) -> Self {
        Self {
            model: model.into(),
            prompt,
            tokens_max: None,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: None,
            logit_bias: Vec::new(),
            constraint: None,
            reasoning: None,
            tools_json: None,
            deterministic: false,
            slide_context: false,
            draft_tokens_max: None,
            options: WorkOptions::default(),
        }
    }
}

impl std::fmt::Debug for Generate {
    /// Prompts never reach a log, not even by way of `{:?}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generate")
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// What is to be answered.
#[derive(Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Put through the model's chat template.
    Messages(Vec<ChatMessage>),
    /// As it is.
    Plain(String),
}

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, …
    pub role: String,
    /// Text.
    pub content: String,
    /// A JSON object whose fields the template sees beside these.
    pub fields_json: Option<String>,
}

impl ChatMessage {
    /// A message that is text alone.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            fields_json: None,
        }
    }

    /// Bytes of its texts.
    pub fn bytes(&self) -> usize {
        let fields = self.fields_json.as_ref().map_or(0, String::len);
        self.role.len() + self.content.len() + fields
    }
}

/// How much likelier a token is made, or how much less likely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitBias {
    /// Id in the vocabulary.
    pub token_id: u32,
    /// Within [`crate::limits::BIAS_MAX`].
    pub bias: f32,
}

impl std::fmt::Debug for Constraint {
    /// What a caller asks never reaches a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::JsonSchema(_) => "JsonSchema(..)",
            Self::Regex(_) => "Regex(..)",
        })
    }
}

/// What is to be done with what a model writes between its tags ahead of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// Tokens between the tags at most; then the closing one is forced.
    pub tokens_max: Option<u32>,
}

/// What form an answer must have; at most [`crate::limits::CONSTRAINT_BYTES_MAX`], not empty.
#[derive(Clone, PartialEq, Eq)]
pub enum Constraint {
    /// JSON that this JSON schema describes.
    JsonSchema(String),
    /// A text that this regular expression matches as a whole.
    Regex(String),
}

/// How tokens are drawn; all `None` is greedy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Only the k likeliest.
    pub top_k: Option<u32>,
    /// Only the likeliest that together reach p.
    pub top_p: Option<f32>,
    /// Only those at least this share as likely as the likeliest.
    pub min_p: Option<f32>,
    /// Logits of tokens already there are divided (or, below zero, multiplied) by this.
    pub repetition_penalty: Option<f32>,
    /// The same seed gives the same tokens.
    pub seed: Option<u64>,
}

/// Texts to be made vectors of.
#[derive(Clone, PartialEq, Eq)]
pub struct Embed {
    /// Model.
    pub model: String,
    /// The texts: 1 to [`crate::limits::EMBED_TEXTS_MAX`], none of them empty, without NUL.
    pub texts: Vec<String>,
    /// What they are.
    pub kind: EmbedKind,
    /// Keep so many of the first dimensions.
    pub dimensions: Option<u32>,
    /// Cut texts that do not fit the context.
    pub truncate: bool,
    /// Options.
    pub options: WorkOptions,
}

impl Embed {
    /// A request for whole vectors of texts as they are.
    pub fn new(model: impl Into<String>, texts: Vec<String>) -> Self {
        Self {
            model: model.into(),
            texts,
            kind: EmbedKind::default(),
            dimensions: None,
            truncate: false,
            options: WorkOptions::default(),
        }
    }
}

impl std::fmt::Debug for Embed {
    /// Texts never reach a log, not even by way of `{:?}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embed")
            .field("model", &self.model)
            .field("texts", &self.texts.len())
            .finish_non_exhaustive()
    }
}

/// What texts are to be embedded as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmbedKind {
    /// As they are.
    #[default]
    Plain,
    /// Behind the query prefix of the model's manifest.
    Query,
    /// Behind its document prefix.
    Document,
}

/// How a clip is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClipFormat {
    /// AV1 in MP4.
    #[default]
    Mp4Av1,
    /// Animated GIF.
    Gif,
    /// PNG files one after another.
    PngStream,
    /// AV1 in WebM.
    WebmAv1,
    /// Animated WebP, lossless.
    Webp,
    /// Frames one after another, RGB, 8 bits each.
    RawRgb8,
    /// YUV4MPEG2, 4:2:0.
    Y4m,
}

/// A clip file to be transformed. Its sound is copied where the output's format takes it.
#[derive(Debug)]
pub struct TransformClip {
    /// Model.
    pub model: String,
    /// Frames out per frame in: 2 or 4; 0 with models that restore frames.
    pub factor: u32,
    /// How the result is written.
    pub output_format: ClipFormat,
    /// Frames to read at most.
    pub frames_max: Option<u64>,
    /// Scale down to this width.
    pub width_max: Option<u32>,
    /// Scale down to this height.
    pub height_max: Option<u32>,
    /// Frames per second where the input does not say.
    pub frame_rate: Option<u32>,
    /// AV1 speed, 0 to 10.
    pub encoder_speed: Option<u32>,
    /// A preview of about every n-th output frame.
    pub preview_every: Option<u32>,
    /// Wider or higher frames are restored in tiles of at most so many pixels a side.
    pub tile_side_max: Option<u32>,
    /// Options.
    pub options: WorkOptions,
    /// The clip.
    pub input: OwnedFd,
    /// The result, opened for reading and writing.
    pub output: OwnedFd,
    /// Where a contact sheet (PNG) goes, when one is wanted.
    pub contact_sheet: Option<OwnedFd>,
}

/// A memfd to be mapped once and named by id after.
#[derive(Debug)]
pub struct RegisterBuffer {
    /// The client's id for it.
    pub buffer: u64,
    /// Bytes to map.
    pub bytes: u64,
    /// Whether outputs may be written to it.
    pub writable: bool,
    /// The memfd; seals and size were checked.
    pub fd: OwnedFd,
}
