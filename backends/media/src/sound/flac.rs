//! FLAC as containers describe it (RFC 9639).

use crate::MediaError;
use crate::bits::Bits;

/// Bytes of `STREAMINFO` (RFC 9639, 8.2).
pub(crate) const STREAM_INFO_BYTES: usize = 34;
/// Bytes of a frame's header up to its block size, at most.
pub(crate) const FRAME_HEADER_BYTES_MAX: usize = 4 + 7 + 2;
/// Type and size of a metadata block.
const BLOCK_HEADER_BYTES: usize = 4;
const STREAM_INFO_TYPE: u8 = 0;

/// `STREAMINFO`, and what it says.
#[derive(Debug, Clone)]
pub(crate) struct StreamInfo {
    pub(crate) bytes: [u8; STREAM_INFO_BYTES],
    pub(crate) sample_rate: u32,
    pub(crate) channels: u16,
    pub(crate) bits_per_sample: u16,
}

impl StreamInfo {
    /// Reads the block's content.
    pub(crate) fn read(content: &[u8]) -> Result<Self, MediaError> {
        let refused = |why| MediaError::corrupt("STREAMINFO", why);
        let &bytes = content
            .first_chunk::<STREAM_INFO_BYTES>()
            .ok_or(refused("is shorter than its fields"))?;
        let mut bits = Bits::new("STREAMINFO", &bytes);
        let (block_min, block_max) = (bits.bits(16)?, bits.bits(16)?);
        bits.skip(48)?; // frame sizes
        let info = Self {
            bytes,
            sample_rate: bits.bits(20)?,
            channels: bits.bits(3)? as u16 + 1,
            bits_per_sample: bits.bits(5)? as u16 + 1,
        };
        if block_min < 16 || block_max < block_min || info.sample_rate == 0 {
            return Err(refused("has impossible values"));
        }
        Ok(info)
    }
}

/// The first of a row of metadata blocks, which must be `STREAMINFO`.
pub(crate) fn stream_info(blocks: &[u8]) -> Result<StreamInfo, MediaError> {
    let refused = |why| MediaError::corrupt("STREAMINFO", why);
    let (header, rest) = blocks
        .split_first_chunk::<BLOCK_HEADER_BYTES>()
        .ok_or(refused("is missing"))?;
    let size = u32::from_be_bytes([0, header[1], header[2], header[3]]);
    if header[0] & 0x7f != STREAM_INFO_TYPE || size as usize != STREAM_INFO_BYTES {
        return Err(refused("is missing"));
    }
    StreamInfo::read(rest)
}

/// Samples of each channel in a frame, by its header (RFC 9639, 9.1).
pub(crate) fn frame_samples(frame: &[u8]) -> Option<u32> {
    let &[0xff, sync, sizes, _, ref rest @ ..] = frame else {
        return None;
    };
    if sync & 0xfe != 0xf8 {
        return None;
    }
    let number_bytes = match rest.first()?.leading_ones() {
        0 => 1,
        ones @ 2..=7 => ones as usize,
        _ => return None,
    };
    let behind = rest.get(number_bytes..)?;
    match sizes >> 4 {
        0 => None,
        1 => Some(192),
        code @ 2..=5 => Some(144 << code),
        6 => Some(u32::from(*behind.first()?) + 1),
        7 => Some(u32::from(u16::from_be_bytes(*behind.first_chunk()?)) + 1),
        code => Some(1 << code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_tell_their_length() {
        for (frame, samples) in [
            (&[0xff, 0xf8, 0xc9, 0, 5][..], Some(4096)),
            (&[0xff, 0xf8, 0x19, 0, 5], Some(192)),
            (&[0xff, 0xf8, 0x29, 0, 5], Some(576)),
            (&[0xff, 0xf9, 0x59, 0, 0xc2, 0x80], Some(4608)),
            (&[0xff, 0xf8, 0x69, 0, 5, 99], Some(100)),
            (&[0xff, 0xf8, 0x79, 0, 0xe0, 0x80, 0x80, 1, 0], Some(257)),
            (&[0xff, 0xf8, 0x79, 0, 5, 1], None),
            (&[0xff, 0xf8, 0x09, 0, 5], None),
            (&[0xff, 0xf0, 0xc9, 0, 5], None),
            (&[0xff, 0xf8, 0xc9, 0, 0x80], None),
            (&[0xff, 0xf8], None),
        ] {
            assert_eq!(frame_samples(frame), samples, "{frame:?}");
        }
    }
}
