//! Sound beside a clip, as LTX-2 makes it: its latents, where they are in time, and the samples that
//! belong to each frame.

use super::layout::{first_of, malformed, read_json, statistics};
use crate::PipelineError;
use serde::Deserialize;
use std::path::Path;

/// Folder of the decoder of sound's latents.
pub(super) const AUDIO_DECODER: &str = "audio_vae_decoder";
/// Folder of what makes waves of spectrograms.
pub(super) const VOCODER: &str = "vocoder";

/// Channels of latents, and bins of a spectrogram, at most.
const CHANNELS_MAX: usize = 4096;
/// Samples per second at most, of spectrograms' sources and of waves.
pub const AUDIO_SAMPLE_RATE_MAX: u32 = 192_000;
/// Channels of a wave at most.
pub const AUDIO_CHANNELS_MAX: u16 = 8;
/// Columns or bins of a spectrogram that one latent stands for, at most, and samples between columns.
const COMPRESSION_MAX: usize = 256;
const HOP_MAX: usize = 1 << 16;
/// Columns that the first latent stands for (`causal_offset` of diffusers' LTX-2).
const CAUSAL_OFFSET: usize = 1;

/// Sound that a clip will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioPlan {
    /// Samples per second and channel.
    pub sample_rate: u32,
    /// Channels of a sample.
    pub channels: u16,
    /// Samples of each channel: as long as the clip.
    pub samples: u64,
}

/// Some of a clip's sound.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioChunk {
    /// The first sample, of each channel, from the clip's beginning.
    pub sample_index: u64,
    /// Samples, all channels side by side, -1 to 1.
    pub samples: Vec<f32>,
}

/// What sound is made of, by the configs of its parts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AudioLayout {
    /// Channels of a latent.
    pub channels: usize,
    /// Latents of one moment, over the frequencies.
    pub bins: usize,
    /// Of `[channels, bins]` in a row.
    pub mean: Vec<f32>,
    /// Likewise.
    pub std: Vec<f32>,
    /// Columns of the spectrogram that one latent stands for; the first stands for one.
    columns_per_latent: usize,
    /// Samples per second of what spectrograms are of, and of them between two columns.
    source_rate: u32,
    hop: usize,
    /// Samples per second of the wave.
    pub sample_rate: u32,
    /// Channels of the wave.
    pub wave_channels: u16,
}

/// `config.json` of `AutoencoderKLLTX2Audio`, and what an export adds to it.
#[derive(Deserialize)]
struct VaeConfig {
    latent_channels: usize,
    mel_bins: usize,
    sample_rate: u32,
    mel_hop_length: usize,
    temporal_compression_ratio: Option<usize>,
    mel_compression_ratio: Option<usize>,
    latents_mean: Option<Vec<f32>>,
    latents_std: Option<Vec<f32>>,
}

/// `config.json` of `LTX2Vocoder` or `LTX2VocoderWithBWE`.
#[derive(Deserialize)]
struct VocoderConfig {
    output_sampling_rate: u32,
    out_channels: u16,
}

/// Both ratios of diffusers' autoencoder, which its config does not hold.
const COMPRESSION: usize = 4;

