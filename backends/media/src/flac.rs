//! FLAC (RFC 9639), 16 bits, through flacenc: a block at a time, as the samples come.

use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, StreamInfo};
use flacenc::config::Encoder as Config;
use flacenc::error::{Verified, Verify};
use flacenc::source::{Context, Fill, FrameBuf};

use crate::audio::{AudioSpec, ends_inside_sample, quantised};
use crate::{Codec, MediaError};

/// Samples of each channel in a block.
const BLOCK_SAMPLES: usize = 4096;
const BITS_PER_SAMPLE: usize = 16;

/// A coded block.
pub(crate) struct AudioBlock {
    pub(crate) bytes: Vec<u8>,
    /// Samples of each channel.
    pub(crate) samples: u32,
}

/// Encodes interleaved samples; holds less than one block of them.
pub(crate) struct FlacEncoder {
    spec: AudioSpec,
    config: Verified<Config>,
    info: StreamInfo,
    /// Counts and sums up what was encoded.
    context: Context,
    block: FrameBuf,
    /// Samples that wait for the rest of their block.
    pending: Vec<i32>,
}

impl FlacEncoder {
    pub(crate) fn new(spec: AudioSpec) -> Result<Self, MediaError> {
        spec.check_for(Codec::Flac)?;
        let channels = usize::from(spec.channels);
        let mut config = Config::default();
        config.block_size = BLOCK_SAMPLES;
        config.multithread = false;
        let config = config.into_verified().map_err(|(_, e)| encode_error(e))?;
        let mut info = StreamInfo::new(spec.sample_rate as usize, channels, BITS_PER_SAMPLE)
            .map_err(encode_error)?;
        info.set_block_sizes(BLOCK_SAMPLES, BLOCK_SAMPLES)
            .map_err(encode_error)?;
        Ok(Self {
            spec,
            config,
            info,
            context: Context::new(BITS_PER_SAMPLE, channels),
            block: FrameBuf::with_size(channels, BLOCK_SAMPLES).map_err(encode_error)?,
            pending: Vec::new(),
        })
    }

    pub(crate) fn spec(&self) -> AudioSpec {
        self.spec
    }

    /// Samples of each channel that were given to it.
    pub(crate) fn samples(&self) -> u64 {
        (self.context.total_samples() + self.pending.len() / usize::from(self.spec.channels)) as u64
    }

    /// Encodes `samples`, −1 to 1, and hands each finished block to `write`.
    pub(crate) fn push(
        &mut self,
        samples: &[f32],
        mut write: impl FnMut(AudioBlock) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let block_samples = BLOCK_SAMPLES * usize::from(self.spec.channels);
        let mut left = samples;
        while !left.is_empty() {
            let room = block_samples - self.pending.len();
            let (now, later) = left.split_at(left.len().min(room));
            let quantised = now.iter().map(|&sample| i32::from(quantised(sample)));
            self.pending.extend(quantised);
            left = later;
            if self.pending.len() == block_samples {
                write(self.encode_pending()?)?;
            }
        }
        Ok(())
    }

    /// Encodes what waits; the last block, if there is one, and the description of the stream (`STREAMINFO`).
    pub(crate) fn finish(mut self) -> Result<(Option<AudioBlock>, Vec<u8>), MediaError> {
        let channels = usize::from(self.spec.channels);
        if !self.pending.len().is_multiple_of(channels) {
            return Err(ends_inside_sample());
        }
        let last = if self.pending.is_empty() {
            None
        } else {
            Some(self.encode_pending()?)
        };
        self.info.set_total_samples(self.context.total_samples());
        self.info.set_md5_digest(&self.context.md5_digest());
        let mut sink = ByteSink::new();
        self.info.write(&mut sink).map_err(encode_error)?;
        Ok((last, sink.into_inner()))
    }

    fn encode_pending(&mut self) -> Result<AudioBlock, MediaError> {
        self.block
            .fill_interleaved(&self.pending)
            .map_err(encode_error)?;
        self.context
            .fill_interleaved(&self.pending)
            .map_err(encode_error)?;
        let samples = (self.pending.len() / usize::from(self.spec.channels)) as u32;
        self.pending.clear();
        let number = self.context.current_frame_number().unwrap_or(0);
        let frame = flacenc::encode_fixed_size_frame(&self.config, &self.block, number, &self.info)
            .map_err(encode_error)?;
        let mut sink = ByteSink::with_capacity(frame.count_bits());
        frame.write(&mut sink).map_err(encode_error)?;
        Ok(AudioBlock {
            bytes: sink.into_inner(),
            samples,
        })
    }
}

/// The encoder's errors cannot leave their thread; their text can.
fn encode_error(cause: impl std::fmt::Display) -> MediaError {
    MediaError::Encode {
        codec: Codec::Flac,
        cause: cause.to_string().into(),
    }
}
