//! 8-bit YUV to RGB and back (ITU-T H.273, 8.3).
//!
//! Chroma is repeated, not interpolated, on the way to RGB, and averaged over 2 × 2 pixels on the way back: a frame that
//! passes through unchanged keeps its chroma.

use crate::frame::rgb_bytes;
use crate::{Frame, MediaError, Unsupported};

/// Fraction bits of the conversion's coefficients.
const FRACTION_BITS: u32 = 16;
/// Pictures higher than this are taken for high definition (BT.709) when nothing says otherwise, lower ones for BT.601.
const STANDARD_DEFINITION_HEIGHT_MAX: u32 = 576;
/// Red and blue weights of BT.709 luma.
const BT709: (f64, f64) = (0.2126, 0.0722);
/// Red and blue weights of BT.601 luma.
const BT601: (f64, f64) = (0.299, 0.114);

/// What a stream or container says of its YUV samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColourCode {
    /// `MatrixCoefficients` of H.273.
    pub(crate) matrix: u16,
    /// Whether samples use all of 0 to 255; otherwise 16 to 235 and 16 to 240.
    pub(crate) full_range: bool,
}

/// How much smaller than luma the two chroma planes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chroma {
    /// There are none.
    Monochrome,
    /// Half as wide and high, rounded up.
    Cs420,
    /// Half as wide, rounded up.
    Cs422,
    /// Of the same size.
    Cs444,
}

impl Chroma {
    /// Width and height of each chroma plane of a picture; 0 where there are none.
    pub(crate) fn size(self, width: u32, height: u32) -> (usize, usize) {
        let (width, height) = match self {
            Self::Monochrome => (0, 0),
            Self::Cs420 => (width.div_ceil(2), height.div_ceil(2)),
            Self::Cs422 => (width.div_ceil(2), height),
            Self::Cs444 => (width, height),
        };
        (width as usize, height as usize)
    }

    /// Bytes of a picture of 8-bit samples, all planes together.
    pub(crate) fn picture_bytes(self, width: u32, height: u32) -> usize {
        let (chroma_width, chroma_height) = self.size(width, height);
        width as usize * height as usize + 2 * chroma_width * chroma_height
    }
}

/// One picture without padding.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Planes {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) chroma: Chroma,
    pub(crate) y: Vec<u8>,
    pub(crate) u: Vec<u8>,
    pub(crate) v: Vec<u8>,
}

impl Planes {
    /// A 4:2:0 picture of no size, to be filled.
    pub(crate) fn empty() -> Self {
        Self {
            width: 0,
            height: 0,
            chroma: Chroma::Cs420,
            y: Vec::new(),
            u: Vec::new(),
            v: Vec::new(),
        }
    }

    /// Whether the planes have the lengths that the size asks for.
    pub(crate) fn is_consistent(&self) -> bool {
        let (width, height) = self.chroma.size(self.width, self.height);
        let luma = self.width as usize * self.height as usize;
        (self.y.len(), self.u.len(), self.v.len()) == (luma, width * height, width * height)
    }
}

fn fixed(coefficient: f64) -> i32 {
    (coefficient * f64::from(1 << FRACTION_BITS)).round() as i32
}

