//! The parts of a pipeline that only sound has, and the connectors, which only stand in those.

use super::super::audio::{AUDIO_DECODER, AudioLayout, VOCODER};
use super::super::runner::{FLOATS, INTEGERS, expect, shape_text};
use super::{
    CONNECTORS, COUNTS, DENOISER, differ, expect_dim, input, optional, output, refuse_unknown,
};
use crate::PipelineError;
use mote_api::{Model, Signature};
use std::sync::Arc;

/// What a denoiser takes and gives of sound.
pub struct AudioPorts {
    /// `[b, m, a]`.
    pub hidden: usize,
    /// `[b, s, e]`.
    pub prompt: usize,
    /// `[b, s]`.
    pub mask: Option<usize>,
    /// `[b]`; as the clip's, where there is none.
    pub timestep: Option<usize>,
    /// `[b, 1, m, 2]`.
    pub coordinates: usize,
    /// As `hidden`.
    pub output: usize,
}

/// What stands behind the text encoder of LTX-2: `text_encoder_hidden_states` `[1, s, d]` and
/// `attention_mask` `[1, s]` to `video_text_embedding` and `audio_text_embedding` `[1, s, ..]`.
pub struct ConnectorsGraph {
    pub model: Arc<dyn Model>,
    pub text: usize,
    pub mask: usize,
    pub video: usize,
    pub audio: usize,
    /// What of them counts, `text_attention_mask` `[1, s]`; all, where there is none.
    pub out_mask: Option<usize>,
}

/// The decoder of sound: `latent_sample` `[1, c, l, m]` to a spectrogram, `sample` `[1, channels, time, bins]`.
pub struct AudioDecoderGraph {
    pub model: Arc<dyn Model>,
    pub latents: usize,
    pub output: usize,
}

/// From spectrograms to waves: `mel_spectrogram` `[1, channels, time, bins]` to `waveform`
/// `[1, channels, samples]`.
pub struct VocoderGraph {
    pub model: Arc<dyn Model>,
    pub spectrogram: usize,
    pub output: usize,
}

impl AudioPorts {
    pub fn find(signature: &Signature, layout: &AudioLayout) -> Result<Self, PipelineError> {
        let part = DENOISER;
        let ports = Self {
            hidden: input(part, signature, &["audio_hidden_states"])?,
            prompt: input(part, signature, &["audio_encoder_hidden_states"])?,
            mask: optional(signature, &["audio_encoder_attention_mask"]),
            timestep: optional(signature, &["audio_timestep"]),
            coordinates: input(part, signature, &["audio_coords"])?,
            output: output(part, signature, &["audio_sample"])?,
        };
        for (index, rank) in [(ports.hidden, 3), (ports.prompt, 3), (ports.coordinates, 4)] {
            expect(part, &signature.inputs[index], &[&FLOATS], &[rank])?;
        }
        for (index, rank) in [(ports.mask, 2), (ports.timestep, 1)] {
            if let Some(index) = index {
                let spec = &signature.inputs[index];
                expect(part, spec, &[&FLOATS, &INTEGERS], &[rank])?;
            }
        }
        let out = &signature.outputs[ports.output];
        expect(part, out, &[&FLOATS], &[3])?;
        for spec in [&signature.inputs[ports.hidden], out] {
            let of = "channels and bins of a latent of sound";
            expect_dim(part, spec, 2, layout.token_width(), of)?;
        }
        Ok(ports)
    }

    pub fn inputs(&self) -> [Option<usize>; 5] {
        let [hidden, prompt, coordinates] = [self.hidden, self.prompt, self.coordinates].map(Some);
        [hidden, prompt, coordinates, self.mask, self.timestep]
    }
}

impl ConnectorsGraph {
    /// Tokens, where the graph fixes them.
    pub fn tokens(model: &dyn Model) -> Option<usize> {
        let signature = model.signature();
        let mask = optional(signature, &["attention_mask"]);
        let shape = mask.map(|index| &signature.inputs[index].shape);
        shape.and_then(|shape| shape.get(1).copied()).flatten()
    }

