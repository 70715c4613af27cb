//! Sequence and picture parameter sets (H.264 7.3.2.1, 7.3.2.2 and E.1.1), as far as they decide whether and how a
//! stream is decoded.

use super::bits::BitReader;
use crate::colour::ColourCode;
use crate::{Limits, MediaError, Rational, Unsupported};

const WHAT: &str = "a sequence parameter set";
const MACROBLOCK_PIXELS: u64 = 16;
/// Pixels of a row or column that only fill its last macroblock (of each field).
const FILLING_PIXELS_MAX: u64 = 31;
/// Largest decoded picture buffer (A.3.1).
const REFERENCE_FRAMES_MAX: u32 = 16;
/// Of `log2_max_frame_num_minus4` and `log2_max_pic_order_cnt_lsb_minus4` (7.4.2.1.1).
const LOG2_MINUS4_MAX: u32 = 12;

/// What a sequence parameter set says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) profile_idc: u8,
    /// Width after cropping, in pixels.
    pub(crate) width: u32,
    /// Height after cropping, in pixels.
    pub(crate) height: u32,
    /// Width before cropping, in macroblocks; at least 1.
    pub(super) width_macroblocks: u32,
    /// Whether pictures are always frames; otherwise each slice says whether it is of a field.
    pub(super) frames_only: bool,
    /// Bits of `frame_num` in a slice header.
    pub(super) frame_number_bits: u32,
    /// `pic_order_cnt_type`.
    pub(super) picture_order_type: u32,
    /// None where neither matrix nor range is said.
    pub(crate) colour: Option<ColourCode>,
    pub(crate) pixel_aspect: Option<Rational>,
}

impl Parameters {
    /// Reads a sequence parameter set (without the NAL unit header) and refuses streams that would not decode
    /// correctly.
    pub(super) fn read(payload: &[u8], limits: &Limits) -> Result<Self, MediaError> {
        let mut bits = BitReader::new(WHAT, payload);
        let profile_idc = bits.u8()?;
        bits.bits(16)?; // constraint_set flags, level_idc
        bits.unsigned()?; // seq_parameter_set_id
        if !matches!(profile_idc, 66 | 77 | 100) {
            return Err(MediaError::NotSupported(Unsupported::H264Profile(
                profile_idc,
            )));
        }
        if profile_idc == 100 {
            read_high_profile_fields(&mut bits)?;
        }
        let frame_number_bits = read_log2(&mut bits)?;
        let picture_order_type = read_picture_order(&mut bits)?;
        if bits.unsigned()? > REFERENCE_FRAMES_MAX {
            return Err(MediaError::corrupt(
                WHAT,
                "asks for more than 16 reference frames",
            ));
        }
        bits.flag()?; // gaps_in_frame_num_value_allowed_flag
        let width_macroblocks = bits.unsigned()?.saturating_add(1);
        let height_map_units = u64::from(bits.unsigned()?) + 1;
        let frames_only = bits.flag()?;
        if !frames_only && bits.flag()? {
            return Err(MediaError::NotSupported(Unsupported::H264Interlaced)); // adaptive per macroblock
        }
        let fields_per_unit = if frames_only { 1 } else { 2 };
        bits.flag()?; // direct_8x8_inference_flag
        let (crop_width, crop_height) = if bits.flag()? {
            read_crop(&mut bits, fields_per_unit)?
        } else {
            (0, 0)
        };
        let width = u64::from(width_macroblocks) * MACROBLOCK_PIXELS;
        let height = height_map_units * fields_per_unit * MACROBLOCK_PIXELS;
        let side =
            |pixels: u64, crop: u64| u32::try_from(pixels.saturating_sub(crop)).unwrap_or(u32::MAX);
        // What is decoded counts, not what is left of it, but for the filling of the last macroblocks.
        let decoded = |pixels: u64, crop: u64| side(pixels, crop.min(FILLING_PIXELS_MAX));
        limits.check_size(decoded(width, crop_width), decoded(height, crop_height))?;
        let (width, height) = (side(width, crop_width), side(height, crop_height));
        limits.check_size(width, height)?;
        let (pixel_aspect, colour) = if bits.flag()? {
            read_usability(&mut bits)?
        } else {
            (None, None)
        };
        Ok(Self {
            profile_idc,
            width,
            height,
            width_macroblocks,
            frames_only,
            frame_number_bits,
            picture_order_type,
            colour,
            pixel_aspect,
        })
    }
}

fn read_log2(bits: &mut BitReader<'_>) -> Result<u32, MediaError> {
    let minus4 = bits.unsigned()?;
    if minus4 > LOG2_MINUS4_MAX {
        return Err(MediaError::corrupt(
            WHAT,
            "has counters of more than 16 bits",
        ));
    }
    Ok(minus4 + 4)
}

