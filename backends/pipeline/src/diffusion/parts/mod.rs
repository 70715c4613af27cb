//! Which inputs and outputs of a pipeline's graphs play which part, and whether the graphs fit each
//! other. Names are diffusers' own.

mod audio;

use super::layout::Layout;
use super::runner::{FLOATS, INTEGERS, expect, shape_text};
use crate::PipelineError;
use mote_api::{DType, Model, Signature, TensorSpec};
use std::sync::Arc;

pub(super) use audio::{AudioDecoderGraph, AudioPorts, ConnectorsGraph, VocoderGraph, check_sound};

pub(super) const TEXT_ENCODER: &str = "text_encoder";
pub(super) const VAE_DECODER: &str = "vae_decoder";
pub(super) const VAE_ENCODER: &str = "vae_encoder";
pub(super) const LOW_NOISE: &str = "transformer_2";
pub(super) const IMAGE_ENCODER: &str = "image_encoder";
pub(super) const CONNECTORS: &str = "connectors";
const DENOISER: &str = "transformer";
const CHANNELS: usize = 3;
/// Element types that masks are read of.
const COUNTS: [DType; 2] = [DType::I64, DType::I32];

/// The text encoder: `input_ids` and, if it takes one, `attention_mask`, `[1, s]`, to
/// `last_hidden_state` `[1, s, d]`.
pub(super) struct TextGraph {
    pub model: Arc<dyn Model>,
    pub ids: usize,
    pub mask: Option<usize>,
    pub output: usize,
    /// Tokens, where the graph fixes them.
    pub tokens: Option<usize>,
}

/// A denoiser.
pub(super) struct DenoiserGraph {
    pub model: Arc<dyn Model>,
    /// `[b, tokens, c]` or `[b, c, f, h, w]`.
    pub hidden: usize,
    /// `[b]`, or `[b, tokens]` where `timestep_rank` is 2.
    pub timestep: usize,
    pub timestep_rank: usize,
    /// `[b, s, d]`.
    pub prompt: usize,
    /// `[b, s]`.
    pub mask: Option<usize>,
    /// `[b, 3, tokens]`, or `[b, 3, tokens, 2]` of LTX-2.
    pub coordinates: Option<usize>,
    /// `[b]`: guidance that was distilled into the model.
    pub guidance: Option<usize>,
    /// `[b, n, e]`: what the encoder of pictures makes of those that it looks at.
    pub image: Option<usize>,
    /// `[b, v, f, h, w]`: latents and masks of what is given (VACE).
    pub control: Option<usize>,
    /// `[b]`: the noise level, in timesteps (LTX-2.3).
    pub sigma: Option<usize>,
    /// The branch that makes sound.
    pub audio: Option<AudioPorts>,
    /// As `hidden`; Wan's has the channels of latents only.
    pub output: usize,
    /// Whether two items can be computed at once.
    pub takes_pairs: bool,
    /// Channels, or elements of a token, where the graph fixes them.
    pub channels: Option<usize>,
    /// Elements of the text encoder's vectors, likewise.
    pub text_width: Option<usize>,
}

/// The encoder of pictures that a denoiser looks at: `pixel_values` `[1, 3, h, w]` to `image_embeds` `[1, n, e]`.
pub(super) struct ImageGraph {
    pub model: Arc<dyn Model>,
    pub pixels: usize,
    pub output: usize,
}

/// The decoder: `latent_sample` `[1, c, f, h, w]` and, if it takes one, a `timestep` `[1]`, to
/// `sample` `[1, 3, frames, H, W]`.
pub(super) struct DecoderGraph {
    pub model: Arc<dyn Model>,
    pub latents: usize,
    pub timestep: Option<usize>,
    pub output: usize,
    /// Whether a clip of any length can be decoded.
    pub is_open: bool,
}

/// The encoder: `sample` `[1, 3, frames, H, W]` to `latent_sample` `[1, c, f, h, w]`.
pub(super) struct EncoderGraph {
    pub model: Arc<dyn Model>,
    pub sample: usize,
    pub output: usize,
    /// Frames, where the graph fixes them.
    pub frames: Option<usize>,
}

/// The input of one of these names.
fn input(part: &str, signature: &Signature, names: &[&str]) -> Result<usize, PipelineError> {
    optional(signature, names).ok_or_else(|| {
        let why = format!("is missing among the inputs of {part}");
        PipelineError::graph(names[0], why)
    })
}

fn optional(signature: &Signature, names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| signature.input(name))
}

