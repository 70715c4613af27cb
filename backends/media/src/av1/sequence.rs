//! The sequence header (AV1 bitstream specification, 5.5), as far as a clip's size and colours need it.

use crate::bits::Bits;
use crate::colour::ColourCode;
use crate::{Limits, MediaError};

/// `color_primaries`, `transfer_characteristics` and `matrix_coefficients` that together mean sRGB: 4:4:4 without a
/// matrix.
const SRGB: (u32, u32, u32) = (1, 13, 0);
/// `matrix_coefficients` where nothing is said.
const UNSPECIFIED: u16 = 2;
/// `seq_choose_screen_content_tools` leaves the choice to each frame.
const CHOSEN_PER_FRAME: u32 = 2;
/// Levels above 3.3 have a tier.
const UNTIERED_LEVEL_MAX: u32 = 7;

/// What the sequence header says of every picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SequenceHeader {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// None where the stream names no matrix and uses the limited range.
    pub(crate) colour: Option<ColourCode>,
}

impl SequenceHeader {
    /// Reads the payload of a sequence header unit.
    pub(super) fn read(payload: &[u8], limits: &Limits) -> Result<Self, MediaError> {
        let mut bits = Bits::new("the AV1 sequence header", payload);
        let profile = bits.bits(3)?;
        bits.skip(1)?; // still picture
        let reduced = bits.flag()?;
        if reduced {
            bits.skip(5)?; // level
        } else {
            skip_operating_points(&mut bits)?;
        }
        let (width_bits, height_bits) = (bits.bits(4)? + 1, bits.bits(4)? + 1);
        let (width, height) = (bits.bits(width_bits)? + 1, bits.bits(height_bits)? + 1);
        limits.check_size(width, height)?;
        skip_tools(&mut bits, reduced)?;
        Ok(Self {
            width,
            height,
            colour: colour_code(&mut bits, profile)?,
        })
    }
}

fn skip_operating_points(bits: &mut Bits<'_>) -> Result<(), MediaError> {
    let mut delay_bits = None;
    if bits.flag()? {
        bits.skip(64)?; // units of the display's clock
        if bits.flag()? {
            skip_variable_length(bits)?; // ticks per picture
        }
        if bits.flag()? {
            delay_bits = Some(bits.bits(5)? + 1);
            bits.skip(32 + 5 + 5)?; // units of the decoder's clock, lengths of its times
        }
    }
    let has_display_delay = bits.flag()?;
    for _ in 0..=bits.bits(5)? {
        bits.skip(12)?; // layers
        if bits.bits(5)? > UNTIERED_LEVEL_MAX {
            bits.skip(1)?; // tier
        }
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            bits.skip(2 * delay_bits + 1)?; // delays of the buffers, low delay
        }
        if has_display_delay && bits.flag()? {
            bits.skip(4)?;
        }
    }
    Ok(())
}

/// `uvlc()` (4.10.3).
fn skip_variable_length(bits: &mut Bits<'_>) -> Result<(), MediaError> {
    let mut zeros = 0;
    while !bits.flag()? {
        zeros += 1;
    }
    if zeros < 32 { bits.skip(zeros) } else { Ok(()) }
}

/// Coding tools, from the numbers of frames to loop restoration.
fn skip_tools(bits: &mut Bits<'_>, reduced: bool) -> Result<(), MediaError> {
    if !reduced && bits.flag()? {
        bits.skip(4 + 3)?; // lengths of frame numbers
    }
    bits.skip(3)?; // superblocks of 128 pixels, two filters of intra prediction
    if !reduced {
        bits.skip(4)?; // tools of inter prediction
        let has_order_hint = bits.flag()?;
        if has_order_hint {
            bits.skip(2)?; // tools that need it
        }
        let screen_content = if bits.flag()? {
            CHOSEN_PER_FRAME
        } else {
            bits.bits(1)?
        };
        if screen_content > 0 && !bits.flag()? {
            bits.skip(1)?; // whole-pixel motion
        }
        if has_order_hint {
            bits.skip(3)?;
        }
    }
    bits.skip(3) // super-resolution, CDEF, loop restoration
}

/// `color_config()` (5.5.2), up to the range.
fn colour_code(bits: &mut Bits<'_>, profile: u32) -> Result<Option<ColourCode>, MediaError> {
    let high_depth = bits.flag()?;
    if profile == 2 && high_depth {
        bits.skip(1)?; // 12 bits
    }
    let monochrome = profile != 1 && bits.flag()?;
    let named = if bits.flag()? {
        Some((bits.bits(8)?, bits.bits(8)?, bits.bits(8)?))
    } else {
        None
    };
    let full_range = (!monochrome && named == Some(SRGB)) || bits.flag()?;
    let matrix = named.map_or(UNSPECIFIED, |(_, _, matrix)| matrix as u16);
    let says_nothing = matrix == UNSPECIFIED && !full_range;
    Ok((!says_nothing).then_some(ColourCode { matrix, full_range }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits written as text: fields apart, as the specification lists them.
    fn packed(fields: &str) -> Vec<u8> {
        let bits: Vec<u8> = fields
            .bytes()
            .filter(|bit| matches!(bit, b'0' | b'1'))
            .map(|bit| bit - b'0')
            .collect();
        bits.chunks(8)
            .map(|bits| (0..8).fold(0, |byte, at| byte << 1 | bits.get(at).copied().unwrap_or(0)))
            .collect()
    }

    const SIZE_320_180: &str = "1000 0111 100111111 10110011";

    #[test]
    fn headers_with_everything_in_them_are_read() {
        let timing = format!("1 {:064b} 1 00101 1 00111 {:032b} 00000 00000", 1, 1);
        // Two points: one with a tier and delays of 8 bits, one of a low level without.
        let points = format!(
            "1 00001 {:012b} 01000 1 1 {:016b} 0 1 1001 {:012b} 00111 0 0",
            0, 7, 0
        );
        let tools = "1 0010 001 111 0000 1 11 0 1 0 1 110 111";
        let colour = "0 0 1 00000001 00000001 00001001 1";
        let text = format!("000 0 0 {timing} {points} {SIZE_320_180} {tools} {colour}");
        let header = SequenceHeader::read(&packed(&text), &Limits::default());
        let colour = Some(ColourCode {
            matrix: 9,
            full_range: true,
        });
        let want = SequenceHeader {
            width: 320,
            height: 180,
            colour,
        };
        assert_eq!(header.expect("a valid header"), want);
    }

    #[test]
    fn headers_of_still_pictures_are_read() {
        let text = format!("000 1 1 00000 {SIZE_320_180} 000 000 0 0 0 0");
        let header = SequenceHeader::read(&packed(&text), &Limits::default());
        assert_eq!(header.expect("a valid header").colour, None);
        let small = Limits {
            width_max: 319,
            ..Limits::default()
        };
        assert!(matches!(
            SequenceHeader::read(&packed(&text), &small),
            Err(MediaError::TooLarge { have: 320, .. })
        ));
    }

    #[test]
    fn cut_headers_are_corrupt() {
        let text = format!("000 1 1 00000 {SIZE_320_180} 000 000 0 0 0 0");
        let whole = packed(&text);
        for bytes in 0..whole.len() {
            assert!(matches!(
                SequenceHeader::read(&whole[..bytes], &Limits::default()),
                Err(MediaError::Corrupt { .. })
            ));
        }
    }
}
