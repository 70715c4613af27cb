//! A request, checked against the model: sizes, starts and steps of every segment, before any memory
//! is taken or anything computed.

use super::audio::AudioPlan;
use super::latents;
use super::layout::{Class, Geometry};
use super::model::{GenerationModel, ImageUse};
use super::request::{GenerationRequest, SEGMENTS_MAX};
use super::scheduler::{STEPS_MAX, Scheduler, SchedulerError, SchedulerKind, Timing, flow_sigmas};
use super::{Guidance, pixels};
use crate::PipelineError;

/// Pixels along a side.
pub const CLIP_SIDE_MAX: u32 = 1 << 14;
/// Frames of a whole clip.
pub const CLIP_FRAMES_MAX: u32 = 1 << 14;
/// Pixels of all frames that are decoded at once: 121 of 1280×720 fit, and take some 5 GiB.
pub const SEGMENT_PIXELS_MAX: u64 = 1 << 27;
/// Copies of a segment's sample while a step is taken: what graphs are given and give, with and without
/// guidance, its history and the estimate.
const SAMPLE_COPIES: u64 = 12;
/// Copies of what a text encoder makes of a prompt: its output, and what is kept of it or what connectors are given.
const TEXT_COPIES: u64 = 2;
/// Bytes of the latents of one segment.
pub const LATENT_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a checkpoint.
pub const CHECKPOINT_BYTES_MAX: u64 = 256 << 20;
const FRAME_RATE_MAX: u32 = 240;
const GUIDANCE_MAX: f32 = 100.0;
/// Tensors that a scheduler keeps between steps, at most.
pub(super) const HISTORY_MAX: usize = 8;

/// How much of a clip is made anew when the request does not say.
const STRENGTH_DEFAULT: f32 = 0.8;
/// How much of the repeated last frame is made anew where a model cannot go on from a picture.
const SEAM_STRENGTH: f32 = 0.9;

/// What will be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationPlan {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Frames of the whole clip.
    pub frames: u32,
    /// Frames of each segment.
    pub segment_frames: Vec<u32>,
    /// Frames per second.
    pub frame_rate: u32,
    /// Steps of all segments.
    pub steps: u32,
    /// What sound is made as well.
    pub audio: Option<AudioPlan>,
}

/// What a segment is made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Start {
    /// Noise, with pictures held at its ends.
    Noise { first: bool, last: bool },
    /// Noise, with pictures at its ends as channels beside it.
    Condition { last: bool },
    /// Noise, with pictures at its ends, or of what is to be seen, as a control beside it.
    Control {
        first: bool,
        last: bool,
        reference: bool,
    },
    /// The source, and noise over it.
    Source { strength: f32 },
    /// The last frame before, repeated, and noise over it.
    Repeat { strength: f32 },
}

/// One segment as it will be made.
#[derive(Clone, Debug)]
pub(super) struct SegmentPlan {
    pub prompt: String,
    pub start: Start,
    /// What is computed: the frame that it goes on from is among its frames, and some may be too
    /// many.
    pub geometry: Geometry,
    /// Frames of it that belong to the clip.
    pub frames: std::ops::Range<usize>,
    /// Numbers of the sound's latents.
    pub audio_elements: usize,
    pub steps: usize,
}

impl SegmentPlan {
    /// Tokens of further pictures, in front of the clip's.
    pub fn extra_tokens(&self) -> usize {
        match self.start {
            Start::Noise { last: true, .. } => {
                let geometry = self.geometry.with_latent_frames(self.geometry.patch[0]);
                geometry.tokens()
            }
            _ => 0,
        }
    }

    /// Latent frames of references, in front of the clip's.
    pub fn reference_frames(&self) -> usize {
        match self.start {
            Start::Control { reference, .. } => usize::from(reference),
            _ => 0,
        }
    }

    /// The clip with the references in front of it.
    pub fn with_references(&self) -> Geometry {
        let frames = self.geometry.latent[0] + self.reference_frames();
        self.geometry.with_latent_frames(frames)
    }