/// The output of one of these names, or the only one.
fn output(part: &str, signature: &Signature, names: &[&str]) -> Result<usize, PipelineError> {
    let named = names.iter().find_map(|name| signature.output(name));
    named
        .or((signature.outputs.len() == 1).then_some(0))
        .ok_or_else(|| {
            let why = format!("is missing among the outputs of {part}");
            PipelineError::graph(names[0], why)
        })
}

/// Refuses inputs that nobody would bind.
fn refuse_unknown(
    part: &str,
    signature: &Signature,
    known: &[Option<usize>],
) -> Result<(), PipelineError> {
    let unknown = (0..signature.inputs.len()).find(|index| !known.contains(&Some(*index)));
    unknown.map_or(Ok(()), |index| {
        let why = format!("is an input of {part} that is not served");
        Err(PipelineError::graph(&signature.inputs[index].name, why))
    })
}

/// Whether a dimension that both fix is not the same.
fn differ(gives: &[Option<usize>], takes: &[Option<usize>]) -> bool {
    let mut pairs = gives.iter().zip(takes);
    pairs.any(|pair| matches!(pair, (Some(gives), Some(takes)) if gives != takes))
}

/// That a dimension, where the graph fixes it, is this.
fn expect_dim(
    part: &str,
    spec: &TensorSpec,
    axis: usize,
    want: usize,
    of: &str,
) -> Result<(), PipelineError> {
    match spec.shape[axis] {
        Some(have) if have != want => {
            let why = format!(
                "of {part} is {}, and {want} would be the {of}",
                shape_text(&spec.shape)
            );
            Err(PipelineError::graph(&spec.name, why))
        }
        _ => Ok(()),
    }
}

impl TextGraph {
    pub fn open(model: Arc<dyn Model>) -> Result<Self, PipelineError> {
        let part = TEXT_ENCODER;
        let signature = model.signature();
        let ids = input(part, signature, &["input_ids"])?;
        let mask = optional(signature, &["attention_mask"]);
        let output = output(part, signature, &["last_hidden_state"])?;
        refuse_unknown(part, signature, &[Some(ids), mask])?;
        for index in [Some(ids), mask].into_iter().flatten() {
            let spec = &signature.inputs[index];
            expect(part, spec, &[&INTEGERS, &FLOATS], &[2])?;
            expect_dim(part, spec, 0, 1, "number of prompts")?;
        }
        expect(part, &signature.outputs[output], &[&FLOATS], &[3])?;
        let tokens = signature.inputs[ids].shape[1];
        Ok(Self {
            ids,
            mask,
            output,
            tokens,
            model,
        })
    }

    /// Elements of a vector, where the graph fixes them.
    pub fn width(&self) -> Option<usize> {
        self.model.signature().outputs[self.output].shape[2]
    }
}

impl DenoiserGraph {
    pub fn open(model: Arc<dyn Model>, layout: &Layout) -> Result<Self, PipelineError> {
        let part = DENOISER;
        let is_ltx = layout.class.is_ltx();
        let signature = model.signature();
        let hidden = input(part, signature, &["hidden_states", "sample"])?;
        let timestep = input(part, signature, &["timestep"])?;
        let prompt = input(part, signature, &["encoder_hidden_states"])?;
        let mask = optional(signature, &["encoder_attention_mask"]);
        let guidance = optional(signature, &["guidance"]);
        let coordinates = is_ltx
            .then(|| input(part, signature, &["video_coords"]))
            .transpose()?;
        let output = output(part, signature, &["sample", "out_sample"])?;
        let image = optional(signature, &["encoder_hidden_states_image"]).filter(|_| !is_ltx);
        let control = optional(signature, &["control_hidden_states"]).filter(|_| !is_ltx);
        let sigma = optional(signature, &["sigma"]).filter(|_| layout.audio.is_some());
        let audio = layout.audio.as_ref();
        let audio = audio
            .map(|it| AudioPorts::find(signature, it))
            .transpose()?;
        let of_audio = audio.iter().flat_map(AudioPorts::inputs);
        let known = [
            Some(hidden),
            Some(timestep),
            Some(prompt),
            mask,
            guidance,
            coordinates,
            image,
            control,
            sigma,
        ];
        let known: Vec<_> = known.into_iter().chain(of_audio).collect();
        refuse_unknown(part, signature, &known)?;
        let spec = |index: usize| &signature.inputs[index];
        let rank = if is_ltx { 3 } else { 5 };
        let of_coordinates = if layout.class.is_ltx2() { 4 } else { 3 };
        expect(part, spec(hidden), &[&FLOATS], &[rank])?;
        expect(part, &signature.outputs[output], &[&FLOATS], &[rank])?;
        expect(part, spec(timestep), &[&FLOATS, &INTEGERS], &[1, 2])?;
        expect(part, spec(prompt), &[&FLOATS], &[3])?;
        for (index, rank) in [
            (mask, 2),
            (guidance, 1),
            (coordinates, of_coordinates),
            (image, 3),
            (control, 5),
            (sigma, 1),
        ] {
            if let Some(index) = index {
                expect(part, spec(index), &[&FLOATS, &INTEGERS], &[rank])?;
            }
        }
        // Two prompts at once, if no input says that there is one.
        let takes_pairs = signature
            .inputs
            .iter()
            .all(|spec| spec.shape.first() == Some(&None));
        expect_dim(part, spec(hidden), 0, 1, "number of clips")?;
        let graph = Self {
            hidden,
            timestep,
            timestep_rank: spec(timestep).shape.len(),
            prompt,
            mask,
            coordinates,
            guidance,
            image,
            control,
            sigma,
            audio,
            output,
            takes_pairs,
            channels: spec(hidden).shape[if is_ltx { 2 } else { 1 }],
            text_width: spec(prompt).shape[2],
            model,
        };
        graph.check(layout)?;
        Ok(graph)
    }

