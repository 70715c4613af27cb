//! Between pictures and what an autoencoder takes and gives.

use super::runner::floats;
use crate::PipelineError;
use crate::clip::{Rgb, to_byte};
use mote_api::{FRAME_PIXELS_MAX, Tensor};

const CHANNELS: usize = 3;

/// Refuses pictures that are not what they say.
pub(super) fn check(field: &str, picture: &Rgb) -> Result<(), PipelineError> {
    let pixels = picture.width.checked_mul(picture.height);
    let Some(pixels) = pixels.filter(|pixels| (1..=FRAME_PIXELS_MAX).contains(pixels)) else {
        let why = format!(
            "{}x{} is not 1 to {FRAME_PIXELS_MAX} pixels",
            picture.width, picture.height
        );
        return Err(PipelineError::invalid(field, why));
    };
    if picture.rgb8.len() != pixels * CHANNELS {
        let why = format!(
            "{} bytes are not those of {}x{} RGB",
            picture.rgb8.len(),
            picture.width,
            picture.height
        );
        return Err(PipelineError::invalid(field, why));
    }
    Ok(())
}

/// Writes `picture` as frame `frame` of `planes` `[3, frames, height, width]`, values -1 to 1. A
/// picture of another size is scaled until it covers the frame, and cut evenly on both sides.
pub(super) fn to_planes(
    picture: &Rgb,
    (planes, frames, frame): (&mut [f32], usize, usize),
    (height, width): (usize, usize),
) {
    let scaled;
    let pixels = if (picture.height, picture.width) == (height, width) {
        &picture.rgb8
    } else {
        scaled = cover(picture, height, width);
        &scaled
    };
    for c in 0..CHANNELS {
        let start = (c * frames + frame) * height * width;
        let plane = &mut planes[start..start + height * width];
        let bytes = pixels.chunks_exact(CHANNELS).map(|pixel| pixel[c]);
        for (value, byte) in plane.iter_mut().zip(bytes) {
            *value = f32::from(byte) / 127.5 - 1.0;
        }
    }
}

/// Frame `frame` of a decoder's output `[1, 3, frames, height, width]`: clamped to -1..=1, 8 bits, rounded.
///
/// # Errors
/// When there is no such frame.
pub(super) fn from_planes(planes: &Tensor, frame: usize) -> Result<Rgb, PipelineError> {
    let &[1, CHANNELS, frames, height, width] = planes.shape() else {
        let why = format!("came out as {:?}", planes.shape());
        return Err(PipelineError::graph("sample", why));
    };
    let all = planes.reshaped(&[CHANNELS * frames, height * width])?;
    let plane = |c: usize| -> Result<Vec<f32>, PipelineError> {
        let index = c * frames + frame;
        let plane = all.rows(index..index + 1).filter(|_| frame < frames);
        let none = || PipelineError::graph("sample", format!("has no frame {frame}"));
        Ok(floats(&plane.ok_or_else(none)?)?)
    };
    let (red, green, blue) = (plane(0)?, plane(1)?, plane(2)?);
    let mut rgb8 = vec![0; CHANNELS * height * width];
    let pixels = rgb8.as_chunks_mut::<CHANNELS>().0.iter_mut();
    for (((pixel, r), g), b) in pixels.zip(red).zip(green).zip(blue) {
        *pixel = [r, g, b].map(|value| to_byte(value * 0.5 + 0.5));
    }
    Ok(Rgb {
        width,
        height,
        rgb8,
    })
}

/// `picture` as one frame `[3, 1, height, width]`, values -1 to 1: scaled evenly until it touches two sides, in
/// the middle of white.
pub(super) fn to_canvas(picture: &Rgb, (height, width): (usize, usize)) -> Vec<f32> {
    let (from_height, from_width) = (picture.height as f64, picture.width as f64);
    let scale = (height as f64 / from_height).min(width as f64 / from_width);
    let side = |from: f64, most: usize| ((from * scale) as usize).clamp(1, most);
    let inner = [side(from_height, height), side(from_width, width)];
    let from = [from_height, from_width];
    let axes = [0, 1].map(|axis| Axis::scaled(inner[axis], inner[axis] as f64 / from[axis]));
    let pixels = resample(picture, axes, Kernel::Triangle);
    let (top, left) = ((height - inner[0]) / 2, (width - inner[1]) / 2);
    let mut planes = vec![1.0; CHANNELS * height * width];
    for (row, line) in pixels.chunks_exact(inner[1] * CHANNELS).enumerate() {
        for (column, pixel) in line.chunks_exact(CHANNELS).enumerate() {
            for (c, byte) in pixel.iter().enumerate() {
                let at = (c * height + top + row) * width + left + column;
                planes[at] = f32::from(*byte) / 127.5 - 1.0;
            }
        }
    }
    planes
}