    /// Numbers of the sample that the denoiser takes for the clip: pictures in front of it are among them.
    pub fn video_elements(&self) -> usize {
        let extra = self.extra_tokens() * self.geometry.token_width();
        self.with_references().elements() + extra
    }

    /// Numbers of the sample that the scheduler works on: the clip's, then its sound's.
    pub fn sample_elements(&self) -> usize {
        self.video_elements().saturating_add(self.audio_elements)
    }

    /// Those of them that are left when the segment is done.
    pub fn kept_elements(&self) -> usize {
        self.geometry.elements().saturating_add(self.audio_elements)
    }

    /// A sample without what stood in front of the clip.
    pub fn kept(&self, mut sample: Vec<f32>) -> Vec<f32> {
        let references = self.reference_frames();
        if references > 0 {
            let all = self.with_references();
            let audio = sample.split_off(self.video_elements());
            sample = latents::frames(&sample, &all, references..all.latent[0]);
            sample.extend(audio);
            return sample;
        }
        sample.drain(..sample.len() - self.kept_elements());
        sample
    }
}

/// All that is known before computing.
pub(super) struct Planned {
    pub public: GenerationPlan,
    pub segments: Vec<SegmentPlan>,
    /// Steps that are asked of the scheduler.
    pub steps: u32,
    pub guidance: Guidance,
    /// For the expert of low noise.
    pub guidance_low: Guidance,
    /// For sound.
    pub guidance_audio: Guidance,
    /// Given to the denoiser where it takes it.
    pub distilled_guidance: f32,
    pub negative_prompt: Option<String>,
}

impl Planned {
    /// Checks the request.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] names the field.
    pub fn new(
        model: &GenerationModel,
        request: &GenerationRequest,
    ) -> Result<Self, PipelineError> {
        check_pictures(model, request)?;
        let defaults = model.defaults();
        let width = request.width.unwrap_or(defaults.width);
        let height = request.height.unwrap_or(defaults.height);
        check_side("width", width, defaults.width_multiple)?;
        check_side("height", height, defaults.height_multiple)?;
        let frame_rate = request.frame_rate.unwrap_or(defaults.frame_rate);
        in_range("frame_rate", frame_rate, FRAME_RATE_MAX)?;
        let steps = request.steps.unwrap_or(defaults.steps);
        in_range("steps", steps, STEPS_MAX)?;
        let guidance = request.guidance.unwrap_or(defaults.guidance);
        if !(0.0..=GUIDANCE_MAX).contains(&guidance) {
            let why = format!("is not from 0 to {GUIDANCE_MAX}");
            return Err(PipelineError::invalid("guidance", why));
        }
        let mut planned = Self {
            public: GenerationPlan {
                width,
                height,
                frames: 0,
                segment_frames: Vec::new(),
                frame_rate,
                steps: 0,
                audio: None,
            },
            segments: Vec::new(),
            steps,
            guidance: Guidance::NONE,
            guidance_low: Guidance::NONE,
            guidance_audio: Guidance::NONE,
            distilled_guidance: guidance,
            negative_prompt: None,
        };
        planned.plan_guidance(model, request, guidance)?;
        planned.plan_segments(model, request)?;
        planned.public.audio = model.layout.audio.as_ref().map(|audio| AudioPlan {
            sample_rate: audio.sample_rate,
            channels: audio.wave_channels,
            samples: audio.sample_of(planned.public.frames.into(), frame_rate),
        });
        planned.check_bytes()?;
        Ok(planned)
    }

