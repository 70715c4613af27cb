//! [`GenerationModel`]: the graphs and files of one pipeline, checked against each other.

use super::layout::{Class, Layout, malformed};
use super::memory::Memory;
use super::parts::{self, DecoderGraph, DenoiserGraph, EncoderGraph, TextGraph};
use super::prompt::Prompts;
use super::scheduler::{CONFIG_BYTES_MAX, SchedulerConfig};
use crate::PipelineError;
use crate::text::{read_bounded, read_tokenizer};
use mote_api::{Digest, GenerationSpec, Model};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Tokens that a prompt is padded to.
const PROMPT_TOKENS_MAX: usize = 4096;
const TOKENIZER: &str = "tokenizer/tokenizer.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// What a clip is like when the request does not say, and what may be asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerationDefaults {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Widths must be multiples of this.
    pub width_multiple: u32,
    /// Heights must be multiples of this.
    pub height_multiple: u32,
    /// Frames of a segment.
    pub frames: u32,
    /// Frames per second.
    pub frame_rate: u32,
    /// Steps of the denoiser.
    pub steps: u32,
    /// How far the prompt is followed.
    pub guidance: f32,
    /// Whether a clip may begin with a given picture, or must.
    pub first_image: ImageUse,
    /// Whether it may end with one.
    pub last_image: ImageUse,
    /// Whether a clip can be made of another, with a strength.
    pub takes_source: bool,
}

/// Whether a picture is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageUse {
    /// It would be refused.
    Refused,
    /// It may be given.
    Optional,
    /// It must be given.
    Required,
}

/// A pipeline in diffusers' layout, loaded: text encoder, denoiser or two, decoder, and an encoder of
/// pictures where there is one.
pub struct GenerationModel {
    pub(super) layout: Layout,
    pub(super) spec: GenerationSpec,
    pub(super) scheduler: SchedulerConfig,
    /// Steps of the training, which timesteps are counted in.
    pub(super) train_timesteps: usize,
    pub(super) prompts: Prompts,
    pub(super) text: TextGraph,
    pub(super) denoiser: DenoiserGraph,
    /// The expert of low noise.
    pub(super) low_noise: Option<DenoiserGraph>,
    pub(super) decoder: DecoderGraph,
    pub(super) encoder: Option<EncoderGraph>,
    /// Of what was read, the graphs' signatures, and what [`Self::with_identity`] adds: checkpoints of another
    /// model are refused.
    pub(super) fingerprint: Digest,
    /// For clips on their way.
    pub(super) memory: Memory,
}

impl GenerationModel {
    /// Reads diffusers' files in `folder` and checks that the graphs are what these and `spec` say,
    /// and fit each other. `parts` are the further graphs by the names of their folders.
    ///
    /// # Errors
    /// Names the file, class, part or tensor that does not fit.
    pub fn open(
        folder: &Path,
        spec: &GenerationSpec,
        denoiser: Arc<dyn Model>,
        mut parts: BTreeMap<String, Arc<dyn Model>>,
    ) -> Result<Self, PipelineError> {
        let layout = Layout::read(folder)?;
        let mut fingerprint = format!("{layout:?}\n{spec:?}\n{:?}\n", denoiser.signature());
        for (name, part) in &parts {
            fingerprint += &format!("{name} {:?}\n", part.signature());
        }
        let required = |part: Option<Arc<dyn Model>>, name: &str| {
            part.ok_or_else(|| PipelineError::part(name, "is missing"))
        };
        let text = TextGraph::open(required(
            parts.remove(parts::TEXT_ENCODER),
            parts::TEXT_ENCODER,
        )?)?;
        let decoder = required(parts.remove(parts::VAE_DECODER), parts::VAE_DECODER)?;
        let decoder = DecoderGraph::open(decoder, &layout)?;
        let encoder = parts.remove(parts::VAE_ENCODER);
        let encoder = encoder
            .map(|it| EncoderGraph::open(it, &layout))
            .transpose()?;
        let denoiser = DenoiserGraph::open(denoiser, &layout)?;
        let low_noise = parts.remove(parts::LOW_NOISE);
        let low_noise = low_noise
            .map(|it| DenoiserGraph::open(it, &layout))
            .transpose()?;
        if let Some(name) = parts.keys().next() {
            return Err(PipelineError::part(
                name,
                "is not served in such a pipeline",
            ));
        }
        for graph in std::iter::once(&denoiser).chain(&low_noise) {
            parts::check_text(&text, graph)?;
        }
        check_experts(&layout, &denoiser, low_noise.as_ref())?;
        let tokenizer_file = folder.join(TOKENIZER);
        let tokens = prompt_tokens(&layout, spec, &text)?;
        let tokenizer = read_tokenizer(&tokenizer_file)?;
        let tokenizer_folder = tokenizer_file.parent().unwrap_or(folder);
        let prompts = Prompts::open(tokenizer, tokenizer_folder, layout.class, tokens)?;
        let file = folder.join(SCHEDULER);
        let json = read_bounded(&file, CONFIG_BYTES_MAX as u64)?;
        let scheduler = SchedulerConfig::parse(&json).map_err(|cause| malformed(&file, cause))?;
        let train_timesteps = scheduler.train_timesteps();
        fingerprint += &String::from_utf8_lossy(&json);
        Ok(Self {
            train_timesteps: train_timesteps.map_err(|cause| malformed(&file, cause))?,
            layout,
            spec: spec.clone(),
            scheduler,
            prompts,
            text,
            denoiser,
            low_noise,
            decoder,
            encoder,
            fingerprint: Digest::of(fingerprint.as_bytes()),
            memory: Memory::default(),
        })
    }

