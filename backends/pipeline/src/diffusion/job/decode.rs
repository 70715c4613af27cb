//! From finished latents to frames and to the sound beside them.

use super::{Decoded, GenerationJob};
use crate::PipelineError;
use crate::clip::Rgb;
use crate::diffusion::audio::{AudioChunk, Sound};
use crate::diffusion::layout::Geometry;
use crate::diffusion::noise::gaussian;
use crate::diffusion::segment::{DECODE, stream};
use crate::diffusion::{latents, pixels};
use mote_api::Tensor;

/// How far a wave's length may be from what rates and ratios make it: another sample rate would be heard as another
/// pitch.
const WAVE_LENGTH_DEVIATION_MAX: f64 = 0.1;

impl GenerationJob {
    /// A run of the decoder over a segment that is done.
    pub(super) fn decode(&mut self, index: usize) -> Result<Decoded, PipelineError> {
        let plan = &self.planned.segments[index];
        let (geometry, wanted) = (plan.geometry, plan.frames.clone());
        let video = self.as_video(&self.finished[index], &geometry);
        let planes = self.decode_latents(video, &geometry, stream(index, DECODE))?;
        let last = wanted.clone().last().filter(|_| self.goes_on(index));
        let last = last.map(|frame| pixels::from_planes(&planes, frame));
        self.last_frame = last.transpose()?;
        Ok(Decoded {
            planes,
            left: wanted,
            sound: None,
        })
    }

    /// Whether another segment follows.
    fn goes_on(&self, index: usize) -> bool {
        index + 1 < self.planned.segments.len()
    }

    /// Frames of the clip before segment `index`.
    fn frames_before(&self, index: usize) -> u64 {
        let before = &self.planned.public.segment_frames[..index];
        before.iter().map(|&frames| u64::from(frames)).sum()
    }

    /// The sample that frame `frame` of the clip begins with; 0 of clips without sound.
    fn sample_of(&self, frame: u64) -> u64 {
        let audio = self.model.layout.audio.as_ref();
        audio.map_or(0, |audio| {
            audio.sample_of(frame, self.planned.public.frame_rate)
        })
    }

    /// The spectrogram of a segment's sound, where the model makes any: a run of its decoder.
    pub(super) fn decode_sound(&mut self, index: usize) -> Result<Option<Tensor>, PipelineError> {
        let (Some(layout), Some(graphs), Some(runners)) = (
            &self.model.layout.audio,
            &self.model.sound,
            &mut self.sound_runners,
        ) else {
            return Ok(None);
        };
        let plan = &self.planned.segments[index];
        let latents = layout.unpack(&self.finished[index][plan.geometry.elements()..]);
        let tokens = latents.len() / layout.token_width();
        let shape = [1, layout.channels, tokens, layout.bins];
        let decoder = &graphs.decoder;
        runners.decoder.set(decoder.latents, &shape, &latents)?;
        let report = runners.decoder.run(&self.flag)?;
        let open = [Some(1), None, None, None];
        let spectrogram = runners.decoder.output_tensor(decoder.output, &open)?;
        self.count(report);
        Ok(Some(spectrogram))
    }

    /// The wave of a segment's spectrogram: a run of the vocoder.
    pub(super) fn voice(
        &mut self,
        index: usize,
        spectrogram: &Tensor,
    ) -> Result<Option<Sound>, PipelineError> {
        let (Some(layout), Some(graphs), Some(runners)) = (
            &self.model.layout.audio,
            &self.model.sound,
            &mut self.sound_runners,
        ) else {
            return Ok(None);
        };
        let plan = &self.planned.segments[index];
        let vocoder = &graphs.vocoder;
        runners.vocoder.pass(vocoder.spectrogram, spectrogram)?;
        let report = runners.vocoder.run(&self.flag)?;
        let channels = usize::from(layout.wave_channels);
        let want = [Some(1), Some(channels), None];
        let (wave, shape) = runners.vocoder.output(vocoder.output, &want)?;
        let expected = layout.samples_of(plan.audio_elements / layout.token_width());
        if (shape[2] as f64 - expected).abs() > expected * WAVE_LENGTH_DEVIATION_MAX {
            let why = format!(
                "came out with {} samples, and by the configs of audio_vae_decoder and vocoder it has {expected:.0}",
                shape[2]
            );
            return Err(PipelineError::graph("waveform", why));
        }
        // The frame that the segment goes on from is not its own.
        let first = self.frames_before(index) - plan.frames.start as u64;
        let sound = Sound::of_wave(&wave, channels, self.sample_of(first));
        self.count(report);
        Ok(Some(sound))
    }

