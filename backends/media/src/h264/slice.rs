//! The start of a slice header (H.264 7.3.3): enough to count pictures and to refuse what would not decode correctly.

use super::bits::BitReader;
use super::parameters::Parameters;
use crate::{MediaError, Unsupported};

/// What the first fields of a slice say.
pub(super) struct SliceStart {
    /// Whether the slice is the first of its picture.
    pub(super) begins_picture: bool,
}

impl SliceStart {
    /// Reads the slice's first fields (after the NAL unit header).
    pub(super) fn read(payload: &[u8], parameters: &Parameters) -> Result<Self, MediaError> {
        let mut bits = BitReader::new("a slice header", payload);
        let first_macroblock = bits.unsigned()?;
        let is_b_slice = bits.unsigned()? % 5 == 1;
        bits.unsigned()?; // pic_parameter_set_id
        bits.bits(parameters.frame_number_bits)?; // frame_num
        if !parameters.frames_only && bits.flag()? {
            return Err(MediaError::NotSupported(Unsupported::H264Interlaced));
        }
        if is_b_slice && parameters.picture_order_type == 1 {
            return Err(MediaError::NotSupported(Unsupported::H264PictureOrder));
        }
        // The decoder predicts from wrong neighbours where a slice begins inside a row.
        if !first_macroblock.is_multiple_of(parameters.width_macroblocks) {
            return Err(MediaError::NotSupported(Unsupported::H264SliceInsideRow));
        }
        Ok(Self {
            begins_picture: first_macroblock == 0,
        })
    }
}