    fn plan_guidance(
        &mut self,
        model: &GenerationModel,
        request: &GenerationRequest,
        scale: f32,
    ) -> Result<(), PipelineError> {
        let negative = request.negative_prompt.as_ref();
        if model.denoiser.guidance.is_some() {
            return match negative {
                Some(_) => {
                    let why = "this model was distilled to do without";
                    Err(PipelineError::invalid("negative_prompt", why))
                }
                None => Ok(()),
            };
        }
        // A request that says how far has said it for both.
        let low = request
            .guidance
            .or(model.spec.guidance_low)
            .unwrap_or(scale);
        self.guidance.scale = scale;
        self.guidance_low.scale = low;
        let rescale = model.guidance_rescale();
        [self.guidance.rescale, self.guidance_low.rescale] = [rescale; 2];
        if model.sound.is_some() {
            let said = request.guidance.or(model.spec.guidance_audio);
            self.guidance_audio.scale = said.unwrap_or(model.guidance_audio(scale));
            self.guidance_audio.rescale = rescale;
        }
        let asks = self.guidance.needs_unconditional()
            || self.guidance_audio.needs_unconditional()
            || (model.low_noise.is_some() && self.guidance_low.needs_unconditional());
        if let (Some(_), false) = (negative, asks) {
            let why = "has no effect without guidance above 1";
            return Err(PipelineError::invalid("negative_prompt", why));
        }
        if asks {
            let said = negative.or(model.spec.negative_prompt.as_ref());
            let text = said.cloned().unwrap_or_default();
            model.prompts.tokenize("negative_prompt", &text)?;
            self.negative_prompt = Some(text);
        }
        Ok(())
    }

    fn plan_segments(
        &mut self,
        model: &GenerationModel,
        request: &GenerationRequest,
    ) -> Result<(), PipelineError> {
        let count = request.segments.len();
        if !(1..=SEGMENTS_MAX).contains(&count) {
            let why = format!("are {count}, not 1 to {SEGMENTS_MAX}");
            return Err(PipelineError::invalid("segments", why));
        }
        if request.source.is_some() && count > 1 {
            let why = "are several, and a source is made anew as one";
            return Err(PipelineError::invalid("segments", why));
        }
        for (index, segment) in request.segments.iter().enumerate() {
            let field = format!("segments[{index}].prompt");
            model.prompts.tokenize(&field, &segment.prompt)?;
            let start = start_of(model, request, index)?;
            let frames = frames_of(model, request, index)?;
            let plan = self.plan_segment(model, request, (index, start, frames))?;
            self.public.segment_frames.push(frames);
            self.public.frames += frames;
            self.public.steps += plan.steps as u32;
            if self.public.frames > CLIP_FRAMES_MAX {
                let why = format!("are more than {CLIP_FRAMES_MAX}");
                return Err(PipelineError::invalid("frames", why));
            }
            self.segments.push(plan);
        }
        Ok(())
    }

    fn plan_segment(
        &self,
        model: &GenerationModel,
        request: &GenerationRequest,
        (index, start, frames): (usize, Start, u32),
    ) -> Result<SegmentPlan, PipelineError> {
        let layout = &model.layout;
        let before = usize::from(index > 0);
        let wanted = frames as usize + before;
        let made = layout.frames_for(wanted);
        let (width, height) = (self.public.width, self.public.height);
        let pixels = made as u64 * u64::from(width) * u64::from(height);
        if pixels > SEGMENT_PIXELS_MAX {
            let why = format!("{made} of {width}x{height} are over {SEGMENT_PIXELS_MAX} pixels");
            return Err(PipelineError::invalid("frames", why));
        }
        let ends_with_picture = matches!(
            start,
            Start::Noise { last: true, .. }
                | Start::Condition { last: true }
                | Start::Control { last: true, .. }
        );
        if ends_with_picture && made != wanted {
            let nearest = made - before;
            let why = format!("{frames} cannot end with a picture; {nearest} can");
            return Err(PipelineError::invalid("frames", why));
        }
        check_encoder(model, start, made, u64::from(width) * u64::from(height))?;
        let geometry = layout.geometry(made, height as usize, width as usize);
        let goes_on = index + 1 < request.segments.len();
        let audio_elements = model.layout.audio.as_ref().map_or(0, |audio| {
            let rate = self.public.frame_rate;
            let tokens = match goes_on {
                true => audio.tokens_covering(made, rate),
                false => audio.tokens_for(made, rate),
            };
            tokens.saturating_mul(audio.token_width())
        });
        let mut plan = SegmentPlan {
            prompt: request.segments[index].prompt.clone(),
            start,
            geometry,
            frames: before..wanted,
            audio_elements,
            steps: 0,
        };
        check_latents(model, &plan)?;
        plan.steps = self.schedule(model, request, &plan)?.timesteps().len();
        Ok(plan)
    }