impl AudioLayout {
    /// Reads the configs of the decoder of sound and of the vocoder.
    ///
    /// # Errors
    /// Names the file that is missing, too large, malformed or absurd.
    pub fn read(folder: &Path) -> Result<Self, PipelineError> {
        let file = first_of(folder, [AUDIO_DECODER, "audio_vae"]);
        let vae: VaeConfig = read_json(&file)?;
        let vocoder_file = folder.join(VOCODER).join("config.json");
        let vocoder: VocoderConfig = read_json(&vocoder_file)?;
        let mel_compression = vae.mel_compression_ratio.unwrap_or(COMPRESSION);
        let columns_per_latent = vae.temporal_compression_ratio.unwrap_or(COMPRESSION);
        let compressions = [mel_compression, columns_per_latent];
        let bins = vae.mel_bins.checked_div(mel_compression).unwrap_or(0);
        let is_sound = (1..=CHANNELS_MAX).contains(&vae.latent_channels)
            && (1..=CHANNELS_MAX).contains(&vae.mel_bins)
            && compressions
                .iter()
                .all(|it| (1..=COMPRESSION_MAX).contains(it))
            && (1..=CHANNELS_MAX).contains(&vae.latent_channels.saturating_mul(bins))
            && (1..=AUDIO_SAMPLE_RATE_MAX).contains(&vae.sample_rate)
            && (1..=HOP_MAX).contains(&vae.mel_hop_length);
        if !is_sound {
            let why = "a rate, ratio or number of channels is zero or absurd";
            return Err(malformed(&file, why));
        }
        if !(1..=AUDIO_SAMPLE_RATE_MAX).contains(&vocoder.output_sampling_rate)
            || !(1..=AUDIO_CHANNELS_MAX).contains(&vocoder.out_channels)
        {
            let why = format!(
                "waves of {} channels and {} samples per second are none that can be written",
                vocoder.out_channels, vocoder.output_sampling_rate
            );
            return Err(malformed(&vocoder_file, why));
        }
        let said = [vae.latents_mean, vae.latents_std];
        let [mean, std] = statistics(said, vae.latent_channels * bins, &file)?;
        Ok(Self {
            channels: vae.latent_channels,
            bins,
            mean,
            std,
            columns_per_latent,
            source_rate: vae.sample_rate,
            hop: vae.mel_hop_length,
            sample_rate: vocoder.output_sampling_rate,
            wave_channels: vocoder.out_channels,
        })
    }

    /// Numbers of one token: all channels and bins of a moment.
    pub fn token_width(&self) -> usize {
        self.channels * self.bins
    }

    /// Latents along time, which are tokens, of the sound of so many frames, as diffusers counts them: the wave may
    /// end a little before the frames do.
    pub fn tokens_for(&self, frames: usize, frame_rate: u32) -> usize {
        let per_token = self.columns_per_latent as f64;
        let tokens = self.columns_for(frames, frame_rate) / per_token;
        (tokens.round_ties_even() as usize).max(1)
    }

    /// As many or more, so that the wave is as long as the frames: another segment's goes on from there.
    pub fn tokens_covering(&self, frames: usize, frame_rate: u32) -> usize {
        let after_first = self.columns_for(frames, frame_rate) - CAUSAL_OFFSET as f64;
        let tokens = (after_first / self.columns_per_latent as f64)
            .ceil()
            .max(0.0) as usize;
        tokens
            .saturating_add(1)
            .max(self.tokens_for(frames, frame_rate))
    }

    fn columns_for(&self, frames: usize, frame_rate: u32) -> f64 {
        let seconds = frames as f64 / f64::from(frame_rate);
        seconds * f64::from(self.source_rate) / self.hop as f64
    }

    /// Samples of each channel that so many tokens become.
    pub fn samples_of(&self, tokens: usize) -> f64 {
        let columns = (tokens.max(1) - 1) * self.columns_per_latent + CAUSAL_OFFSET;
        let seconds = columns as f64 * self.hop as f64 / f64::from(self.source_rate);
        seconds * f64::from(self.sample_rate)
    }

    /// When each token begins and ends, in seconds: `[1, tokens, 2]`.
    pub fn coordinates(&self, tokens: usize) -> Vec<f32> {
        let at = |latent: usize| {
            let column = latent * self.columns_per_latent + CAUSAL_OFFSET;
            let column = column.saturating_sub(self.columns_per_latent);
            column as f32 * self.hop as f32 / self.source_rate as f32
        };
        (0..tokens).flat_map(|it| [at(it), at(it + 1)]).collect()
    }

    /// `[channels, tokens, bins]`, as noise is drawn and the decoder takes it, as rows of tokens
    /// `[tokens, channels * bins]`.
    pub fn pack(&self, latents: &[f32]) -> Vec<f32> {
        let mut packed = vec![0.0; latents.len()];
        self.for_each_row(latents.len(), |row, token| {
            packed[token..token + self.bins].copy_from_slice(&latents[row..row + self.bins]);
        });
        packed
    }

