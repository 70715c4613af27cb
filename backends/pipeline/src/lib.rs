//! What Mote does with a loaded model, step by step: text generation, embedding, tensor runs, stateful
//! streams, frames out of frames, labels of frames, clips of words.
//!
//! Everything here is driven from outside. A call does one *step* (a prefill chunk, a token, a
//! frame, a run) and returns, so that its caller can pause, cancel or reorder between steps. No
//! function here starts a thread, talks to a client, or logs what a user said or a model answered.
//!
//! * [`TextModel`] → [`TextJob`] → [`TextStep`], with [`KvPool`] between jobs
//! * [`EmbeddingModel`] → [`EmbeddingJob`] → [`EmbeddingStep`]
//! * [`TensorJob`], with [`SessionPool`] between jobs
//! * [`StreamSession`], also with frames as they are: [`FrameLayout`]
//! * [`FrameFilter`]: [`Interpolator`] in a [`FrameWindow`], [`Restorer`]
//! * [`Labeller`]
//! * [`GenerationModel`] → [`GenerationJob`] → [`GenerationStep`], with a [`Scheduler`] inside
//! * [`Check`], before all others
//!
//! Dependencies: `tokenizers` reads the ecosystem's `tokenizer.json`; `minijinja` renders its chat
//! templates; `llguidance` follows grammars; `half` converts 16-bit logits; `serde_json` reads `tokenizer_config.json`, tools
//! and schemas.
#![forbid(unsafe_code)]

mod binding;
mod cancel;
mod check;
mod clip;
mod diffusion;
mod embed;
mod error;
mod frames;
mod philox;
mod stream;
mod tensor;
mod text;

pub use check::Check;
pub use clip::{
    FACTORS, FilterStep, FrameFilter, FrameWindow, Interpolator, LABEL_BYTES_MAX, LABELS_BYTES_MAX,
    LABELS_MAX, Label, LabelStep, Labelled, LabelledBox, Labeller, Planes, PlanesStep,
    RestorationOptions, Restorer, Rgb, RgbFrame, WindowStep, read_labels,
};
pub use diffusion::{
    AUDIO_CHANNELS_MAX, AUDIO_SAMPLE_RATE_MAX, AudioChunk, AudioPlan, CHECKPOINT_BYTES_MAX,
    CLIP_FRAMES_MAX, CLIP_PROMPT_BYTES_MAX, CLIP_SIDE_MAX, CONFIG_BYTES_MAX, GenerationDefaults,
    GenerationJob, GenerationModel, GenerationPlan, GenerationRequest, GenerationSegment,
    GenerationStep, Guidance, ImageUse, LATENT_BYTES_MAX, SEGMENT_PIXELS_MAX, SEGMENTS_MAX,
    STEPS_MAX, Scheduler, SchedulerConfig, SchedulerError, SchedulerKind, TRAIN_TIMESTEPS_MAX,
    Timing, flow_sigmas, gaussian,
};
pub use embed::{
    EmbeddingJob, EmbeddingKind, EmbeddingModel, EmbeddingRequest, EmbeddingStats, EmbeddingStep,
    Embeddings,
};
pub use error::PipelineError;
pub use frames::{
    ColorMatrix, ColorRange, FRAME_PLANES_MAX, FRAME_SIDE_PIXELS_MAX, FittedRect, Frame,
    FrameFormat, FrameLayout, FrameSource, FrameTarget, Plane, dense_bytes, rgb_of,
};
pub use mote_api::FRAME_PIXELS_MAX;
pub use stream::{FramesPush, FramesResult, PREPARED_MAX, PushId, StreamSession};
pub use tensor::{NamedTarget, NamedTensor, SESSIONS_MAX, SessionPool, TensorJob, TensorResult};
pub use text::{
    BIAS_MAX, CONSTRAINT_BYTES_MAX, ChatTurn, Constraint, DRAFT_TOKENS_MAX, Finish, KvPool,
    LOGIT_BIAS_MAX, LOGPROBS_MAX, Logprobs, MESSAGES_MAX, POOL_ENTRIES_MAX, PREFILL_CHUNK_TOKENS,
    PROMPT_BYTES_MAX, ROWS_MAX, Reasoning, SCHEMA_DEPTH_MAX, STOP_BYTES_MAX, STOP_STRINGS_MAX,
    Sampling, TOKENS_DEFAULT, TOOLS_BYTES_MAX, TextJob, TextModel, TextPrompt, TextRequest,
    TextStats, TextStep, TokenBias, TopToken,
};
