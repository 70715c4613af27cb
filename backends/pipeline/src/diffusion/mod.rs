//! Clips from noise: text and pictures in, frames out.
//!
//! [`GenerationModel`] is a folder in diffusers' layout whose parts are ONNX graphs, chosen by the
//! class in `model_index.json`; [`GenerationJob`] computes what the diffusers (0.42.1) pipeline of
//! that class does, a run of one graph per step. `tests/models/diffusion/pipelines.py` compares, with
//! the noise of [`gaussian`].
//!
//! * LTX (`LTXPipeline`, `LTXImageToVideoPipeline`, `LTXConditionPipeline`; HaCohen et al. 2024): rows
//!   of tokens with coordinates in seconds and pixels. Where the graph takes a timestep for each
//!   token, the first frame can be held at a picture, and a picture at the end comes in as further
//!   tokens.
//! * LTX-2 (`LTX2Pipeline`, `LTX2ImageToVideoPipeline`; HaCohen et al. 2026): as LTX, with sound that is made in
//!   the same steps: its latents are a second row of tokens, and stand behind the clip's in the sample that the
//!   scheduler works on. Connectors stand behind the text encoder. Of guidance there is the classifier-free kind;
//!   that by perturbed blocks and isolated modalities, which distilled models do not need, is not served.
//! * Wan (`WanPipeline`, `WanImageToVideoPipeline`, `WanVACEPipeline`; Wan Team 2025, Jiang et al. 2025): latents
//!   `[c, f, h, w]`, one denoiser or an expert each for high and low noise. Pictures come in as channels beside
//!   the noise; with `expand_timesteps` as a first frame that is held; with VACE as a control, where one more
//!   latent frame in front can be a reference of what is to be seen. Denoisers that look at pictures through an
//!   encoder of their own (CLIP) are given what it makes of those at the ends.
//!
//! Several segments become one clip: each begins with the last frame of the one before, held where the
//! model can hold one, else repeated under noise; that frame is not shown twice.

mod audio;
mod checkpoint;
mod control;
mod guidance;
mod job;
mod latents;
mod layout;
mod memory;
mod model;
mod noise;
mod parts;
mod pixels;
mod plan;
mod prompt;
mod request;
mod runner;
mod scheduler;
mod segment;
mod vision;

pub use audio::{AUDIO_CHANNELS_MAX, AUDIO_SAMPLE_RATE_MAX, AudioChunk, AudioPlan};
pub use guidance::Guidance;
pub use job::{GenerationJob, GenerationStep};
pub use model::{GenerationDefaults, GenerationModel, ImageUse};
pub use noise::gaussian;
pub use plan::{
    CHECKPOINT_BYTES_MAX, CLIP_FRAMES_MAX, CLIP_SIDE_MAX, GenerationPlan, LATENT_BYTES_MAX,
    SEGMENT_PIXELS_MAX,
};
pub use prompt::CLIP_PROMPT_BYTES_MAX;
pub use request::{GenerationRequest, GenerationSegment, SEGMENTS_MAX};
pub use scheduler::{
    CONFIG_BYTES_MAX, STEPS_MAX, Scheduler, SchedulerConfig, SchedulerError, SchedulerKind,
    TRAIN_TIMESTEPS_MAX, Timing, flow_sigmas,
};