/// Drops the fraction, rounding to nearest.
fn to_sample(value: i32) -> u8 {
    ((value + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS).clamp(0, 255) as u8
}

/// A conversion from YUV to RGB.
#[derive(Debug, Clone)]
pub(crate) struct YuvToRgb {
    luma_black: i32,
    luma_gain: i32,
    red_from_v: i32,
    green_from_u: i32,
    green_from_v: i32,
    blue_from_u: i32,
}

impl YuvToRgb {
    /// The conversion for `code`, or for what pictures of this height usually are.
    pub(crate) fn new(code: Option<ColourCode>, height: u32) -> Result<Self, MediaError> {
        let full_range = code.is_some_and(|code| code.full_range);
        let (kr, kb) = match code.map_or(2, |code| code.matrix) {
            1 => BT709,
            2 if height > STANDARD_DEFINITION_HEIGHT_MAX => BT709,
            2 | 5 | 6 => BT601,
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            9 => (0.2627, 0.0593),
            other => return Err(MediaError::NotSupported(Unsupported::ColourMatrix(other))),
        };
        let kg = 1.0 - kr - kb;
        let (luma_black, luma_scale, chroma_scale) = if full_range {
            (0, 1.0, 1.0)
        } else {
            (16, 255.0 / 219.0, 255.0 / 224.0)
        };
        Ok(Self {
            luma_black,
            luma_gain: fixed(luma_scale),
            red_from_v: fixed(2.0 * (1.0 - kr) * chroma_scale),
            green_from_u: fixed(2.0 * (1.0 - kb) * kb / kg * chroma_scale),
            green_from_v: fixed(2.0 * (1.0 - kr) * kr / kg * chroma_scale),
            blue_from_u: fixed(2.0 * (1.0 - kb) * chroma_scale),
        })
    }

    /// Converts `planes`, which must be consistent and not empty.
    pub(crate) fn convert(&self, planes: &Planes) -> Frame {
        let width = planes.width as usize;
        let (chroma_width, _) = planes.chroma.size(planes.width, planes.height);
        // Pixels of a row, and rows, that share a chroma sample.
        let (across, down) = match planes.chroma {
            Chroma::Monochrome => (0, 0),
            Chroma::Cs420 => (2, 2),
            Chroma::Cs422 => (2, 1),
            Chroma::Cs444 => (1, 1),
        };
        let mut rgb = vec![0; rgb_bytes(planes.width, planes.height)];
        let rows = rgb
            .chunks_exact_mut(width * 3)
            .zip(planes.y.chunks_exact(width));
        for (row, (rgb_row, y_row)) in rows.enumerate() {
            if planes.chroma == Chroma::Monochrome {
                self.convert_run(rgb_row, y_row, (128, 128));
                continue;
            }
            let chroma = row / down * chroma_width..(row / down + 1) * chroma_width;
            let chroma_row = planes.u[chroma.clone()].iter().zip(&planes.v[chroma]);
            let runs = rgb_row.chunks_mut(3 * across).zip(y_row.chunks(across));
            for ((rgb, y), (&u, &v)) in runs.zip(chroma_row) {
                self.convert_run(rgb, y, (u, v));
            }
        }
        Frame {
            width: planes.width,
            height: planes.height,
            rgb,
        }
    }

    /// Converts the pixels of a row that share a chroma sample.
    #[inline]
    fn convert_run(&self, rgb: &mut [u8], y: &[u8], (u, v): (u8, u8)) {
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let red = v * self.red_from_v;
        let green = -(u * self.green_from_u) - v * self.green_from_v;
        let blue = u * self.blue_from_u;
        for (pixel, &y) in rgb.chunks_exact_mut(3).zip(y) {
            let luma = (i32::from(y) - self.luma_black) * self.luma_gain;
            pixel[0] = to_sample(luma + red);
            pixel[1] = to_sample(luma + green);
            pixel[2] = to_sample(luma + blue);
        }
    }
}

/// The conversion from RGB to limited-range 4:2:0 YUV.
#[derive(Debug, Clone)]
pub(crate) struct RgbToYuv {
    y: [i32; 3],
    u: [i32; 3],
    v: [i32; 3],
}

impl RgbToYuv {
    /// By BT.709, which is what files that name their matrix are written with.
    pub(crate) fn bt709() -> Self {
        Self::weighted(BT709)
    }

    /// By the matrix that readers assume of pictures of this height when nothing names one.
    pub(crate) fn unnamed(height: u32) -> Self {
        Self::weighted(if height > STANDARD_DEFINITION_HEIGHT_MAX {
            BT709
        } else {
            BT601
        })
    }

    fn weighted((kr, kb): (f64, f64)) -> Self {
        let kg = 1.0 - kr - kb;
        let luma = |k: f64| fixed(k * 219.0 / 255.0);
        let chroma = |k: f64, own: f64| fixed(k / (2.0 * (1.0 - own)) * 224.0 / 255.0);
        Self {
            y: [luma(kr), luma(kg), luma(kb)],
            u: [chroma(-kr, kb), chroma(-kg, kb), chroma(1.0 - kb, kb)],
            v: [chroma(1.0 - kr, kr), chroma(-kg, kr), chroma(-kb, kr)],
        }
    }

    /// Converts `frame`, which must be consistent, into `planes`, whose buffers are reused.
    pub(crate) fn convert(&self, frame: &Frame, planes: &mut Planes) {
        let (width, height) = (frame.width as usize, frame.height as usize);
        (planes.width, planes.height) = (frame.width, frame.height);
        planes.chroma = Chroma::Cs420;
        planes.y.clear();
        planes.y.extend(
            frame
                .rgb
                .chunks_exact(3)
                .map(|pixel| to_sample(weigh(self.y, pixel_of(pixel)) + fixed(16.0))),
        );
        planes.u.clear();
        planes.v.clear();
        for top in (0..height).step_by(2) {
            let bottom = (top + 1).min(height - 1);
            for left in (0..width).step_by(2) {
                let right = (left + 1).min(width - 1);
                let corners = [(left, top), (right, top), (left, bottom), (right, bottom)];
                let mut sum = [0; 3];
                for (x, y) in corners {
                    let at = (y * width + x) * 3;
                    let pixel = pixel_of(&frame.rgb[at..at + 3]);
                    sum = [sum[0] + pixel[0], sum[1] + pixel[1], sum[2] + pixel[2]];
                }
                planes
                    .u
                    .push(to_sample(weigh(self.u, sum) / 4 + fixed(128.0)));
                planes
                    .v
                    .push(to_sample(weigh(self.v, sum) / 4 + fixed(128.0)));
            }
        }
    }
}

fn pixel_of(rgb: &[u8]) -> [i32; 3] {
    [rgb[0].into(), rgb[1].into(), rgb[2].into()]
}

fn weigh(weights: [i32; 3], pixel: [i32; 3]) -> i32 {
    weights[0] * pixel[0] + weights[1] * pixel[1] + weights[2] * pixel[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planes_of(y: u8, u: u8, v: u8) -> Planes {
        Planes {
            width: 1,
            height: 1,
            chroma: Chroma::Cs420,
            y: vec![y],
            u: vec![u],
            v: vec![v],
        }
    }

    fn rgb_of(code: Option<ColourCode>, height: u32, yuv: (u8, u8, u8)) -> Vec<u8> {
        let (y, u, v) = yuv;
        YuvToRgb::new(code, height)
            .expect("a known matrix")
            .convert(&planes_of(y, u, v))
            .rgb
    }

    /// Code values of 100 % red, green and blue bars as printed in BT.709-6 and BT.601-7 (8-bit).
    #[test]
    fn primaries_have_their_published_code_values() {
        let bt709 = Some(ColourCode {
            matrix: 1,
            full_range: false,
        });
        let bt601 = Some(ColourCode {
            matrix: 6,
            full_range: false,
        });
        let cases = [
            (bt709, (63, 102, 240), [255, 0, 0]),
            (bt709, (173, 42, 26), [0, 255, 0]),
            (bt709, (32, 240, 118), [0, 0, 255]),
            (bt601, (81, 90, 240), [255, 0, 0]),
            (bt601, (145, 54, 34), [0, 255, 0]),
            (bt601, (41, 240, 110), [0, 0, 255]),
        ];
        for (code, yuv, want) in cases {
            let have = rgb_of(code, 100, yuv);
            for (have, want) in have.iter().zip(want) {
                assert!(
                    have.abs_diff(want) <= 2,
                    "{code:?} {yuv:?} gives {have}, want {want}"
                );
            }
        }
    }

    #[test]
    fn range_is_honoured() {
        let code = |full_range| {
            Some(ColourCode {
                matrix: 1,
                full_range,
            })
        };
        assert_eq!(rgb_of(code(false), 1, (16, 128, 128)), [0, 0, 0]);
        assert_eq!(rgb_of(code(false), 1, (235, 128, 128)), [255, 255, 255]);
        assert_eq!(rgb_of(code(true), 1, (16, 128, 128)), [16, 16, 16]);
        assert_eq!(rgb_of(code(true), 1, (235, 128, 128)), [235, 235, 235]);
    }

    #[test]
    fn unspecified_matrix_goes_by_height() {
        let green = (173, 42, 26);
        let bt709 = Some(ColourCode {
            matrix: 1,
            full_range: false,
        });
        let bt601 = Some(ColourCode {
            matrix: 5,
            full_range: false,
        });
        assert_eq!(rgb_of(None, 720, green), rgb_of(bt709, 720, green));
        assert_eq!(rgb_of(None, 576, green), rgb_of(bt601, 576, green));
    }

    #[test]
    fn unknown_matrix_is_refused() {
        for matrix in [0, 3, 8, 10, 14, 255, 65535] {
            let refused = YuvToRgb::new(
                Some(ColourCode {
                    matrix,
                    full_range: false,
                }),
                720,
            );
            assert!(
                matches!(refused, Err(MediaError::NotSupported(Unsupported::ColourMatrix(code))) if code == matrix)
            );
        }
    }

    /// Each pixel takes the chroma sample that lies over it, in odd sizes too.
    #[test]
    fn chroma_lies_where_its_sampling_says() {
        let code = Some(ColourCode {
            matrix: 1,
            full_range: true,
        });
        let convert = YuvToRgb::new(code, 1).expect("a known matrix");
        for (chroma, samples) in [
            (Chroma::Cs420, vec![0, 0, 1, 0, 0, 1, 2, 2, 3]),
            (Chroma::Cs422, vec![0, 0, 1, 2, 2, 3, 4, 4, 5]),
            (Chroma::Cs444, (0..9).collect()),
            (Chroma::Monochrome, Vec::new()),
        ] {
            let (width, height) = chroma.size(3, 3);
            let plane: Vec<u8> = (0..width * height).map(|at| 90 + at as u8 * 8).collect();
            let planes = Planes {
                width: 3,
                height: 3,
                chroma,
                y: (0..9).map(|at| 100 + at).collect(),
                u: plane.clone(),
                v: plane.clone(),
            };
            assert!(planes.is_consistent());
            assert_eq!(chroma.picture_bytes(3, 3), 9 + 2 * plane.len());
            let frame = convert.convert(&planes);
            for (at, pixel) in frame.rgb.chunks_exact(3).enumerate() {
                let sample = samples.get(at).map_or(128, |&sample| plane[sample]);
                let alone = Planes {
                    y: vec![100 + at as u8],
                    u: vec![sample],
                    v: vec![sample],
                    ..planes_of(0, 0, 0)
                };
                assert_eq!(pixel, convert.convert(&alone).rgb, "{chroma:?} pixel {at}");
            }
        }
    }

    /// Colours on a 2 × 2 grid survive the round trip within the rounding of limited range.
    #[test]
    fn round_trip_keeps_colours() {
        let back = YuvToRgb::new(
            Some(ColourCode {
                matrix: 1,
                full_range: false,
            }),
            1,
        )
        .expect("a known matrix");
        let mut planes = planes_of(0, 0, 0);
        for colour in 0..4096_u32 {
            let rgb = [
                (colour & 15) * 17,
                (colour >> 4 & 15) * 17,
                (colour >> 8) * 17,
            ]
            .map(|c| c as u8);
            let frame = Frame {
                width: 3,
                height: 3,
                rgb: rgb.repeat(9),
            };
            RgbToYuv::bt709().convert(&frame, &mut planes);
            assert_eq!((planes.y.len(), planes.u.len(), planes.v.len()), (9, 4, 4));
            for (have, want) in back.convert(&planes).rgb.iter().zip(&frame.rgb) {
                assert!(have.abs_diff(*want) <= 2, "{rgb:?} comes back as {have}");
            }
        }
    }
}