    fn check(&self, layout: &Layout) -> Result<(), PipelineError> {
        let signature = self.model.signature();
        let patch: usize = layout.patch.iter().product();
        let (axis, made) = if layout.class.is_ltx() {
            (2, layout.channels * patch)
        } else {
            (1, layout.channels)
        };
        let of = "channels of the autoencoder's latents";
        let out = &signature.outputs[self.output];
        expect_dim(DENOISER, out, axis, made, of)?;
        let taken = self.channels.or(layout.denoiser_channels).unwrap_or(made);
        let conditioned = 2 * layout.channels + layout.frames_per_latent;
        let may_condition = !layout.class.is_ltx() && !layout.expand_timesteps;
        if taken != made && !(may_condition && taken == conditioned) {
            let why = format!("of {DENOISER} has {taken} channels, and {made} would be the {of}");
            return Err(PipelineError::graph(
                &signature.inputs[self.hidden].name,
                why,
            ));
        }
        if layout.expand_timesteps && self.timestep_rank != 2 {
            let why = "is one for the clip, and expand_timesteps calls for one for each token";
            return Err(PipelineError::graph("timestep", why));
        }
        if let Some(index) = self.control {
            let of = "latents of what is given and is not, and a mask for each pixel of a latent";
            let want = layout.control_channels();
            expect_dim(DENOISER, &signature.inputs[index], 1, want, of)?;
        }
        Ok(())
    }

    /// Whether a picture's latents come in as channels beside the noise (Wan's image to video).
    pub fn takes_condition(&self, layout: &Layout) -> bool {
        let taken = self.channels.or(layout.denoiser_channels);
        !layout.class.is_ltx() && taken == Some(2 * layout.channels + layout.frames_per_latent)
    }
}

impl ImageGraph {
    /// `size`: height and width of what it will be given.
    pub fn open(model: Arc<dyn Model>, size: [usize; 2]) -> Result<Self, PipelineError> {
        let part = IMAGE_ENCODER;
        let signature = model.signature();
        let pixels = input(part, signature, &["pixel_values"])?;
        let output = output(part, signature, &["image_embeds"])?;
        refuse_unknown(part, signature, &[Some(pixels)])?;
        let spec = &signature.inputs[pixels];
        expect(part, spec, &[&FLOATS], &[4])?;
        expect_dim(part, spec, 0, 1, "number of pictures")?;
        expect_dim(part, spec, 1, CHANNELS, "channels of RGB")?;
        expect_dim(part, spec, 2, size[0], "height that pictures are cut to")?;
        expect_dim(part, spec, 3, size[1], "width that pictures are cut to")?;
        expect(part, &signature.outputs[output], &[&FLOATS], &[3])?;
        Ok(Self {
            pixels,
            output,
            model,
        })
    }
}