    /// The schedule of a segment.
    pub fn schedule(
        &self,
        model: &GenerationModel,
        request: &GenerationRequest,
        plan: &SegmentPlan,
    ) -> Result<Box<dyn Scheduler>, PipelineError> {
        let strength = match plan.start {
            Start::Source { strength } | Start::Repeat { strength } => Some(strength),
            Start::Noise { .. } | Start::Condition { .. } | Start::Control { .. } => None,
        };
        let mut timing = Timing {
            sequence_length: Some(plan.geometry.latent.iter().product()),
            strength,
            ..Timing::default()
        };
        let own = model.scheduler.kind().ok();
        if request.scheduler.is_none() || request.scheduler == own {
            set_levels(model, own, self.steps, &mut timing);
        }
        let opened = model.scheduler.open(request.scheduler, self.steps, &timing);
        opened.map_err(|cause| match cause {
            SchedulerError::Timing { field, why } => PipelineError::invalid(field, why),
            SchedulerError::Family { .. } => PipelineError::invalid("scheduler", cause.to_string()),
            SchedulerError::Unsupported { .. }
                if request.scheduler.is_some_and(|it| Some(it) != own) =>
            {
                PipelineError::invalid("scheduler", cause.to_string())
            }
            cause => PipelineError::Schedule(cause),
        })
    }

