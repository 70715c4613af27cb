//! NAL units as MP4 stores them: each behind its length (ISO/IEC 14496-15, 5).

use crate::MediaError;

/// A NAL unit, by `nal_unit_type` (H.264 table 7-1).
pub(super) enum Nal<'a> {
    Slice(&'a [u8]),
    DataPartition,
    SequenceParameters(&'a [u8]),
    PictureParameters(&'a [u8]),
    /// Delimiters, supplemental information, and layers above the base layer, which decodes without them.
    Other,
}

impl<'a> Nal<'a> {
    pub(super) fn of(unit: &'a [u8]) -> Self {
        match unit.split_first() {
            Some((header, payload)) => match header & 0x1f {
                1 | 5 => Self::Slice(payload),
                2..=4 => Self::DataPartition,
                7 => Self::SequenceParameters(payload),
                8 => Self::PictureParameters(payload),
                _ => Self::Other,
            },
            None => Self::Other,
        }
    }
}

/// The NAL units of a sample, each behind a big-endian length of `length_bytes` (1 to 4) bytes.
pub(super) struct NalUnits<'a> {
    rest: &'a [u8],
    length_bytes: usize,
}

impl<'a> NalUnits<'a> {
    pub(super) fn of(sample: &'a [u8], length_bytes: usize) -> Self {
        Self {
            rest: sample,
            length_bytes,
        }
    }

    fn split_first(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_at_checked(self.length_bytes)?;
        let length = length
            .iter()
            .fold(0_usize, |value, &byte| value << 8 | usize::from(byte));
        let (unit, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(unit)
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = Result<&'a [u8], MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let unit = self.split_first();
        if unit.is_none() {
            self.rest = &[];
        }
        Some(unit.ok_or(MediaError::corrupt(
            "a sample",
            "is shorter than its NAL units",
        )))
    }
}

/// `avcC`: the width of lengths, and the parameter sets.
pub(super) struct DecoderConfig<'a> {
    pub(super) length_bytes: usize,
    pub(super) units: Vec<&'a [u8]>,
}

impl<'a> DecoderConfig<'a> {
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, MediaError> {
        Self::fields(payload).ok_or(MediaError::corrupt("avcC", "is shorter than its fields"))
    }

    fn fields(payload: &'a [u8]) -> Option<Self> {
        // Version, profile, compatibility and level come first; the sets themselves repeat them.
        let (&[_, _, _, _, lengths, sequence_sets], mut rest) = payload.split_first_chunk()?;
        let mut units = Vec::new();
        for _ in 0..sequence_sets & 0x1f {
            units.push(split_unit(&mut rest)?);
        }
        let (&picture_sets, after) = rest.split_first()?;
        rest = after;
        for _ in 0..picture_sets {
            units.push(split_unit(&mut rest)?);
        }
        Some(Self {
            length_bytes: usize::from(lengths & 3) + 1,
            units,
        })
    }
}

fn split_unit<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (unit, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
    *rest = after;
    Some(unit)
}