impl DecoderGraph {
    pub fn open(model: Arc<dyn Model>, layout: &Layout) -> Result<Self, PipelineError> {
        let part = VAE_DECODER;
        let signature = model.signature();
        let latents = input(part, signature, &["latent_sample"])?;
        let timestep = optional(signature, &["timestep", "temb"]);
        let output = output(part, signature, &["sample"])?;
        refuse_unknown(part, signature, &[Some(latents), timestep])?;
        let spec = &signature.inputs[latents];
        expect(part, spec, &[&FLOATS], &[5])?;
        expect_dim(part, spec, 0, 1, "number of clips")?;
        expect_dim(
            part,
            spec,
            1,
            layout.channels,
            "latent channels of its config",
        )?;
        if let Some(index) = timestep {
            expect(part, &signature.inputs[index], &[&FLOATS], &[1])?;
        }
        let out = &signature.outputs[output];
        expect(part, out, &[&FLOATS], &[5])?;
        expect_dim(part, out, 1, CHANNELS, "channels of RGB")?;
        let is_open = spec.shape[2].is_none();
        Ok(Self {
            latents,
            timestep,
            output,
            is_open,
            model,
        })
    }
}

impl EncoderGraph {
    pub fn open(model: Arc<dyn Model>, layout: &Layout) -> Result<Self, PipelineError> {
        let part = VAE_ENCODER;
        let signature = model.signature();
        let sample = input(part, signature, &["sample"])?;
        let output = output(part, signature, &["latent_sample"])?;
        refuse_unknown(part, signature, &[Some(sample)])?;
        let spec = &signature.inputs[sample];
        expect(part, spec, &[&FLOATS], &[5])?;
        expect_dim(part, spec, 0, 1, "number of clips")?;
        expect_dim(part, spec, 1, CHANNELS, "channels of RGB")?;
        let out = &signature.outputs[output];
        expect(part, out, &[&FLOATS], &[5])?;
        expect_dim(
            part,
            out,
            1,
            layout.channels,
            "latent channels of its config",
        )?;
        let frames = spec.shape[2];
        Ok(Self {
            sample,
            output,
            frames,
            model,
        })
    }
}

/// That what is made of prompts is what the denoiser takes: by the connectors, where there are any.
pub(super) fn check_text(
    text: &TextGraph,
    connectors: Option<&ConnectorsGraph>,
    denoiser: &DenoiserGraph,
) -> Result<(), PipelineError> {
    let taken = denoiser.model.signature();
    let width = |spec: &TensorSpec| spec.shape[2];
    let mut pairs = Vec::new();
    if let Some(connectors) = connectors {
        let signature = connectors.model.signature();
        let into = width(&signature.inputs[connectors.text]);
        pairs.push((
            CONNECTORS,
            "text_encoder_hidden_states",
            TEXT_ENCODER,
            text.width(),
            into,
        ));
        let gives = |index: usize| width(&signature.outputs[index]);
        let video = gives(connectors.video);
        pairs.push((
            DENOISER,
            "encoder_hidden_states",
            CONNECTORS,
            video,
            denoiser.text_width,
        ));
        if let Some(audio) = &denoiser.audio {
            let takes = width(&taken.inputs[audio.prompt]);
            let name = "audio_encoder_hidden_states";
            pairs.push((DENOISER, name, CONNECTORS, gives(connectors.audio), takes));
        }
    } else {
        let takes = denoiser.text_width;
        pairs.push((
            DENOISER,
            "encoder_hidden_states",
            TEXT_ENCODER,
            text.width(),
            takes,
        ));
    }
    for (part, name, giver, gives, takes) in pairs {
        if let (Some(gives), Some(takes)) = (gives, takes)
            && gives != takes
        {
            let why = format!("of {part} has {takes} elements, {giver} gives {gives}");
            return Err(PipelineError::graph(name, why));
        }
    }
    Ok(())
}

/// That what the encoder of pictures gives is what the denoiser takes of `count` of them.
pub(super) fn check_image(
    image: &ImageGraph,
    denoiser: &DenoiserGraph,
    count: usize,
) -> Result<(), PipelineError> {
    let Some(index) = denoiser.image else {
        return Err(PipelineError::part(
            IMAGE_ENCODER,
            "is there, and no denoiser looks at it",
        ));
    };
    let takes = &denoiser.model.signature().inputs[index];
    let gives = &image.model.signature().outputs[image.output];
    let wanted = [gives.shape[1].map(|tokens| tokens * count), gives.shape[2]];
    if differ(&wanted, &takes.shape[1..]) {
        let why = format!(
            "of {DENOISER} is {}, and {IMAGE_ENCODER} gives {} for each of {count}",
            shape_text(&takes.shape),
            shape_text(&gives.shape)
        );
        return Err(PipelineError::graph(&takes.name, why));
    }
    Ok(())
}
