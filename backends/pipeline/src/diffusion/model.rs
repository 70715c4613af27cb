//! [`GenerationModel`]: the graphs and files of one pipeline, checked against each other.

use super::audio::{AUDIO_DECODER, VOCODER};
use super::layout::{Class, Layout, malformed};
use super::memory::Memory;
use super::parts::{
    self, AudioDecoderGraph, ConnectorsGraph, DecoderGraph, DenoiserGraph, EncoderGraph,
    ImageGraph, TextGraph, VocoderGraph,
};
use super::prompt::Prompts;
use super::scheduler::{CONFIG_BYTES_MAX, SchedulerConfig};
use super::vision::ImageProcessor;
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
    /// Whether it may end with one, or must.
    pub last_image: ImageUse,
    /// Whether a picture may be given of what is to be seen.
    pub reference: ImageUse,
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

/// A pipeline in diffusers' layout, loaded: text encoder, denoiser or two, decoder, encoders of pictures
/// where there are any, and what makes sound.
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
    /// What looks at pictures for the denoiser.
    pub(super) looks: Option<Looks>,
    /// What makes sound.
    pub(super) sound: Option<SoundGraphs>,
    /// Of what was read, the graphs' signatures, and what [`Self::with_identity`] adds: checkpoints of another
    /// model are refused.
    pub(super) fingerprint: Digest,
    /// For clips on their way.
    pub(super) memory: Memory,
}

/// An encoder of pictures, and how they are prepared for it.
pub(super) struct Looks {
    pub graph: ImageGraph,
    pub processor: ImageProcessor,
}

/// The parts of a pipeline that only sound has.
pub(super) struct SoundGraphs {
    pub connectors: ConnectorsGraph,
    pub decoder: AudioDecoderGraph,
    pub vocoder: VocoderGraph,
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
        let mut required = |name: &str| {
            let part = parts.remove(name);
            part.ok_or_else(|| PipelineError::part(name, "is missing"))
        };
        let text = TextGraph::open(required(parts::TEXT_ENCODER)?)?;
        let decoder = DecoderGraph::open(required(parts::VAE_DECODER)?, &layout)?;
        let connectors = layout.audio.as_ref().map(|_| required(parts::CONNECTORS));
        let connectors = connectors.transpose()?;
        let fixed = connectors.as_deref().and_then(ConnectorsGraph::tokens);
        let tokens = prompt_tokens(&layout, spec, text.tokens.or(fixed))?;
        let sound = match layout.audio.as_ref().zip(connectors) {
            None => None,
            Some((audio, connectors)) => Some(SoundGraphs {
                connectors: ConnectorsGraph::open(connectors, tokens)?,
                decoder: AudioDecoderGraph::open(required(AUDIO_DECODER)?, audio)?,
                vocoder: VocoderGraph::open(required(VOCODER)?, audio)?,
            }),
        };
        if let Some(sound) = &sound {
            parts::check_sound(&sound.decoder, &sound.vocoder)?;
        }
        let encoder = parts.remove(parts::VAE_ENCODER);
        let encoder = encoder
            .map(|it| EncoderGraph::open(it, &layout))
            .transpose()?;
        let denoiser = DenoiserGraph::open(denoiser, &layout)?;
        let low_noise = parts.remove(parts::LOW_NOISE);
        let low_noise = low_noise
            .map(|it| DenoiserGraph::open(it, &layout))
            .transpose()?;
        let looks = match parts.remove(parts::IMAGE_ENCODER) {
            None => None,
            Some(encoder) => {
                let processor = ImageProcessor::read(folder)?;
                fingerprint += &format!("{processor:?}\n");
                let graph = ImageGraph::open(encoder, processor.crop)?;
                Some(Looks { graph, processor })
            }
        };
        if let Some(name) = parts.keys().next() {
            return Err(PipelineError::part(
                name,
                "is not served in such a pipeline",
            ));
        }
        let connectors = sound.as_ref().map(|it| &it.connectors);
        for graph in std::iter::once(&denoiser).chain(&low_noise) {
            parts::check_text(&text, connectors, graph)?;
        }
        for graph in std::iter::once(&denoiser).chain(&low_noise) {
            check_looks(&layout, graph, looks.as_ref())?;
            check_given(&layout, graph, encoder.is_some())?;
        }
        check_experts(&layout, &denoiser, low_noise.as_ref())?;
        let tokenizer_file = folder.join(TOKENIZER);
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
            looks,
            sound,
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
        let class = self.layout.class;
        let (width, height, frames, frame_rate, guidance) = if class.is_ltx2() {
            (768, 512, 121, 24, 3.0)
        } else if class.is_ltx() {
            (704, 512, 121, 25, 3.0)
        } else {
            (832, 480, 81, 16, 5.0)
        };
        let steps = if class.is_ltx2() { 30 } else { 50 };
        let first_image = match (
            self.takes_condition(),
            self.holds_first() || self.takes_control(),
        ) {
            (true, _) => ImageUse::Required,
            (false, true) => ImageUse::Optional,
            (false, false) => ImageUse::Refused,
        };
        let last_image = match &self.looks {
            Some(_) if self.layout.looks_at_two => ImageUse::Required,
            Some(_) => ImageUse::Refused,
            None if self.takes_condition() || self.holds_last() || self.takes_control() => {
                ImageUse::Optional
            }
            None => ImageUse::Refused,
        };
        GenerationDefaults {
            width: spec.width.unwrap_or(width),
            height: spec.height.unwrap_or(height),
            width_multiple,
            height_multiple,
            frames: spec.frames.unwrap_or(frames),
            frame_rate: spec.frame_rate.unwrap_or(frame_rate),
            steps: spec.steps.unwrap_or(match spec.sigmas.len() {
                0 => steps,
                levels => levels as u32,
            }),
            guidance: spec.guidance.unwrap_or(guidance),
            first_image,
            last_image,
            reference: match self.takes_control() {
                true => ImageUse::Optional,
                false => ImageUse::Refused,
            },
            // Sound cannot be made anew with a clip that has none, and a control says itself what is given.
            takes_source: self.encoder.is_some()
                && !self.takes_condition()
                && !self.takes_control()
                && self.sound.is_none(),
        }
    }

    /// How far the spread of guided outputs is brought back: by the manifest, or else as in diffusers.
    pub(super) fn guidance_rescale(&self) -> f32 {
        let default = if self.sound.is_some() { 0.7 } else { 0.0 };
        self.spec.guidance_rescale.unwrap_or(default)
    }

    /// Guidance of sound where nobody says: as the manifest has it for the clip, or else as in diffusers.
    pub(super) fn guidance_audio(&self, of_clip: f32) -> f32 {
        match self.spec.guidance {
            None => 7.0,
            Some(_) => of_clip,
        }
    }

    /// Numbers that the text encoder makes of a prompt, where its graph says how many for a token.
    pub(super) fn prompt_elements(&self) -> usize {
        let width = self.text.width().unwrap_or(0);
        self.prompts.tokens.saturating_mul(width)
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
        self.layout.class.is_ltx() && !self.layout.class.is_ltx2() && self.holds_first()
    }

    /// Whether pictures come in as a control beside the noise (VACE).
    pub(super) fn takes_control(&self) -> bool {
        self.denoiser.control.is_some()
    }
}