    /// `tokens`: what prompts are padded to.
    pub fn open(model: Arc<dyn Model>, tokens: usize) -> Result<Self, PipelineError> {
        let part = CONNECTORS;
        let signature = model.signature();
        let text = input(part, signature, &["text_encoder_hidden_states"])?;
        let mask = input(part, signature, &["attention_mask"])?;
        let video = output(part, signature, &["video_text_embedding"])?;
        let audio = output(part, signature, &["audio_text_embedding"])?;
        let out_mask = signature.output("text_attention_mask");
        refuse_unknown(part, signature, &[Some(text), Some(mask)])?;
        expect(part, &signature.inputs[text], &[&FLOATS], &[3])?;
        expect(part, &signature.inputs[mask], &[&FLOATS, &INTEGERS], &[2])?;
        for index in [text, mask] {
            let spec = &signature.inputs[index];
            expect_dim(part, spec, 0, 1, "number of prompts")?;
            expect_dim(part, spec, 1, tokens, "tokens that prompts are padded to")?;
        }
        let of_mask = out_mask.map(|index| (index, 2));
        for (index, rank) in [(video, 3), (audio, 3)].into_iter().chain(of_mask) {
            let spec = &signature.outputs[index];
            expect(part, spec, &[&FLOATS, &COUNTS], &[rank])?;
        }
        Ok(Self {
            text,
            mask,
            video,
            audio,
            out_mask,
            model,
        })
    }
}

impl AudioDecoderGraph {
    pub fn open(model: Arc<dyn Model>, layout: &AudioLayout) -> Result<Self, PipelineError> {
        let part = AUDIO_DECODER;
        let signature = model.signature();
        let latents = input(part, signature, &["latent_sample"])?;
        let output = output(part, signature, &["sample"])?;
        refuse_unknown(part, signature, &[Some(latents)])?;
        let spec = &signature.inputs[latents];
        expect(part, spec, &[&FLOATS], &[4])?;
        expect_dim(part, spec, 0, 1, "number of clips")?;
        expect_dim(
            part,
            spec,
            1,
            layout.channels,
            "latent channels of its config",
        )?;
        expect_dim(part, spec, 3, layout.bins, "latents over the frequencies")?;
        expect(part, &signature.outputs[output], &[&FLOATS], &[4])?;
        Ok(Self {
            latents,
            output,
            model,
        })
    }
}

impl VocoderGraph {
    pub fn open(model: Arc<dyn Model>, layout: &AudioLayout) -> Result<Self, PipelineError> {
        let part = VOCODER;
        let signature = model.signature();
        let spectrogram = input(part, signature, &["mel_spectrogram"])?;
        let output = output(part, signature, &["waveform"])?;
        refuse_unknown(part, signature, &[Some(spectrogram)])?;
        let spec = &signature.inputs[spectrogram];
        expect(part, spec, &[&FLOATS], &[4])?;
        expect_dim(part, spec, 0, 1, "number of clips")?;
        let out = &signature.outputs[output];
        expect(part, out, &[&FLOATS], &[3])?;
        let channels = usize::from(layout.wave_channels);
        expect_dim(part, out, 1, channels, "out_channels of its config")?;
        Ok(Self {
            spectrogram,
            output,
            model,
        })
    }
}

/// That the vocoder takes what the decoder of sound gives.
pub fn check_sound(
    decoder: &AudioDecoderGraph,
    vocoder: &VocoderGraph,
) -> Result<(), PipelineError> {
    let gives = &decoder.model.signature().outputs[decoder.output];
    let takes = &vocoder.model.signature().inputs[vocoder.spectrogram];
    if differ(&gives.shape, &takes.shape) {
        let why = format!(
            "of {VOCODER} is {}, and {AUDIO_DECODER} gives {}",
            shape_text(&takes.shape),
            shape_text(&gives.shape)
        );
        return Err(PipelineError::graph(&takes.name, why));
    }
    Ok(())
}