    /// What the decoder takes of rows of tokens: scales undone, then the opposite of [`Self::pack`].
    pub fn unpack(&self, tokens: &[f32]) -> Vec<f32> {
        let mut latents = vec![0.0; tokens.len()];
        self.for_each_row(tokens.len(), |row, token| {
            let channel = token % self.token_width();
            for bin in 0..self.bins {
                let (mean, std) = (self.mean[channel + bin], self.std[channel + bin]);
                latents[row + bin] = tokens[token + bin] * std + mean;
            }
        });
        latents
    }

    /// Calls with where the bins of each channel and moment begin, in `[channels, tokens, bins]` and in
    /// rows of tokens.
    fn for_each_row(&self, elements: usize, mut call: impl FnMut(usize, usize)) {
        let tokens = elements / self.token_width();
        for channel in 0..self.channels {
            for token in 0..tokens {
                let row = (channel * tokens + token) * self.bins;
                call(row, token * self.token_width() + channel * self.bins);
            }
        }
    }

    /// The sample that frame `frame` of the clip begins with.
    pub fn sample_of(&self, frame: u64, frame_rate: u32) -> u64 {
        let rate = u64::from(frame_rate);
        (frame * u64::from(self.sample_rate) * 2 + rate) / (2 * rate)
    }
}

/// The sound of a segment that was decoded, and how far it was handed out.
#[derive(Debug, Default)]
pub(super) struct Sound {
    /// Samples, all channels side by side.
    samples: Vec<f32>,
    channels: usize,
    /// Where the first of them is in the clip.
    start: u64,
}

impl Sound {
    /// Of a wave `[channels, samples]` that begins at sample `start` of the clip. What is louder than can be is as
    /// loud as can be, and what is no number is silence.
    pub fn of_wave(wave: &[f32], channels: usize, start: u64) -> Self {
        let length = wave.len() / channels.max(1);
        let mut samples = Vec::with_capacity(wave.len());
        for at in 0..length {
            samples.extend((0..channels).map(|channel| audible(wave[channel * length + at])));
        }
        Self {
            samples,
            channels,
            start,
        }
    }

    /// Samples `range` of the clip; silence where there is none. Where `before`, the end of the sound of
    /// the segment before, has them as well, it goes over into this one evenly.
    pub fn cut(&self, range: std::ops::Range<u64>, before: Option<&Self>) -> Vec<f32> {
        let mut cut = Vec::with_capacity((range.end - range.start) as usize * self.channels);
        for at in range {
            let share = before.and_then(|before| before.share_of_next(at));
            for channel in 0..self.channels {
                let own = self.value(at, channel);
                cut.push(match (share, before) {
                    (Some(share), Some(before)) => {
                        before.value(at, channel) * (1.0 - share) + own * share
                    }
                    _ => own,
                });
            }
        }
        cut
    }

    /// Those of samples `range` of the clip that there are, to be mixed with the segment after.
    pub fn tail(&self, range: std::ops::Range<u64>) -> Self {
        let length = self.samples.len() / self.channels.max(1);
        let end = range.end.min(self.start + length as u64);
        Self {
            start: range.start,
            samples: self.cut(range.start..end.max(range.start), None),
            channels: self.channels,
        }
    }

    /// How much the sound after this one counts at a sample that this one has.
    fn share_of_next(&self, at: u64) -> Option<f32> {
        let length = self.samples.len() / self.channels.max(1);
        let place = at.checked_sub(self.start)?;
        (place < length as u64).then(|| (place as f32 + 0.5) / length as f32)
    }

    fn value(&self, at: u64, channel: usize) -> f32 {
        let place = at
            .checked_sub(self.start)
            .and_then(|it| usize::try_from(it).ok());
        let index = place.map(|place| place * self.channels + channel);
        index
            .and_then(|index| self.samples.get(index))
            .copied()
            .unwrap_or(0.0)
    }
}