    /// Limits what clips on their way take together, as far as it is known before: frames, latents, and what they
    /// are made of. Working memory of runs is the model's own.
    #[must_use]
    pub fn with_memory(mut self, bytes_max: Option<u64>) -> Self {
        self.memory = bytes_max.map_or_else(Memory::default, Memory::of);
        self
    }

    /// Tells this model from others of the same shape, such as by a digest of its files: checkpoints of another
    /// are refused.
    #[must_use]
    pub fn with_identity(mut self, identity: &str) -> Self {
        let both = format!("{} {identity}", self.fingerprint);
        self.fingerprint = Digest::of(both.as_bytes());
        self
    }

    /// Frames that are computed for so many that are asked for.
    pub fn frames_for(&self, frames: u32) -> u32 {
        u32::try_from(self.layout.frames_for(frames as usize)).unwrap_or(u32::MAX)
    }

    /// What a clip is like when the request does not say: by the manifest, or else as in diffusers.
    pub fn defaults(&self) -> GenerationDefaults {
        let spec = &self.spec;
        let [width_multiple, height_multiple] = self.layout.side_multiple().map(|it| it as u32);
        let (width, height, frames, frame_rate, guidance) = if self.layout.class.is_ltx() {
            (704, 512, 121, 25, 3.0)
        } else {
            (832, 480, 81, 16, 5.0)
        };
        let first_image = match (self.takes_condition(), self.holds_first()) {
            (true, _) => ImageUse::Required,
            (false, true) => ImageUse::Optional,
            (false, false) => ImageUse::Refused,
        };
        let takes_last = self.takes_condition() || self.holds_last();
        GenerationDefaults {
            width: spec.width.unwrap_or(width),
            height: spec.height.unwrap_or(height),
            width_multiple,
            height_multiple,
            frames: spec.frames.unwrap_or(frames),
            frame_rate: spec.frame_rate.unwrap_or(frame_rate),
            steps: spec.steps.unwrap_or(match spec.sigmas.len() {
                0 => 50,
                levels => levels as u32,
            }),
            guidance: spec.guidance.unwrap_or(guidance),
            first_image,
            last_image: if takes_last {
                ImageUse::Optional
            } else {
                ImageUse::Refused
            },
            takes_source: self.encoder.is_some() && !self.takes_condition(),
        }
    }

    /// Whether a picture comes in as channels beside the noise.
    pub(super) fn takes_condition(&self) -> bool {
        self.denoiser.takes_condition(&self.layout)
    }

    /// Whether the first latent frame can be held at what a picture is encoded as, its tokens told that
    /// they are clean.
    pub(super) fn holds_first(&self) -> bool {
        let for_each_token = self.denoiser.timestep_rank == 2;
        let is_made_for_it = self.layout.class.is_ltx() || self.layout.expand_timesteps;
        let frame_is_tokens = self.layout.patch[0] == 1;
        self.encoder.is_some() && for_each_token && is_made_for_it && frame_is_tokens
    }

    /// Whether further tokens may stand for a picture at the end.
    pub(super) fn holds_last(&self) -> bool {
        self.layout.class.is_ltx() && self.holds_first()
    }
}

/// That two experts are two of a kind, and that it is said when each computes.
fn check_experts(
    layout: &Layout,
    denoiser: &DenoiserGraph,
    low_noise: Option<&DenoiserGraph>,
) -> Result<(), PipelineError> {
    let why = match (layout.boundary, low_noise) {
        (None, None) => return Ok(()),
        (Some(_), None) => "is missing, and model_index.json has a boundary_ratio",
        (None, Some(_)) => "is there, and model_index.json has no boundary_ratio",
        (Some(_), Some(low)) => {
            let alike = low.channels == denoiser.channels
                && low.timestep_rank == denoiser.timestep_rank
                && low.guidance.is_some() == denoiser.guidance.is_some();
            if alike {
                return Ok(());
            }
            "does not take what the other expert takes"
        }
    };
    Err(PipelineError::part(parts::LOW_NOISE, why))
}

/// What prompts are padded to.
fn prompt_tokens(
    layout: &Layout,
    spec: &GenerationSpec,
    text: &TextGraph,
) -> Result<usize, PipelineError> {
    let said = spec.prompt_tokens.map(|tokens| tokens as usize);
    let fixed = text.tokens.unwrap_or(1);
    if !(1..=PROMPT_TOKENS_MAX).contains(&fixed) {
        let why = format!("takes {fixed} tokens, not 1 to {PROMPT_TOKENS_MAX}");
        return Err(PipelineError::graph("input_ids", why));
    }
    match (said, text.tokens) {
        (Some(said), Some(fixed)) if said != fixed => {
            let why = format!("takes {fixed} tokens, not the {said} of generation.prompt_tokens");
            Err(PipelineError::graph("input_ids", why))
        }
        (None, None) => Ok(match layout.class {
            Class::Ltx | Class::LtxImageToVideo => 128,
            Class::LtxCondition => 256,
            Class::Wan | Class::WanImageToVideo => 512,
        }),
        (said, fixed) => Ok(said.or(fixed).unwrap_or(1)),
    }
}
