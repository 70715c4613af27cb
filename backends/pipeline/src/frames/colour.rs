//! Between luma, chroma and red, green, blue.
//!
//! Sources: Recommendations ITU-R BT.601-7, BT.709-6 and BT.2020-2 (non-constant luminance) for the
//! weights of red and blue, and for the limited range. Everything else follows from these.

use super::layout::{ColorMatrix, ColorRange};

/// Adding and taking away 1.5 · 2²³ rounds a small f32 to the nearest whole number, halves to even, in two
/// instructions that every vector unit has.
const ROUNDER: f32 = 12_582_912.0;

/// The nearest byte, halves to even; NaN becomes 0.
pub(crate) fn to_byte(value: f32) -> u8 {
    // The conversion makes 0 of NaN.
    ((value.clamp(0.0, 255.0) + ROUNDER) - ROUNDER) as u8
}

/// As [`to_byte`], with a sign.
pub(crate) fn to_signed_byte(value: f32) -> i8 {
    ((value.clamp(-128.0, 127.0) + ROUNDER) - ROUNDER) as i8
}

/// What red, green and blue count in luma.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    pub red: f32,
    pub green: f32,
    pub blue: f32,
}

fn red_and_blue(matrix: ColorMatrix) -> (f64, f64) {
    match matrix {
        ColorMatrix::Bt601 => (0.299, 0.114),
        ColorMatrix::Bt709 => (0.2126, 0.0722),
        ColorMatrix::Bt2020 => (0.2627, 0.0593),
    }
}

impl Weights {
    pub fn of(matrix: ColorMatrix) -> Self {
        let (red, blue) = red_and_blue(matrix);
        Self {
            red: red as f32,
            green: (1.0 - red - blue) as f32,
            blue: blue as f32,
        }
    }

    /// The luma of a pixel.
    pub fn luma(&self, [red, green, blue]: [f32; 3]) -> f32 {
        red * self.red + green * self.green + blue * self.blue
    }
}

/// How a luma, or a colour of bytes, becomes 0..=255: `(byte - black) * gain`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Levels {
    pub black: f32,
    pub gain: f32,
    /// The other way round.
    pub inverse: f32,
}

impl Levels {
    pub fn of(range: ColorRange) -> Self {
        let (black, white): (f64, f64) = match range {
            ColorRange::Limited => (16.0, 235.0),
            ColorRange::Full => (0.0, 255.0),
        };
        Self {
            black: black as f32,
            gain: (255.0 / (white - black)) as f32,
            inverse: ((white - black) / 255.0) as f32,
        }
    }

    pub fn decode(&self, byte: f32) -> f32 {
        (byte - self.black) * self.gain
    }

    pub fn encode(&self, value: f32) -> f32 {
        value * self.inverse + self.black
    }
}

/// What chroma adds to red, green and blue: `(byte - 128)` times these.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chroma {
    pub red_of_cr: f32,
    pub green_of_cb: f32,
    pub green_of_cr: f32,
    pub blue_of_cb: f32,
    /// From blue less luma to Cb, and from red less luma to Cr.
    pub cb_of_blue: f32,
    pub cr_of_red: f32,
}

impl Chroma {
    pub fn of(matrix: ColorMatrix, range: ColorRange) -> Self {
        let (red, blue) = red_and_blue(matrix);
        let green = 1.0 - red - blue;
        let gain = match range {
            ColorRange::Limited => 255.0 / 224.0,
            ColorRange::Full => 1.0,
        };
        Self {
            red_of_cr: (gain * 2.0 * (1.0 - red)) as f32,
            green_of_cb: (-gain * 2.0 * blue * (1.0 - blue) / green) as f32,
            green_of_cr: (-gain * 2.0 * red * (1.0 - red) / green) as f32,
            blue_of_cb: (gain * 2.0 * (1.0 - blue)) as f32,
            cb_of_blue: (1.0 / (gain * 2.0 * (1.0 - blue))) as f32,
            cr_of_red: (1.0 / (gain * 2.0 * (1.0 - red))) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_to_the_nearest_and_stay_in_range() {
        for byte in 0..=255u8 {
            assert_eq!(to_byte(f32::from(byte)), byte);
            let signed = byte as i8;
            assert_eq!(to_signed_byte(f32::from(signed)), signed);
        }
        for (value, want) in [
            (-3.0, 0),
            (0.5, 0),
            (1.5, 2),
            (254.51, 255),
            (f32::INFINITY, 255),
            (f32::NAN, 0),
            (f32::from_bits(0x7fc0_00ff), 0),
        ] {
            assert_eq!(to_byte(value), want, "{value}");
        }
        for bits in [0x7fc0_00ff, 0xffc0_0080] {
            assert_eq!(to_signed_byte(f32::from_bits(bits)), 0);
        }
        assert_eq!(to_signed_byte(-1000.0), -128);
        assert_eq!(to_signed_byte(126.6), 127);
    }

    #[test]
    fn the_primaries_have_the_values_that_the_recommendations_give() {
        // Full red, green and blue of BT.601 and BT.709 in the limited range, as video test charts
        // print them (luma, Cb, Cr).
        for (matrix, rgb, want) in [
            (ColorMatrix::Bt601, [255., 0., 0.], [81, 90, 240]),
            (ColorMatrix::Bt601, [0., 255., 0.], [145, 54, 34]),
            (ColorMatrix::Bt601, [0., 0., 255.], [41, 240, 110]),
            (ColorMatrix::Bt709, [255., 0., 0.], [63, 102, 240]),
            (ColorMatrix::Bt709, [0., 255., 0.], [173, 42, 26]),
            (ColorMatrix::Bt709, [0., 0., 255.], [32, 240, 118]),
            (ColorMatrix::Bt2020, [255., 255., 255.], [235, 128, 128]),
        ] {
            let range = ColorRange::Limited;
            let chroma = Chroma::of(matrix, range);
            let luma = Weights::of(matrix).luma(rgb);
            let have = [
                to_byte(Levels::of(range).encode(luma)),
                to_byte(128.0 + (rgb[2] - luma) * chroma.cb_of_blue),
                to_byte(128.0 + (rgb[0] - luma) * chroma.cr_of_red),
            ];
            assert_eq!(have, want, "{matrix:?} {rgb:?}");
        }
    }
}