    /// Sound up to the end of the frame that was handed out last; that of a segment's last frame waits for the
    /// next segment, whose first frame it is as well.
    pub(super) fn sound_due(&mut self, index: usize, decoded: &Decoded) -> Option<AudioChunk> {
        let sound = decoded.sound.as_ref()?;
        let plan = &self.planned.segments[index];
        let given = (decoded.left.start - plan.frames.start) as u64;
        let is_shared = decoded.left.is_empty() && self.goes_on(index);
        let frames = self.frames_before(index) + given - u64::from(is_shared);
        let until = self.sample_of(frames);
        let from = self.sounded.max(self.sound_from);
        self.sounded = self.sounded.max(until);
        (from < until).then(|| AudioChunk {
            sample_index: from,
            samples: sound.cut(from..until, self.before.as_ref()),
        })
    }

    /// Keeps what the next segment's sound goes over from.
    pub(super) fn keep_tail(&mut self, index: usize, decoded: &Decoded) {
        let end = self.frames_before(index + 1);
        let shared = self.sample_of(end.saturating_sub(1))..self.sample_of(end);
        let sound = decoded.sound.as_ref().filter(|_| self.goes_on(index));
        self.before = sound.map(|sound| sound.tail(shared));
    }

    /// Whether all of a segment's sound is among what nobody wants again.
    pub(super) fn is_heard(&self, index: usize) -> bool {
        self.sound_from >= self.sample_of(self.frames_before(index + 1))
    }

    /// That a segment is not decoded, and so nothing of its sound is wanted.
    pub(super) fn pass_over(&mut self, index: usize) {
        self.before = None;
        self.sounded = self.sample_of(self.frames_before(index + 1));
    }

    /// Of kept latents those of the clip, as `[c, f, h, w]`.
    fn as_video(&self, kept: &[f32], geometry: &Geometry) -> Vec<f32> {
        let sample = &kept[..geometry.elements()];
        if self.model.layout.class.is_ltx() {
            latents::unpack(sample, geometry)
        } else {
            sample.to_vec()
        }
    }

    /// Planes `[1, 3, frames, height, width]` of latents `[c, f, h, w]`.
    fn decode_latents(
        &mut self,
        mut video: Vec<f32>,
        geometry: &Geometry,
        noise_stream: u32,
    ) -> Result<Tensor, PipelineError> {
        let graph = &self.model.decoder;
        latents::denormalise(&mut video, &self.model.layout);
        if let Some(index) = graph.timestep {
            let timestep = self.model.spec.decode_timestep.unwrap_or(0.0);
            let share = self.model.spec.decode_noise.unwrap_or(timestep);
            let mut noise = vec![0.0; video.len()];
            gaussian(self.request.seed, noise_stream, &mut noise);
            for (value, noise) in video.iter_mut().zip(noise) {
                *value = (1.0 - share) * *value + share * noise;
            }
            self.decoder.set(index, &[1], &[timestep])?;
        }
        let [frames, rows, columns] = geometry.latent;
        let shape = [1, geometry.channels, frames, rows, columns];
        self.decoder.set(graph.latents, &shape, &video)?;
        let made = (frames - 1) * self.model.layout.frames_per_latent + 1;
        let shape = [1, 3, made, geometry.height, geometry.width];
        self.decoder.expect_anew(graph.output, &shape)?;
        let report = self.decoder.run(&self.flag)?;
        let planes = self.decoder.output_tensor(graph.output, &shape.map(Some))?;
        self.count(report);
        Ok(planes)
    }

    /// The middle frame of the clip, or of its segment under way, as the last step estimates it; `None`
    /// before the first. Takes a run of the decoder, over two latent frames where it takes any number.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`], or what failed.
    pub fn preview(&mut self) -> Result<Option<Rgb>, PipelineError> {
        let Some((index, estimate)) = &self.estimate else {
            return Ok(None);
        };
        let geometry = self.planned.segments[*index].geometry;
        let noise_stream = stream(*index, DECODE);
        let video = self.as_video(estimate, &geometry);
        let middle = geometry.latent[0] / 2;
        if !self.model.decoder.is_open {
            let planes = self.decode_latents(video, &geometry, noise_stream)?;
            return pixels::from_planes(&planes, planes.shape()[2] / 2).map(Some);
        }
        let cut = latents::frames(&video, &geometry, middle.saturating_sub(1)..middle + 1);
        let cut_geometry = geometry.with_latent_frames(middle.min(1) + 1);
        let planes = self.decode_latents(cut, &cut_geometry, noise_stream)?;
        pixels::from_planes(&planes, planes.shape()[2] - 1).map(Some)
    }
}
