//! Pictures from samples, through the rusty_h264 decoder.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rusty_h264_decoder::Decoder;

use super::nal::{DecoderConfig, Nal, NalUnits};
use super::parameters::{Parameters, check_picture_parameters};
use super::slice::SliceStart;
use crate::colour::{Chroma, Planes};
use crate::{Cause, Codec, Limits, MediaError, Unsupported};

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// Decodes the samples of one track, in decoding order, each to its own picture. Display order is the container's
/// business.
pub(crate) struct H264Decoder {
    decoder: Decoder,
    parameters: Parameters,
    limits: Limits,
    length_bytes: usize,
    /// NAL units for the next call, each behind a start code (H.264 annex B).
    pending: Vec<u8>,
}

impl H264Decoder {
    /// `decoder_config` is the payload of `avcC`.
    pub(crate) fn new(decoder_config: &[u8], limits: &Limits) -> Result<Self, MediaError> {
        let config = DecoderConfig::read(decoder_config)?;
        let mut parameters = None;
        let mut pending = Vec::new();
        for unit in config.units {
            match Nal::of(unit) {
                Nal::SequenceParameters(payload) => {
                    let read = Parameters::read(payload, limits)?;
                    check_same_size(parameters.get_or_insert(read.clone()), &read)?;
                }
                Nal::PictureParameters(payload) => check_picture_parameters(payload)?,
                _ => continue,
            }
            append_unit(&mut pending, unit);
        }
        let parameters =
            parameters.ok_or(MediaError::corrupt("avcC", "has no sequence parameter set"))?;
        Ok(Self {
            decoder: Decoder::new(),
            parameters,
            limits: limits.clone(),
            length_bytes: config.length_bytes,
            pending,
        })
    }

    /// What the first sequence parameter set says.
    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Decodes the picture in `sample`, number `index` of the track.
    pub(crate) fn decode(&mut self, sample: &[u8], index: u64) -> Result<Planes, MediaError> {
        let mut pictures = 0;
        for unit in NalUnits::of(sample, self.length_bytes) {
            let unit = unit?;
            match Nal::of(unit) {
                Nal::Slice(payload) => {
                    let slice = SliceStart::read(payload, &self.parameters)?;
                    pictures += u32::from(slice.begins_picture);
                }
                Nal::SequenceParameters(payload) => {
                    let read = Parameters::read(payload, &self.limits)?;
                    check_same_size(&self.parameters, &read)?;
                    self.parameters = read;
                }
                Nal::PictureParameters(payload) => check_picture_parameters(payload)?,
                Nal::DataPartition => {
                    return Err(MediaError::NotSupported(Unsupported::H264DataPartitions));
                }
                Nal::Other => continue,
            }
            append_unit(&mut self.pending, unit);
        }
        if pictures != 1 {
            return Err(MediaError::corrupt(
                "a sample",
                "does not hold exactly one picture",
            ));
        }
        // The decoder means never to panic; a stream that finds a way shall end its clip, not the process.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decoder.decode(&self.pending)));
        self.pending.clear();
        let picture = match decoded {
            Ok(Ok(Some(picture))) => picture,
            Ok(Ok(None)) => {
                return Err(MediaError::corrupt(
                    "a sample",
                    "does not complete its picture",
                ));
            }
            Ok(Err(cause)) => return Err(decode_error(index, cause)),
            Err(_) => return Err(decode_error(index, "the decoder panicked")),
        };
        let planes = Planes {
            width: u32::try_from(picture.width).unwrap_or(u32::MAX),
            height: u32::try_from(picture.height).unwrap_or(u32::MAX),
            chroma: Chroma::Cs420,
            y: picture.y,
            u: picture.u,
            v: picture.v,
        };
        self.check_planes(&planes)?;
        Ok(planes)
    }

    fn check_planes(&self, planes: &Planes) -> Result<(), MediaError> {
        let size = (self.parameters.width, self.parameters.height);
        if (planes.width, planes.height) == size && planes.is_consistent() {
            Ok(())
        } else {
            Err(MediaError::corrupt(
                "a picture",
                "does not have the size of its parameter set",
            ))
        }
    }
}

fn append_unit(stream: &mut Vec<u8>, unit: &[u8]) {
    stream.extend_from_slice(&START_CODE);
    stream.extend_from_slice(unit);
}

fn check_same_size(first: &Parameters, other: &Parameters) -> Result<(), MediaError> {
    if (first.width, first.height) == (other.width, other.height) {
        Ok(())
    } else {
        Err(MediaError::NotSupported(Unsupported::SizeChange))
    }
}

fn decode_error(frame: u64, cause: impl Into<Cause>) -> MediaError {
    MediaError::Decode {
        codec: Codec::H264,
        frame,
        cause: cause.into(),
    }
}
