//! Opus (RFC 6716) through ropus: a packet at a time, as the samples come.

use ropus::{Application, Bitrate, Channels, Encoder};

use crate::audio::{AudioSpec, ends_inside_sample, quantised};
use crate::{Codec, MediaError};

/// Milliseconds of sound in a packet.
pub(crate) const PACKET_MS: u64 = 20;
/// Ticks per second of the clock in which delay and padding are counted, at any sample rate (RFC 7845, 4).
pub(crate) const TICK_RATE: u64 = 48_000;
const PACKET_TICKS: u64 = TICK_RATE * PACKET_MS / 1000;
/// For each channel. Music in stereo is transparent to most ears at twice that.
const BITS_PER_SECOND: u32 = 64_000;
/// A packet of one frame: the byte that describes it and the longest frame (RFC 6716, 3.2.1).
const PACKET_BYTES_MAX: usize = 1276;
/// `Version` of the identification header (RFC 7845, 5.1).
const HEAD_VERSION: u8 = 1;
/// `Channel Mapping Family` of one stream in mono or stereo.
const MAPPING_FAMILY: u8 = 0;

/// Encodes interleaved samples; holds less than one packet of them.
pub(crate) struct OpusEncoder {
    spec: AudioSpec,
    encoder: Encoder,
    /// Samples that wait for the rest of their packet.
    pending: Vec<i16>,
    packets: u64,
}

/// What completes a stream.
pub(crate) struct OpusTail {
    /// None in a stream without samples.
    pub(crate) packets: Vec<Vec<u8>>,
    /// Ticks at the end of the last packet that are not to be heard.
    pub(crate) padding_ticks: u64,
}

impl OpusEncoder {
    pub(crate) fn new(spec: AudioSpec) -> Result<Self, MediaError> {
        spec.check_for(Codec::Opus)?;
        let channels = match spec.channels {
            1 => Channels::Mono,
            _ => Channels::Stereo,
        };
        let encoder = Encoder::builder(spec.sample_rate, channels, Application::Audio)
            .bitrate(Bitrate::Bits(BITS_PER_SECOND * u32::from(spec.channels)))
            .build()
            .map_err(encode_error)?;
        Ok(Self {
            spec,
            encoder,
            pending: Vec::new(),
            packets: 0,
        })
    }

    pub(crate) fn spec(&self) -> AudioSpec {
        self.spec
    }

    /// Samples of each channel that were given to it.
    pub(crate) fn samples(&self) -> u64 {
        let pending = self.pending.len() / usize::from(self.spec.channels);
        self.packets * PACKET_MS * u64::from(self.spec.sample_rate) / 1000 + pending as u64
    }

    /// Ticks by which what is decoded lags behind what was encoded.
    pub(crate) fn delay_ticks(&self) -> u64 {
        // ropus counts it in samples of the input.
        self.ticks(self.encoder.lookahead().into())
    }

    /// The identification header (RFC 7845, 5.1).
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = b"OpusHead".to_vec();
        head.push(HEAD_VERSION);
        head.push(self.spec.channels as u8);
        head.extend_from_slice(&(self.delay_ticks() as u16).to_le_bytes());
        head.extend_from_slice(&self.spec.sample_rate.to_le_bytes());
        // Neither louder nor softer.
        head.extend_from_slice(&0_i16.to_le_bytes());
        head.push(MAPPING_FAMILY);
        head
    }

    /// Encodes `samples`, −1 to 1, and hands each finished packet to `write`.
    pub(crate) fn push(
        &mut self,
        samples: &[f32],
        mut write: impl FnMut(Vec<u8>),
    ) -> Result<(), MediaError> {
        let packet_samples = self.packet_samples();
        let mut left = samples;
        while !left.is_empty() {
            let room = packet_samples - self.pending.len();
            let (now, later) = left.split_at(left.len().min(room));
            self.pending.extend(now.iter().copied().map(quantised));
            left = later;
            if self.pending.len() == packet_samples {
                write(self.encode_pending()?);
            }
        }
        Ok(())
    }

    /// Encodes what waits, and silence until the last sample has left the encoder.
    pub(crate) fn finish(mut self) -> Result<OpusTail, MediaError> {
        let channels = usize::from(self.spec.channels);
        if !self.pending.len().is_multiple_of(channels) {
            return Err(ends_inside_sample());
        }
        let mut packets = Vec::new();
        let samples = self.samples();
        if samples == 0 {
            return Ok(OpusTail {
                packets,
                padding_ticks: 0,
            });
        }
        let ticks = self.ticks(samples) + self.delay_ticks();
        let packets_all = ticks.div_ceil(PACKET_TICKS);
        while self.packets < packets_all {
            self.pending.resize(self.packet_samples(), 0);
            packets.push(self.encode_pending()?);
        }
        Ok(OpusTail {
            packets,
            padding_ticks: packets_all * PACKET_TICKS - ticks,
        })
    }

    /// Samples of all channels in a packet.
    fn packet_samples(&self) -> usize {
        let samples = u64::from(self.spec.sample_rate) * PACKET_MS / 1000;
        samples as usize * usize::from(self.spec.channels)
    }

    /// Exact, as the rates of Opus divide that of its clock.
    fn ticks(&self, samples: u64) -> u64 {
        samples * (TICK_RATE / u64::from(self.spec.sample_rate))
    }

    fn encode_pending(&mut self) -> Result<Vec<u8>, MediaError> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let bytes = self
            .encoder
            .encode(&self.pending, &mut packet)
            .map_err(encode_error)?;
        packet.truncate(bytes);
        packet.shrink_to_fit();
        self.pending.clear();
        self.packets += 1;
        Ok(packet)
    }
}

fn encode_error(cause: impl std::error::Error + Send + Sync + 'static) -> MediaError {
    MediaError::Encode {
        codec: Codec::Opus,
        cause: cause.into(),
    }
}
