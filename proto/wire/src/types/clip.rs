//! Clips that are generated, and what is seen in clips.

use super::request::{ClipFormat, WorkOptions};
use super::status::Status;
use crate::convert::generate_clip::check_prompt;
use crate::limits::STEERED_WHY_BYTES_MAX;
use serde::Serialize;
use std::fmt::Display;
use std::os::fd::OwnedFd;

/// One shot of a generated clip.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ClipSegment {
    /// What it shows.
    pub prompt: String,
    /// Its frames; the model's own number when absent.
    pub frames: Option<u32>,
}

impl std::fmt::Debug for ClipSegment {
    /// Prompts never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClipSegment")
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

/// A clip to be made of words, pictures or another clip. What is absent is as the model wants it.
pub struct GenerateClip {
    /// Model.
    pub model: String,
    /// Its shots, one after the other.
    pub segments: Vec<ClipSegment>,
    /// What it shall not show; only with guidance.
    pub negative_prompt: String,
    /// How much the prompt counts: 1 is no guidance.
    pub guidance: Option<f32>,
    /// Seed of the noise; the broker draws one where it is absent.
    pub seed: Option<u64>,
    /// Denoising steps of each shot.
    pub steps: Option<u32>,
    /// Pixels per row.
    pub width: Option<u32>,
    /// Rows.
    pub height: Option<u32>,
    /// Frames per second.
    pub frame_rate: Option<u32>,
    /// The scheduler by its diffusers class or short name.
    pub scheduler: Option<String>,
    /// How much of `source` is made anew: above 0, at most 1.
    pub strength: Option<f32>,
    /// How the result is written.
    pub output_format: ClipFormat,
    /// AV1 speed, 0 to 10.
    pub encoder_speed: Option<u32>,
    /// A preview after about every n-th step.
    pub preview_every: Option<u32>,
    /// Whether each frame is sent, too, as soon as it is decoded.
    pub send_frames: bool,
    /// Whether the sound is sent, too, as soon as it is made, where the model makes any.
    pub send_audio: bool,
    /// Options.
    pub options: WorkOptions,
    /// The result, opened for reading and writing.
    pub output: OwnedFd,
    /// Where a contact sheet (PNG) goes, when one is wanted.
    pub contact_sheet: Option<OwnedFd>,
    /// A picture for the first frame.
    pub first_image: Option<OwnedFd>,
    /// A picture for the last frame.
    pub last_image: Option<OwnedFd>,
    /// A picture of what is to be seen.
    pub reference_image: Option<OwnedFd>,
    /// A clip to begin from.
    pub source: Option<OwnedFd>,
    /// Where the work so far is kept, opened for reading and writing: who asks again with what an
    /// earlier request left there goes on from that.
    pub checkpoint: Option<OwnedFd>,
}

impl GenerateClip {
    /// One shot, all as the model wants it.
    pub fn new(model: impl Into<String>, prompt: impl Into<String>, output: OwnedFd) -> Self {
        Self {
            model: model.into(),
            segments: vec![ClipSegment {
                prompt: prompt.into(),
                frames: None,
            }],
            negative_prompt: String::new(),
            guidance: None,
            seed: None,
            steps: None,
            width: None,
            height: None,
            frame_rate: None,
            scheduler: None,
            strength: None,
            output_format: ClipFormat::Mp4Av1,
            encoder_speed: None,
            preview_every: None,
            send_frames: false,
            send_audio: false,
            options: WorkOptions::default(),
            output,
            contact_sheet: None,
            first_image: None,
            last_image: None,
            reference_image: None,
            source: None,
            checkpoint: None,
        }
    }
}

impl std::fmt::Debug for GenerateClip {
    /// Prompts never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerateClip")
            .field("model", &self.model)
            .field("segments", &self.segments)
            .field("seed", &self.seed)
            .field("steps", &self.steps)
            .field("size", &(self.width, self.height))
            .field("output_format", &self.output_format)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A clip file whose frames are to be labelled.
#[derive(Debug)]
pub struct LabelClip {
    /// Model.
    pub model: String,
    /// Frames to read at most.
    pub frames_max: Option<u64>,
    /// Only every n-th frame.
    pub every: Option<u32>,
    /// Frames per second where the input does not say.
    pub frame_rate: Option<u32>,
    /// Labels told of each frame at most; the model's own number when absent.
    pub labels_max: Option<u32>,
    /// Nothing below this score is told; the model's own limit when absent.
    pub score_min: Option<f32>,
    /// Options.
    pub options: WorkOptions,
    /// The clip.
    pub input: OwnedFd,
}

/// What is seen in a frame, or in several in a row.
#[derive(Clone, PartialEq, Serialize)]
pub struct FrameLabels {
    /// The first of them.
    pub frame_index: u64,
    /// How many.
    pub frame_count: u64,
    /// When it is shown, in microseconds from the beginning.
    pub time_us: u64,
    /// What the whole frame is, the likeliest first.
    pub labels: Vec<Label>,
    /// What is where, the likeliest first.
    pub boxes: Vec<LabelBox>,
}

impl std::fmt::Debug for FrameLabels {
    /// Outputs never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameLabels")
            .field("frame_index", &self.frame_index)
            .finish_non_exhaustive()
    }
}

/// A class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Label {
    /// Its number in the model.
    pub class: u32,
    /// Its name; empty where the model has no labels file.
    pub label: String,
    /// As the model gives it.
    pub score: f32,
}

/// A class and its place, in pixels of the frame.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelBox {
    /// What.
    #[serde(flatten)]
    pub label: Label,
    /// Left edge.
    pub x0: f32,
    /// Upper edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Lower edge.
    pub y1: f32,
}

/// Another prompt for the shots of a clip that have not begun; the first begins with the request.
#[derive(Clone, PartialEq, Eq)]
pub struct SteerClip {
    /// The request that generates the clip.
    pub target: u64,
    /// What they shall show.
    pub prompt: String,
}

impl std::fmt::Debug for SteerClip {
    /// Prompts never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SteerClip")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl SteerClip {
    /// Refuses what every daemon refuses.
    ///
    /// # Errors
    /// The [`Status`] that a daemon would answer with.
    pub fn check(&self) -> Result<(), Status> {
        check_prompt("prompt", &self.prompt)
    }
}

/// What became of another prompt for a clip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Steered {
    /// It is for this shot, counted from 0, and for all that follow.
    From {
        /// The first of them, below [`CLIP_SEGMENTS_MAX`](crate::limits::CLIP_SEGMENTS_MAX).
        segment: u32,
    },
    /// It changes nothing.
    NotTaken {
        /// Why, in at most [`STEERED_WHY_BYTES_MAX`], and without the prompt.
        why: String,
    },
}

impl Steered {
    /// A prompt that changes nothing, for a reason that is cut where it is too long.
    pub fn not_taken(why: impl Display) -> Self {
        let mut why = why.to_string();
        why.truncate(why.floor_char_boundary(STEERED_WHY_BYTES_MAX));
        Self::NotTaken { why }
    }
}