/// Scales evenly until `height` x `width` is covered, and cuts out the middle.
fn cover(picture: &Rgb, height: usize, width: usize) -> Vec<u8> {
    let (from_height, from_width) = (picture.height as f64, picture.width as f64);
    let scale = (height as f64 / from_height).max(width as f64 / from_width);
    let axes = [(height, from_height), (width, from_width)].map(|(to, from)| Axis {
        offset: (from * scale - to as f64) / 2.0,
        ..Axis::scaled(to, scale)
    });
    resample(picture, axes, Kernel::Triangle)
}

/// What becomes of a picture along one axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Places that are made.
    to: usize,
    /// How far the picture is scaled.
    scale: f64,
    /// The first place that is made, of the scaled picture.
    offset: f64,
}

impl Axis {
    /// All of it, from the first place.
    pub fn scaled(to: usize, scale: f64) -> Self {
        Self {
            to,
            scale,
            offset: 0.0,
        }
    }

    /// The middle, rounded down to a whole place.
    pub fn middle(to: usize, scaled: f64, from: usize) -> Self {
        Self {
            offset: ((scaled - to as f64) / 2.0).floor(),
            ..Self::scaled(to, scaled / from as f64)
        }
    }
}

/// What a place is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kernel {
    /// Bilinear.
    Triangle,
    /// Bicubic, with -1/2 (Keys 1981), rounded to 8 bits between columns and rows, as Pillow does.
    CatmullRom,
}

impl Kernel {
    /// Places that it reaches to both sides.
    fn reach(self) -> f64 {
        match self {
            Self::Triangle => 1.0,
            Self::CatmullRom => 2.0,
        }
    }

    fn share(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        let at = distance.abs();
        match self {
            Self::Triangle => (1.0 - at).max(0.0),
            Self::CatmullRom if at < 1.0 => ((A + 2.0) * at - (A + 3.0)) * at * at + 1.0,
            Self::CatmullRom if at < 2.0 => (((at - 5.0) * at + 8.0) * at - 4.0) * A,
            Self::CatmullRom => 0.0,
        }
    }
}

/// A picture scaled and cut along both axes.
pub(super) fn resample(picture: &Rgb, [down, across]: [Axis; 2], kernel: Kernel) -> Vec<u8> {
    let (height, width) = (down.to, across.to);
    let columns = weights(picture.width, across, kernel);
    let rows = weights(picture.height, down, kernel);
    let mut made = Vec::with_capacity(height * width * CHANNELS);
    // A row of the picture at a time: it may be all height.
    let mut narrow = vec![0f32; width * CHANNELS];
    let mut sums = vec![0f32; width * CHANNELS];
    for (first, shares) in &rows {
        sums.fill(0.0);
        for (offset, share) in shares.iter().enumerate() {
            let line = &picture.rgb8[(first + offset) * picture.width * CHANNELS..];
            narrow_row(line, &columns, &mut narrow);
            if kernel == Kernel::CatmullRom {
                narrow
                    .iter_mut()
                    .for_each(|value| *value = f32::from(value.round() as u8));
            }
            for (sum, value) in sums.iter_mut().zip(&narrow) {
                *sum += share * value;
            }
        }
        made.extend(sums.iter().map(|sum| sum.round() as u8));
    }
    made
}

/// The pixels of a row that `columns` are made of, RGB.
fn narrow_row(line: &[u8], columns: &[(usize, Vec<f32>)], narrow: &mut [f32]) {
    for (pixel, (first, shares)) in narrow.chunks_exact_mut(CHANNELS).zip(columns) {
        pixel.fill(0.0);
        for (offset, share) in shares.iter().enumerate() {
            for c in 0..CHANNELS {
                pixel[c] += share * f32::from(line[(first + offset) * CHANNELS + c]);
            }
        }
    }
}

