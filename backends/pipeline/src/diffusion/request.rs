//! What is asked for.

use super::scheduler::SchedulerKind;
use crate::clip::Rgb;
use mote_api::Digest;
use std::sync::Arc;

/// Segments of a clip.
pub const SEGMENTS_MAX: usize = 16;

/// A clip to be made.
#[derive(Clone, Default)]
pub struct GenerationRequest {
    /// What is to be seen, one after the other; at least one, at most [`SEGMENTS_MAX`].
    pub segments: Vec<GenerationSegment>,
    /// What is not to be seen.
    pub negative_prompt: Option<String>,
    /// How far the prompt is followed; 1 is not beyond what the model makes of it.
    pub guidance: Option<f32>,
    /// What the noise is made of: the same seed gives the same clip.
    pub seed: u64,
    /// Steps of the denoiser for each segment.
    pub steps: Option<u32>,
    /// Pixels of a row.
    pub width: Option<u32>,
    /// Rows.
    pub height: Option<u32>,
    /// Frames that each segment adds to the clip, where it does not say itself.
    pub frames: Option<u32>,
    /// Frames per second.
    pub frame_rate: Option<u32>,
    /// A numerical method other than the model's own.
    pub scheduler: Option<SchedulerKind>,
    /// What the clip begins with.
    pub first_image: Option<Rgb>,
    /// What it ends with.
    pub last_image: Option<Rgb>,
    /// What is to be seen in it, without beginning with it.
    pub reference: Option<Rgb>,
    /// A clip to be made anew; clones of the request share it.
    pub source: Option<Arc<[Rgb]>>,
    /// How much of it: 0 (nothing) to 1 (all of it).
    pub strength: Option<f32>,
}

/// One segment of a clip. All but the first go on from the last frame before.
#[derive(Clone, Default)]
pub struct GenerationSegment {
    /// What is to be seen.
    pub prompt: String,
    /// Frames that it adds to the clip.
    pub frames: Option<u32>,
}

impl GenerationSegment {
    /// A segment of as many frames as the model makes.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            frames: None,
        }
    }
}

impl std::fmt::Debug for GenerationRequest {
    /// Prompts and pictures never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerationRequest")
            .field("segments", &self.segments.len())
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GenerationSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerationSegment")
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl GenerationRequest {
    /// A digest of all that the clip depends on, besides the model.
    pub(super) fn digest(&self) -> Digest {
        let picture = |picture: &Rgb| {
            let digest = Digest::of(&picture.rgb8);
            format!("{}x{} {digest}", picture.width, picture.height)
        };
        let segments: Vec<_> = self
            .segments
            .iter()
            .map(|s| (&s.prompt, s.frames))
            .collect();
        let source = self.source.as_ref();
        let source: Option<Vec<String>> = source.map(|it| it.iter().map(picture).collect());
        let images = [&self.first_image, &self.last_image, &self.reference];
        let images = images.map(|it| it.as_ref().map(picture));
        let text = format!(
            "{segments:?} {:?} {:?} {} {:?} {:?} {:?} {:?} {:?} {:?} {images:?} {source:?} {:?}",
            self.negative_prompt,
            self.guidance.map(f32::to_bits),
            self.seed,
            self.steps,
            self.width,
            self.height,
            self.frames,
            self.frame_rate,
            self.scheduler,
            self.strength.map(f32::to_bits),
        );
        Digest::of(text.as_bytes())
    }
}
