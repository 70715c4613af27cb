//! Pictures from samples, through the oxideav-av1 decoder.

use std::panic::{AssertUnwindSafe, catch_unwind};

use oxideav_av1::decoder::{SpecDecodeSession, SpecFrame};

use super::obu::split_frame;
use super::sequence::SequenceHeader;
use crate::colour::{Chroma, Planes};
use crate::{Cause, Codec, MediaError, Unsupported};

/// Decodes the samples of one track, in order, each to its one picture.
pub(crate) struct Av1Decoder {
    session: SpecDecodeSession,
    size: (u32, u32),
}

impl Av1Decoder {
    /// `config_units` are those of `av1C`; they may be empty. Pictures of another size than `header` announces are
    /// refused before memory is taken for them.
    pub(crate) fn new(config_units: &[u8], header: &SequenceHeader) -> Result<Self, MediaError> {
        let mut session = SpecDecodeSession::new();
        session.set_max_picture_size(header.width.saturating_mul(header.height));
        let mut decoder = Self {
            session,
            size: (header.width, header.height),
        };
        if !config_units.is_empty() && decoder.decode_units(config_units, 0)?.is_some() {
            return Err(MediaError::corrupt("av1C", "holds a picture"));
        }
        Ok(decoder)
    }

    /// Decodes the picture in `sample`, number `index` of the track.
    pub(crate) fn decode(&mut self, sample: &[u8], index: u64) -> Result<Planes, MediaError> {
        match self.decode_units(sample, index)? {
            Some(frame) => self.planes(frame),
            None => Err(MediaError::corrupt("a sample", "does not hold a picture")),
        }
    }

    /// The picture in `units`, if there is one. Frames are decoded one by one, so that units of a few bytes that show
    /// the same frame thousands of times are refused at the second.
    fn decode_units(&mut self, units: &[u8], index: u64) -> Result<Option<SpecFrame>, MediaError> {
        let (mut left, mut shown) = (units, None);
        while !left.is_empty() {
            let (frame, rest) = split_frame(left);
            for made in self.decode_frame(frame, index)? {
                if shown.replace(made).is_some() {
                    return Err(MediaError::NotSupported(Unsupported::Av1Layers));
                }
            }
            left = rest;
        }
        Ok(shown)
    }

    /// What the units of one frame show: one picture at most.
    fn decode_frame(&mut self, units: &[u8], index: u64) -> Result<Vec<SpecFrame>, MediaError> {
        // The decoder means never to panic; a stream that finds a way shall end its clip, not the process.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            self.session.decode_temporal_unit(units)
        }));
        match decoded {
            Ok(Ok(frames)) => Ok(frames),
            Ok(Err(cause)) => Err(decode_error(index, cause)),
            Err(_) => Err(decode_error(index, "the decoder panicked")),
        }
    }

    fn planes(&self, frame: SpecFrame) -> Result<Planes, MediaError> {
        if (frame.width, frame.height) != self.size {
            return Err(MediaError::NotSupported(Unsupported::SizeChange));
        }
        let corrupt = || MediaError::corrupt("a picture", "does not have the size of its header");
        let chroma = match frame.plane_dims.get(1) {
            None => Chroma::Monochrome,
            Some(&(width, height)) => [Chroma::Cs420, Chroma::Cs422, Chroma::Cs444]
                .into_iter()
                .find(|chroma| {
                    chroma.size(frame.width, frame.height) == (width as usize, height as usize)
                })
                .ok_or_else(corrupt)?,
        };
        let mut planes = frame
            .planes
            .into_iter()
            .map(|plane| to_8_bits(plane, frame.bit_depth));
        let planes = Planes {
            width: frame.width,
            height: frame.height,
            chroma,
            y: planes.next().unwrap_or_default(),
            u: planes.next().unwrap_or_default(),
            v: planes.next().unwrap_or_default(),
        };
        if planes.is_consistent() {
            Ok(planes)
        } else {
            Err(corrupt())
        }
    }
}

/// Samples of more than 8 bits come as two bytes each, the low one first; they are rounded.
fn to_8_bits(plane: Vec<u8>, bit_depth: u8) -> Vec<u8> {
    let Some(excess @ 1..=8) = bit_depth.checked_sub(8) else {
        return plane;
    };
    let (samples, _) = plane.as_chunks::<2>();
    let half = 1_u32 << (excess - 1);
    samples
        .iter()
        .map(|&sample| {
            let rounded = (u32::from(u16::from_le_bytes(sample)) + half) >> excess;
            u8::try_from(rounded).unwrap_or(u8::MAX)
        })
        .collect()
}

fn decode_error(frame: u64, cause: impl Into<Cause>) -> MediaError {
    MediaError::Decode {
        codec: Codec::Av1,
        frame,
        cause: cause.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::to_8_bits;

    #[test]
    fn deep_samples_are_rounded() {
        let samples: Vec<u8> = [0_u16, 1, 2, 509, 510, 1023]
            .into_iter()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(to_8_bits(samples, 10), [0, 0, 1, 127, 128, 255]);
        assert_eq!(to_8_bits(vec![1, 2, 3], 8), [1, 2, 3]);
    }
}