/// For each place that is made the first of those of `from` places that it is made of, and the share of each:
/// the kernel, as wide as a place is of the coarser of both.
fn weights(from: usize, axis: Axis, kernel: Kernel) -> Vec<(usize, Vec<f32>)> {
    let wide = (1.0 / axis.scale).max(1.0);
    let reach = wide * kernel.reach();
    let place = |index: usize| {
        let centre = (index as f64 + axis.offset + 0.5) / axis.scale;
        let first = (centre - reach).floor().clamp(0.0, from as f64 - 1.0) as usize;
        let last = (centre + reach).ceil().clamp(1.0, from as f64) as usize;
        let share = |at: usize| kernel.share((at as f64 + 0.5 - centre) / wide);
        let shares: Vec<f64> = (first..last).map(share).collect();
        let sum: f64 = shares.iter().sum();
        (first, shares.iter().map(|s| (s / sum) as f32).collect())
    };
    (0..axis.to).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize, of: impl Fn(usize, usize) -> [u8; 3]) -> Rgb {
        let pixels = (0..width * height).flat_map(|at| of(at % width, at / width));
        Rgb {
            width,
            height,
            rgb8: pixels.collect(),
        }
    }

    #[test]
    fn pictures_of_the_right_size_survive() {
        let made = picture(5, 3, |x, y| [x as u8 * 50, y as u8 * 100, 255]);
        let mut planes = vec![0.0; 3 * 2 * 15];
        to_planes(&made, (&mut planes, 2, 1), (3, 5));
        let planes = Tensor::from_slice(&[1, 3, 2, 3, 5], &planes).expect("fits");
        assert_eq!(from_planes(&planes, 1).expect("is there"), made);
        assert_eq!(from_planes(&planes, 0).expect("is there").rgb8, [128; 45]);
        from_planes(&planes, 2).expect_err("no such frame");
        let planes = planes.reshaped(&[3, 2, 3, 5]).expect("as many");
        from_planes(&planes, 0).expect_err("no clip");
    }

    #[test]
    fn other_pictures_cover_the_frame() {
        // Left half black, right half white, twice as wide as the frame: the middle stays.
        let wide = picture(16, 4, |x, _| [if x < 8 { 0 } else { 255 }; 3]);
        let made = cover(&wide, 8, 8);
        assert_eq!(made.len(), 8 * 8 * 3);
        assert!(made[0] < 32 && made[7 * 3] > 223, "{made:?}");
        for (width, height) in [(1, 1), (3, 9), (64, 5), (7, 100), (1, 1 << 20)] {
            let flat = picture(width, height, |_, _| [10, 200, 77]);
            let made = cover(&flat, 6, 4);
            assert!(made.chunks(3).all(|pixel| pixel == [10, 200, 77]));
        }
    }

    #[test]
    fn references_lie_in_the_middle_of_white() {
        let black = picture(4, 2, |_, _| [0; 3]);
        let planes = to_canvas(&black, (8, 8));
        let row = |y: usize| &planes[y * 8..][..8];
        assert_eq!(
            (row(1), row(2), row(5), row(6)),
            (&[1.0; 8][..], &[-1.0; 8][..], &[-1.0; 8][..], &[1.0; 8][..])
        );
        for (width, height) in [(1, 1 << 20), (1 << 20, 1), (8, 8)] {
            let flat = picture(width, height, |_, _| [255; 3]);
            assert_eq!(to_canvas(&flat, (8, 8)), [1.0; 3 * 64]);
        }
    }

    const PILLOWS: [([usize; 2], &[u8]); 2] = [
        (
            [2, 3],
            &[
                40, 136, 156, 131, 182, 74, 207, 94, 137, 112, 208, 42, 175, 94, 118, 93, 105, 209,
            ],
        ),
        (
            [6, 8],
            &[
                0, 85, 174, 16, 107, 218, 54, 145, 243, 87, 176, 88, 121, 225, 26, 154, 255, 79,
                192, 135, 118, 214, 28, 140, 13, 102, 218, 33, 123, 184, 71, 163, 124, 104, 216,
                63, 138, 213, 54, 171, 150, 97, 218, 91, 135, 247, 56, 157, 39, 130, 209, 61, 154,
                117, 99, 190, 4, 132, 219, 47, 168, 158, 93, 203, 27, 125, 220, 54, 163, 226, 95,
                185, 64, 155, 27, 86, 188, 29, 124, 207, 46, 156, 87, 81, 202, 31, 117, 245, 56,
                150, 132, 94, 188, 41, 119, 210, 92, 183, 4, 114, 219, 31, 152, 233, 78, 195, 78,
                111, 186, 23, 145, 125, 85, 178, 65, 126, 216, 31, 147, 238, 109, 200, 35, 131,
                235, 57, 170, 251, 95, 223, 107, 128, 161, 52, 162, 6, 103, 195, 31, 142, 233, 75,
                164, 255,
            ],
        ),
    ];

    /// What Pillow 13 gives: `Image.resize(BICUBIC)` of a picture of 5x4 to 3x2 and to 8x6.
    #[test]
    fn bicubic_is_pillows() {
        let of = picture(5, 4, |x, y| {
            [0, 1, 2].map(|c| (x * 53 + y * 37 + c * 91) as u8)
        });
        for (size, want) in PILLOWS {
            let [height, width] = size;
            let axes = [
                Axis::scaled(height, height as f64 / 4.0),
                Axis::scaled(width, width as f64 / 5.0),
            ];
            let have = resample(&of, axes, Kernel::CatmullRom);
            assert_eq!(have.len(), want.len());
            // Pillow computes with whole numbers, and rounds some of what is in the middle otherwise.
            let differences = have.iter().zip(want).filter(|(have, want)| have != want);
            let differences: Vec<u8> = differences
                .map(|(have, want)| have.abs_diff(*want))
                .collect();
            assert!(
                differences == [1] || differences.is_empty(),
                "{size:?}: {differences:?}"
            );
        }
    }

    #[test]
    fn pictures_that_lie_about_their_size_are_refused() {
        let good = picture(2, 2, |_, _| [0; 3]);
        assert!(check("first_image", &good).is_ok());
        for (width, height) in [(0, 2), (2, 3), (usize::MAX, 2), (1 << 20, 1 << 20)] {
            let bad = Rgb {
                width,
                height,
                ..good.clone()
            };
            let error = check("first_image", &bad).expect_err("must be refused");
            assert!(error.to_string().starts_with("first_image: "), "{error}");
        }
    }
}
