//! What sound is, whichever codec writes it.

use crate::limits::{at_least, at_most};
use crate::{Codec, MediaError, Quantity, SoundTrack, Unsupported};

/// Channels, at most; as many as FLAC has an order for.
pub const AUDIO_CHANNELS_MAX: u16 = 8;
/// Samples per second, at most.
pub const AUDIO_SAMPLE_RATE_MAX: u32 = 192_000;
/// Channels of Opus, at most: with more, a mapping of several streams would be needed (RFC 7845, 5.1.1).
pub const OPUS_CHANNELS_MAX: u16 = 2;
/// Samples per second that Opus takes (RFC 6716, 2).
pub const OPUS_SAMPLE_RATES: [u32; 5] = [8000, 12_000, 16_000, 24_000, 48_000];
/// Hours of sound, at most.
const AUDIO_HOURS_MAX: u64 = 24;

/// What the samples of an audio track are. [`Output::takes_audio_spec`](crate::Output::takes_audio_spec) says whether
/// an output takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpec {
    /// Samples per second and channel: 1 to [`AUDIO_SAMPLE_RATE_MAX`] in FLAC, one of [`OPUS_SAMPLE_RATES`] in Opus.
    pub sample_rate: u32,
    /// Channels: 1 to [`AUDIO_CHANNELS_MAX`] in FLAC, to [`OPUS_CHANNELS_MAX`] in Opus. The first of two is the left
    /// one.
    pub channels: u16,
}

impl AudioSpec {
    /// Refuses what `codec` does not take.
    pub(crate) fn check_for(&self, codec: Codec) -> Result<(), MediaError> {
        let channels_max = match codec {
            Codec::Opus => {
                self.check_opus_rate()?;
                OPUS_CHANNELS_MAX
            }
            _ => {
                self.check_rate()?;
                AUDIO_CHANNELS_MAX
            }
        };
        let channels = self.channels.into();
        at_least(Quantity::AudioChannels, channels, 1)?;
        at_most(Quantity::AudioChannels, channels, channels_max.into())
    }

    /// Refuses a track of `samples` of each channel, if that is too long.
    pub(crate) fn check_samples(&self, samples: u64) -> Result<(), MediaError> {
        let samples_max = AUDIO_HOURS_MAX * 3600 * u64::from(self.sample_rate);
        at_most(Quantity::AudioSamples, samples, samples_max)
    }

    fn check_rate(&self) -> Result<(), MediaError> {
        let rate = self.sample_rate.into();
        at_least(Quantity::AudioSampleRate, rate, 1)?;
        let rate_max = AUDIO_SAMPLE_RATE_MAX.into();
        at_most(Quantity::AudioSampleRate, rate, rate_max)
    }

    fn check_opus_rate(&self) -> Result<(), MediaError> {
        if OPUS_SAMPLE_RATES.contains(&self.sample_rate) {
            Ok(())
        } else {
            let refused = Unsupported::OpusSampleRate(self.sample_rate);
            Err(MediaError::NotSupported(refused))
        }
    }
}

/// Where the audio track of a written clip comes from.
pub(crate) enum AudioSource {
    None,
    /// Samples that are pushed.
    Samples(AudioSpec),
    /// Packets of another clip.
    Copy(SoundTrack),
}

/// A 16-bit sample of one from −1 to 1; what is not a number is silence.
pub(crate) fn quantised(sample: f32) -> i16 {
    let scaled = f64::from(sample) * 32768.0;
    scaled.round().clamp(-32768.0, 32767.0) as i16
}

/// The error of a track with another number of samples in one channel than in the next.
pub(crate) fn ends_inside_sample() -> MediaError {
    MediaError::corrupt("the audio track", "ends inside a sample of all channels")
}

#[cfg(test)]
mod tests {
    use super::quantised;

    #[test]
    fn samples_are_clipped_and_rounded() {
        let cases = [
            (0.0, 0),
            (0.5, 16384),
            (1.0, 32767),
            (7.0, 32767),
            (-1.0, -32768),
            (-9.0, -32768),
            (f32::NAN, 0),
            (f32::INFINITY, 32767),
            (f32::NEG_INFINITY, -32768),
            (1.4 / 32768.0, 1),
            (-1.6 / 32768.0, -2),
        ];
        for (sample, want) in cases {
            assert_eq!(quantised(sample), want, "{sample}");
        }
    }
}