fn audible(value: f32) -> f32 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(-1.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> AudioLayout {
        AudioLayout {
            channels: 2,
            bins: 3,
            mean: vec![0.5; 6],
            std: vec![2.0; 6],
            columns_per_latent: 4,
            source_rate: 16_000,
            hop: 160,
            sample_rate: 24_000,
            wave_channels: 2,
        }
    }

    /// What diffusers' `LTX2Pipeline` and `prepare_audio_coords` give.
    #[test]
    fn latents_follow_the_clip() {
        let layout = layout();
        for (frames, rate, tokens) in [(121, 24, 126), (9, 25, 9), (1, 240, 1), (3, 30, 2)] {
            assert_eq!(
                layout.tokens_for(frames, rate),
                tokens,
                "{frames} at {rate}"
            );
        }
        // 121 frames at 24 are 504.17 columns: 126 tokens are 501, 127 are 505.
        assert_eq!(layout.tokens_covering(121, 24), 127);
        assert_eq!(layout.samples_of(127), 505.0 * 240.0);
        for (frames, rate) in [(1, 240), (9, 25), (121, 24), (257, 30), (1025, 1)] {
            let tokens = layout.tokens_covering(frames, rate);
            let wanted = layout.sample_of(frames as u64, rate) as f64;
            let (have, less) = (layout.samples_of(tokens), layout.samples_of(tokens - 1));
            assert!(have + 1.0 >= wanted, "{frames} at {rate}");
            assert!(tokens == layout.tokens_for(frames, rate) || less < wanted);
        }
        let want = [0.0, 0.01, 0.01, 0.05, 0.05, 0.09];
        for (have, want) in layout.coordinates(3).iter().zip(want) {
            assert!((have - want).abs() < 1e-6, "{have} {want}");
        }
    }

    #[test]
    fn tokens_hold_all_channels_of_a_moment() {
        let latents: Vec<f32> = (0..12).map(|value| value as f32).collect();
        let packed = layout().pack(&latents);
        assert_eq!(packed[..6], [0., 1., 2., 6., 7., 8.]);
        let back = layout().unpack(&packed);
        let want: Vec<f32> = latents.iter().map(|value| value * 2.0 + 0.5).collect();
        assert_eq!(back, want);
    }

    #[test]
    fn samples_of_frames_add_up() {
        let layout = layout();
        let at = |frame| layout.sample_of(frame, 7);
        assert_eq!((at(0), at(1), at(7), at(700)), (0, 3429, 24_000, 2_400_000));
    }

    #[test]
    fn one_sound_goes_over_into_the_next() {
        let first = Sound::of_wave(&[1.0; 8], 2, 0).tail(2..4);
        let second = Sound::of_wave(&[0.0; 6], 2, 2);
        assert_eq!(second.cut(2..4, Some(&first)), [0.75, 0.75, 0.25, 0.25]);
        assert_eq!(second.cut(1..6, None), [0.0; 10]);
        // One that ends early is gone by its end, and not by that of the frame.
        let short = Sound::of_wave(&[1.0; 4], 1, 0).tail(2..6);
        let next = Sound::of_wave(&[0.0; 4], 1, 2);
        assert_eq!(next.cut(2..6, Some(&short)), [0.75, 0.25, 0.0, 0.0]);
        let ended = Sound::of_wave(&[1.0; 2], 1, 0).tail(2..6);
        assert!(ended.samples.is_empty());
        let loud = Sound::of_wave(&[f32::NAN, f32::INFINITY, -7.0, 0.5], 1, 0);
        assert_eq!(loud.cut(0..4, None), [0.0, 1.0, -1.0, 0.5]);
        let left_right = Sound::of_wave(&[0.5, 1.0, -0.5, -1.0], 2, 5);
        assert_eq!(left_right.cut(5..8, None), [0.5, -0.5, 1.0, -1.0, 0.0, 0.0]);
    }
}