fn read_high_profile_fields(bits: &mut BitReader<'_>) -> Result<(), MediaError> {
    let chroma_format_idc = bits.unsigned()?;
    if chroma_format_idc != 1 {
        let code = u8::try_from(chroma_format_idc).unwrap_or(u8::MAX);
        return Err(MediaError::NotSupported(Unsupported::H264ChromaFormat(
            code,
        )));
    }
    for _ in ["luma", "chroma"] {
        let above_8 = bits.unsigned()?;
        if above_8 != 0 {
            let depth = u8::try_from(above_8.saturating_add(8)).unwrap_or(u8::MAX);
            return Err(MediaError::NotSupported(Unsupported::H264BitDepth(depth)));
        }
    }
    bits.flag()?; // qpprime_y_zero_transform_bypass_flag
    if bits.flag()? {
        for list in 0..8 {
            if bits.flag()? {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Ok(())
}

/// 7.3.2.1.1.1.
fn skip_scaling_list(bits: &mut BitReader<'_>, entries: u32) -> Result<(), MediaError> {
    let mut last = 8;
    for _ in 0..entries {
        let next = (i64::from(last) + i64::from(bits.signed()?)).rem_euclid(256) as i32;
        if next == 0 {
            break;
        }
        last = next;
    }
    Ok(())
}

fn read_picture_order(bits: &mut BitReader<'_>) -> Result<u32, MediaError> {
    let kind = bits.unsigned()?;
    match kind {
        0 => {
            read_log2(bits)?;
        }
        1 => {
            bits.flag()?; // delta_pic_order_always_zero_flag
            bits.signed()?; // offset_for_non_ref_pic
            bits.signed()?; // offset_for_top_to_bottom_field
            let cycle = bits.unsigned()?;
            if cycle > 255 {
                return Err(MediaError::corrupt(
                    WHAT,
                    "has a picture order cycle above 255",
                ));
            }
            for _ in 0..cycle {
                bits.signed()?;
            }
        }
        2 => {}
        _ => {
            return Err(MediaError::corrupt(
                WHAT,
                "has an unknown picture order count type",
            ));
        }
    }
    Ok(kind)
}

/// Pixels cut off the width and the height; a crop unit is 2 × 2 pixels of a field or frame in 4:2:0.
fn read_crop(bits: &mut BitReader<'_>, fields_per_unit: u64) -> Result<(u64, u64), MediaError> {
    let mut margin = || bits.unsigned().map(|units| u64::from(units) * 2);
    let (left, right, top, bottom) = (margin()?, margin()?, margin()?, margin()?);
    Ok((left + right, (top + bottom) * fields_per_unit))
}

/// Pixel aspect ratio and colour from the video usability information, which begins with them.
fn read_usability(
    bits: &mut BitReader<'_>,
) -> Result<(Option<Rational>, Option<ColourCode>), MediaError> {
    let pixel_aspect = if bits.flag()? {
        read_pixel_aspect(bits)?
    } else {
        None
    };
    if bits.flag()? {
        bits.flag()?; // overscan_appropriate_flag
    }
    if !bits.flag()? {
        return Ok((pixel_aspect, None));
    }
    bits.bits(3)?; // video_format
    let full_range = bits.flag()?;
    let matrix = if bits.flag()? {
        bits.bits(16)?; // colour_primaries, transfer_characteristics
        u16::from(bits.u8()?)
    } else {
        2
    };
    Ok((pixel_aspect, Some(ColourCode { matrix, full_range })))
}

/// Table E-1.
fn read_pixel_aspect(bits: &mut BitReader<'_>) -> Result<Option<Rational>, MediaError> {
    const TABLE: [(u64, u64); 17] = [
        (0, 0),
        (1, 1),
        (12, 11),
        (10, 11),
        (16, 11),
        (40, 33),
        (24, 11),
        (20, 11),
        (32, 11),
        (80, 33),
        (18, 11),
        (15, 11),
        (64, 33),
        (160, 99),
        (4, 3),
        (3, 2),
        (2, 1),
    ];
    const EXTENDED: u8 = 255;
    let (width, height) = match bits.u8()? {
        EXTENDED => (bits.bits(16)?.into(), bits.bits(16)?.into()),
        code => TABLE.get(usize::from(code)).copied().unwrap_or((0, 0)),
    };
    Ok(Rational::new(width, height))
}

/// Refuses picture parameter sets (without the NAL unit header) with slice groups or constrained intra prediction.
pub(super) fn check_picture_parameters(payload: &[u8]) -> Result<(), MediaError> {
    let mut bits = BitReader::new("a picture parameter set", payload);
    bits.unsigned()?; // pic_parameter_set_id
    bits.unsigned()?; // seq_parameter_set_id
    bits.bits(2)?; // entropy_coding_mode_flag, bottom_field_pic_order_in_frame_present_flag
    if bits.unsigned()? != 0 {
        return Err(MediaError::NotSupported(Unsupported::H264SliceGroups));
    }
    bits.unsigned()?; // num_ref_idx_l0_default_active_minus1
    bits.unsigned()?; // num_ref_idx_l1_default_active_minus1
    bits.bits(3)?; // weighted_pred_flag, weighted_bipred_idc
    bits.signed()?; // pic_init_qp_minus26
    bits.signed()?; // pic_init_qs_minus26
    bits.signed()?; // chroma_qp_index_offset
    bits.flag()?; // deblocking_filter_control_present_flag
    if bits.flag()? {
        return Err(MediaError::NotSupported(Unsupported::H264ConstrainedIntra));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Quantity;

    /// Writes the fields of a parameter set.
    #[derive(Default)]
    struct BitWriter {
        bits: Vec<bool>,
    }

    impl BitWriter {
        fn bits(&mut self, value: u32, count: u32) -> &mut Self {
            self.bits
                .extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        fn unsigned(&mut self, value: u32) -> &mut Self {
            let code = u64::from(value) + 1;
            let length = code.ilog2();
            self.bits.extend((0..length).map(|_| false));
            self.bits
                .extend((0..=length).rev().map(|bit| code >> bit & 1 == 1));
            self
        }

        fn bytes(&self) -> Vec<u8> {
            self.bits
                .chunks(8)
                .map(|bits| {
                    bits.iter()
                        .enumerate()
                        .fold(0, |byte, (at, &bit)| byte | u8::from(bit) << (7 - at))
                })
                .collect()
        }
    }

    /// A Main profile set for pictures of this many macroblocks, cropped on the right by so many pixels.
    fn set_for(width: u32, height: u32, references: u32, crop: u32) -> Vec<u8> {
        let mut writer = BitWriter::default();
        writer
            .bits(77, 8)
            .bits(40, 16)
            .unsigned(0)
            .unsigned(0)
            .unsigned(2)
            .unsigned(references)
            .bits(0, 1);
        writer
            .unsigned(width - 1)
            .unsigned(height - 1)
            .bits(0b11, 2);
        writer
            .bits(1, 1)
            .unsigned(0)
            .unsigned(crop / 2)
            .unsigned(0)
            .unsigned(0);
        writer.bits(0, 1).bits(1, 1);
        writer.bytes()
    }

    #[test]
    fn size_is_that_of_the_cropped_picture() {
        let set =
            Parameters::read(&set_for(120, 68, 4, 10), &Limits::default()).expect("a valid set");
        assert_eq!(
            (set.width, set.height, set.width_macroblocks),
            (1910, 1088, 120)
        );
        assert_eq!(
            (set.profile_idc, set.picture_order_type, set.frames_only),
            (77, 2, true)
        );
    }

    #[test]
    fn sides_of_millions_of_pixels_are_refused() {
        for (width, height, what) in [
            (100_000, 1, Quantity::Width),
            (1, 4_000_000_000, Quantity::Height),
        ] {
            let refused = Parameters::read(&set_for(width, height, 1, 0), &Limits::default());
            assert!(
                matches!(refused, Err(MediaError::TooLarge { what: have, .. }) if have == what)
            );
        }
    }

    #[test]
    fn cropping_does_not_hide_a_large_picture() {
        let refused =
            Parameters::read(&set_for(60_000, 1, 1, 60_000 * 16 - 64), &Limits::default());
        assert!(matches!(
            refused,
            Err(MediaError::TooLarge {
                what: Quantity::Width,
                ..
            })
        ));
    }

    #[test]
    fn more_than_16_reference_frames_are_refused() {
        assert!(Parameters::read(&set_for(8, 8, 16, 0), &Limits::default()).is_ok());
        let refused = Parameters::read(&set_for(8, 8, 17, 0), &Limits::default());
        assert!(matches!(refused, Err(MediaError::Corrupt { .. })));
    }

    #[test]
    fn every_cut_of_a_set_is_refused() {
        let set = set_for(120, 68, 4, 10);
        for length in 0..set.len() - 1 {
            assert!(
                Parameters::read(&set[..length], &Limits::default()).is_err(),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn constrained_intra_prediction_is_refused() {
        let set = |groups: u32, constrained: u32| {
            let mut writer = BitWriter::default();
            writer
                .unsigned(0)
                .unsigned(0)
                .bits(2, 2)
                .unsigned(groups)
                .unsigned(0)
                .unsigned(0);
            writer
                .bits(0, 3)
                .unsigned(0)
                .unsigned(0)
                .unsigned(0)
                .bits(1, 1)
                .bits(constrained, 1);
            check_picture_parameters(&writer.bytes())
        };
        assert!(set(0, 0).is_ok());
        let refused = |result| match result {
            Err(MediaError::NotSupported(feature)) => Some(feature),
            _ => None,
        };
        assert_eq!(refused(set(0, 1)), Some(Unsupported::H264ConstrainedIntra));
        assert_eq!(refused(set(1, 0)), Some(Unsupported::H264SliceGroups));
    }
}