    /// What the clip takes: frames of the segment under way as they are decoded and, where there is an encoder of
    /// pictures, encoded; latents; pictures that it is made of.
    pub fn bytes(&self, model: &GenerationModel, request: &GenerationRequest) -> u64 {
        let numbers = |count: usize| (count as u64).saturating_mul(size_of::<f32>() as u64);
        // As an encoder is given them, where its graph fixes how many, or as they are decoded.
        let fixed = model.encoder.as_ref().and_then(|encoder| encoder.frames);
        let planes = self.segments.iter().map(|plan| {
            let Geometry {
                frames,
                height,
                width,
                ..
            } = plan.geometry;
            let frames = frames.max(fixed.unwrap_or(0));
            numbers(frames.saturating_mul(height * width).saturating_mul(3))
        });
        // What was decoded, and what is encoded for the segment after: as it is made, and as the graph is given it.
        let copies = if model.encoder.is_some() { 3 } else { 1 };
        let samples = self
            .segments
            .iter()
            .map(|plan| numbers(plan.sample_elements()));
        let finished: u64 = samples.clone().sum();
        let pictures = [
            &request.first_image,
            &request.last_image,
            &request.reference,
        ];
        let pictures = pictures.into_iter().flatten();
        let pictures = pictures.chain(request.source.iter().flat_map(|it| it.iter()));
        let pictures: u64 = pictures.map(|picture| picture.rgb8.len() as u64).sum();
        let planes = planes.max().unwrap_or(0).saturating_mul(copies);
        // A control has latents of what is given, of what is not, and masks.
        let controls = self.segments.iter().map(|plan| match plan.start {
            Start::Control { .. } => {
                let per_channel = plan.with_references().elements() / model.layout.channels;
                numbers(per_channel.saturating_mul(model.layout.control_channels()))
            }
            _ => 0,
        });
        // It is kept; each denoiser is given it for both prompts, from a copy.
        let denoisers = 1 + u64::from(model.low_noise.is_some());
        let controls = controls
            .max()
            .unwrap_or(0)
            .saturating_mul(3 + 2 * denoisers);
        let samples = samples.max().unwrap_or(0).saturating_mul(SAMPLE_COPIES);
        // The wave as it was made, and side by side.
        let audio = self.public.audio.map_or(0, |audio| {
            let all = audio.samples.saturating_mul(audio.channels.into());
            all.saturating_mul(2 * size_of::<f32>() as u64)
        });
        let text = numbers(model.prompt_elements()).saturating_mul(TEXT_COPIES);
        [planes, controls, samples, finished, pictures, audio, text]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    fn check_bytes(&self) -> Result<(), PipelineError> {
        let bytes = |elements: usize| (elements as u64).saturating_mul(size_of::<f32>() as u64);
        let samples = || {
            self.segments
                .iter()
                .map(|plan| bytes(plan.sample_elements()))
        };
        let largest = samples().max().unwrap_or(0);
        if largest > LATENT_BYTES_MAX {
            let why = format!("make {largest} bytes of latents, more than {LATENT_BYTES_MAX}");
            return Err(PipelineError::invalid("frames", why));
        }
        let kept = samples().sum::<u64>() + largest * HISTORY_MAX as u64;
        if kept > CHECKPOINT_BYTES_MAX {
            let why = format!("may make checkpoints of over {CHECKPOINT_BYTES_MAX} bytes");
            return Err(PipelineError::invalid("segments", why));
        }
        Ok(())
    }
}

/// The noise levels that diffusers' pipeline gives its scheduler, or those of the manifest.
fn set_levels(
    model: &GenerationModel,
    own: Option<SchedulerKind>,
    steps: u32,
    timing: &mut Timing,
) {
    let said = &model.spec.sigmas;
    if said.len() == steps as usize {
        let end = (own == Some(SchedulerKind::Euler)).then_some(0.0);
        timing.sigmas = Some(said.iter().copied().chain(end).collect());
        return;
    }
    if own != Some(SchedulerKind::FlowMatchEuler) {
        return;
    }
    match model.layout.class {
        Class::Ltx | Class::LtxImageToVideo | Class::Ltx2 | Class::Ltx2ImageToVideo => {
            timing.sigmas = Some(flow_sigmas(steps));
        }
        Class::LtxCondition => {
            let train = model.train_timesteps as f64;
            let levels = linear_quadratic(steps).into_iter();
            timing.timesteps = Some(levels.map(|sigma| sigma * train).collect());
        }
        Class::Wan | Class::WanImageToVideo | Class::WanVace => {}
    }
}

/// The levels of `LTXConditionPipeline`: the first half falls evenly by 1/40, the rest as a parabola to
/// 0 (`linear_quadratic_schedule` of diffusers, from Movie Gen, Polyak et al. 2024).
fn linear_quadratic(steps: u32) -> Vec<f64> {
    const THRESHOLD: f64 = 0.025;
    if steps < 2 {
        return vec![1.0];
    }
    let count = f64::from(steps);
    let linear = f64::from(steps / 2);
    let rest = count - linear;
    let difference = linear - THRESHOLD * count;
    let square = difference / (linear * rest * rest);
    let slope = THRESHOLD / linear - 2.0 * difference / (rest * rest);
    let level = |step: u32| {
        let at = f64::from(step);
        let cleaned = if at < linear {
            at * THRESHOLD / linear
        } else {
            square * at * at + slope * at + square * linear * linear
        };
        1.0 - cleaned
    };
    (0..steps).map(level).collect()
}

/// What segment `index` is made from.
fn start_of(
    model: &GenerationModel,
    request: &GenerationRequest,
    index: usize,
) -> Result<Start, PipelineError> {
    let is_first = index == 0;
    let last = request.last_image.is_some() && index + 1 == request.segments.len();
    if model.takes_condition() {
        if model.looks.is_some() && model.layout.looks_at_two && request.segments.len() > 1 {
            let why = "are several, and this model wants a first and a last picture for each";
            return Err(PipelineError::invalid("segments", why));
        }
        return Ok(Start::Condition { last });
    }
    if is_first && request.source.is_some() {
        let strength = request.strength.unwrap_or(STRENGTH_DEFAULT);
        return Ok(Start::Source { strength });
    }
    if model.takes_control() {
        return Ok(Start::Control {
            first: !is_first || request.first_image.is_some(),
            last,
            reference: request.reference.is_some(),
        });
    }
    if is_first || model.holds_first() {
        let first = !is_first || request.first_image.is_some();
        return Ok(Start::Noise { first, last });
    }
    if model.encoder.is_none() || model.sound.is_some() {
        let why = "are several, and this model cannot go on from a picture: it has no vae_encoder for it, or takes \
                   no timestep for each token";
        return Err(PipelineError::invalid("segments", why));
    }
    Ok(Start::Repeat {
        strength: SEAM_STRENGTH,
    })
}

/// Frames that segment `index` adds to the clip.
fn frames_of(
    model: &GenerationModel,
    request: &GenerationRequest,
    index: usize,
) -> Result<u32, PipelineError> {
    let said = request.segments[index].frames.or(request.frames);
    let of_source = request.source.as_ref().map(|it| it.len() as u32);
    // As many as the model makes at once, less the one that it goes on from.
    let default = model.defaults().frames;
    let default = if index == 0 {
        default
    } else {
        (default - 1).max(1)
    };
    let frames = said.or(of_source).unwrap_or(default);
    let field = format!("segments[{index}].frames");
    in_range(&field, frames, CLIP_FRAMES_MAX)?;
    Ok(frames)
}

/// That the encoder of pictures, where its graph fixes a number of frames, takes what it will be given.
fn check_encoder(
    model: &GenerationModel,
    start: Start,
    made: usize,
    frame_pixels: u64,
) -> Result<(), PipelineError> {
    let fixed = model.encoder.as_ref().and_then(|encoder| encoder.frames);
    let given = match start {
        Start::Noise {
            first: false,
            last: false,
        } => return Ok(()),
        Start::Noise { .. } => 1,
        Start::Condition { .. }
        | Start::Control { .. }
        | Start::Source { .. }
        | Start::Repeat { .. } => made,
    };
    match fixed {
        // One picture can be given several times, where only the first counts.
        Some(fixed) if given == 1 && !model.layout.class.is_ltx() => {
            let pixels = frame_pixels.saturating_mul(fixed as u64);
            if pixels > SEGMENT_PIXELS_MAX {
                let why = format!(
                    "of {fixed} frames, which vae_encoder takes, are {pixels}, over {SEGMENT_PIXELS_MAX}"
                );
                return Err(PipelineError::invalid("width", why));
            }
            Ok(())
        }
        Some(fixed) if fixed != given => {
            let why = format!("{made} would have vae_encoder take {given}, and it takes {fixed}");
            Err(PipelineError::invalid("frames", why))
        }
        _ => Ok(()),
    }
}

/// That denoisers and decoder, where their graphs fix the sizes of latents, take those of this clip.
fn check_latents(model: &GenerationModel, plan: &SegmentPlan) -> Result<(), PipelineError> {
    let denoisers = std::iter::once(&model.denoiser).chain(&model.low_noise);
    let denoisers = denoisers.map(|graph| {
        let spec = &graph.model.signature().inputs[graph.hidden];
        (spec, plan.with_references())
    });
    let decoder = &model.decoder;
    let decoder = &decoder.model.signature().inputs[decoder.latents];
    // LTX's denoiser takes tokens, of which it cannot be told what they are.
    let with_sizes = denoisers
        .chain([(decoder, plan.geometry)])
        .filter(|(spec, _)| spec.shape.len() == 5);
    for (spec, geometry) in with_sizes {
        let have = ["frames", "height", "width"]
            .into_iter()
            .zip(geometry.latent);
        for (fixed, (field, have)) in spec.shape[2..].iter().zip(have) {
            if let Some(fixed) = fixed.filter(|fixed| *fixed != have) {
                let why = format!("make latents of {have}, and {} takes {fixed}", spec.name);
                let is_reference = field == "frames" && plan.reference_frames() > 0;
                let field = if is_reference {
                    "reference_image"
                } else {
                    field
                };
                let why = match is_reference {
                    true => format!("and frames {why}; the graph was exported without references"),
                    false => why,
                };
                return Err(PipelineError::invalid(field, why));
            }
        }
    }
    check_audio_latents(model, plan)
}

/// Likewise those of its sound.
fn check_audio_latents(model: &GenerationModel, plan: &SegmentPlan) -> Result<(), PipelineError> {
    let (Some(layout), Some(sound)) = (&model.layout.audio, &model.sound) else {
        return Ok(());
    };
    let tokens = plan.audio_elements / layout.token_width();
    let denoisers = std::iter::once(&model.denoiser).chain(&model.low_noise);
    let taken = denoisers.filter_map(|graph| {
        let ports = graph.audio.as_ref()?;
        let spec = &graph.model.signature().inputs[ports.hidden];
        Some((spec, spec.shape[1]))
    });
    let decoder = &sound.decoder.model.signature().inputs[sound.decoder.latents];
    for (spec, fixed) in taken.chain([(decoder, decoder.shape[2])]) {
        if let Some(fixed) = fixed.filter(|fixed| *fixed != tokens) {
            let why = format!(
                "make {tokens} latents of sound, and {} takes {fixed}",
                spec.name
            );
            return Err(PipelineError::invalid("frames", why));
        }
    }
    Ok(())
}

fn check_pictures(
    model: &GenerationModel,
    request: &GenerationRequest,
) -> Result<(), PipelineError> {
    let defaults = model.defaults();
    let refuse = |field: &str, why: &str| Err(PipelineError::invalid(field, why));
    for (field, picture, wanted) in [
        ("first_image", &request.first_image, defaults.first_image),
        ("last_image", &request.last_image, defaults.last_image),
        ("reference_image", &request.reference, defaults.reference),
    ] {
        match (picture, wanted) {
            (Some(_), ImageUse::Refused) => return refuse(field, "this model takes none"),
            (None, ImageUse::Required) => {
                return refuse(field, "is missing; this model makes clips of pictures");
            }
            (Some(picture), _) => pixels::check(field, picture)?,
            (None, _) => {}
        }
    }
    let Some(source) = &request.source else {
        return match request.strength {
            Some(_) => refuse("strength", "is of a source, and there is none"),
            None => Ok(()),
        };
    };
    if !defaults.takes_source {
        return refuse("source", "this model takes none");
    }
    let pictures = [
        &request.first_image,
        &request.last_image,
        &request.reference,
    ];
    if pictures.into_iter().any(Option::is_some) {
        return refuse("source", "is given, and so are pictures");
    }
    if !(1..=CLIP_FRAMES_MAX as usize).contains(&source.len()) {
        let why = format!("has {} frames, not 1 to {CLIP_FRAMES_MAX}", source.len());
        return refuse("source", &why);
    }
    for (index, picture) in source.iter().enumerate() {
        pixels::check(&format!("source[{index}]"), picture)?;
    }
    Ok(())
}

fn check_side(field: &str, side: u32, multiple: u32) -> Result<(), PipelineError> {
    in_range(field, side, CLIP_SIDE_MAX)?;
    if side.is_multiple_of(multiple) {
        return Ok(());
    }
    let below = side / multiple * multiple;
    let above = below + multiple;
    let nearest = if below > 0 && side - below <= above - side {
        below
    } else {
        above
    };
    let why = format!("{side} is no multiple of {multiple}; the nearest is {nearest}");
    Err(PipelineError::invalid(field, why))
}

fn in_range(field: &str, value: u32, value_max: u32) -> Result<(), PipelineError> {
    if (1..=value_max).contains(&value) {
        return Ok(());
    }
    let why = format!("{value} is not 1 to {value_max}");
    Err(PipelineError::invalid(field, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that diffusers' `linear_quadratic_schedule` gives.
    #[test]
    fn levels_fall_evenly_and_then_faster() {
        let close = |have: &[f64], want: &[f64]| {
            assert_eq!(have.len(), want.len());
            for (have, want) in have.iter().zip(want) {
                assert!((have - want).abs() < 1e-6, "{have} {want}");
            }
        };
        close(&linear_quadratic(1), &[1.0]);
        close(&linear_quadratic(4), &[1.0, 0.9875, 0.975, 0.725]);
        let five = [1.0, 0.9875, 0.975, 0.858_333_3, 0.533_333_3];
        close(&linear_quadratic(5), &five);
    }
}