/// That a denoiser that looks at pictures has what looks at them, and that both fit.
fn check_looks(
    layout: &Layout,
    denoiser: &DenoiserGraph,
    looks: Option<&Looks>,
) -> Result<(), PipelineError> {
    match (looks, denoiser.image) {
        (None, None) => Ok(()),
        (None, Some(_)) => {
            let why = "is missing, and the denoiser takes encoder_hidden_states_image";
            Err(PipelineError::part(parts::IMAGE_ENCODER, why))
        }
        (Some(_), Some(_)) if !denoiser.takes_condition(layout) => {
            let why = "is there, and only image to video with latents of the pictures beside the noise is served with it";
            Err(PipelineError::part(parts::IMAGE_ENCODER, why))
        }
        (Some(looks), _) => {
            let count = if layout.looks_at_two { 2 } else { 1 };
            parts::check_image(&looks.graph, denoiser, count)
        }
    }
}

/// That a denoiser that is steered is of the class that is, and has what makes latents of what is given.
fn check_given(
    layout: &Layout,
    denoiser: &DenoiserGraph,
    has_encoder: bool,
) -> Result<(), PipelineError> {
    let why = match (layout.class == Class::WanVace, denoiser.control) {
        (false, None) => return Ok(()),
        (true, None) => "is missing among the inputs of transformer",
        (false, Some(_)) => "is an input of transformer that only WanVACEPipeline has",
        (true, Some(_)) if has_encoder => return Ok(()),
        (true, Some(_)) => {
            let why = "is missing, and the denoiser takes control_hidden_states";
            return Err(PipelineError::part(parts::VAE_ENCODER, why));
        }
    };
    Err(PipelineError::graph("control_hidden_states", why))
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
                && low.guidance.is_some() == denoiser.guidance.is_some()
                && low.image.is_some() == denoiser.image.is_some()
                && low.control.is_some() == denoiser.control.is_some();
            if alike {
                return Ok(());
            }
            "does not take what the other expert takes"
        }
    };
    Err(PipelineError::part(parts::LOW_NOISE, why))
}

/// What prompts are padded to. `fixed`: what the graphs fix.
fn prompt_tokens(
    layout: &Layout,
    spec: &GenerationSpec,
    fixed: Option<usize>,
) -> Result<usize, PipelineError> {
    let said = spec.prompt_tokens.map(|tokens| tokens as usize);
    let tokens = fixed.unwrap_or(1);
    if !(1..=PROMPT_TOKENS_MAX).contains(&tokens) {
        let why = format!("takes {tokens} tokens, not 1 to {PROMPT_TOKENS_MAX}");
        return Err(PipelineError::graph("input_ids", why));
    }
    match (said, fixed) {
        (Some(said), Some(fixed)) if said != fixed => {
            let why = format!("takes {fixed} tokens, not the {said} of generation.prompt_tokens");
            Err(PipelineError::graph("input_ids", why))
        }
        (None, None) => Ok(match layout.class {
            Class::Ltx | Class::LtxImageToVideo => 128,
            Class::LtxCondition => 256,
            Class::Ltx2 | Class::Ltx2ImageToVideo => 1024,
            Class::Wan | Class::WanImageToVideo | Class::WanVace => 512,
        }),
        (said, fixed) => Ok(said.or(fixed).unwrap_or(1)),
    }
}
