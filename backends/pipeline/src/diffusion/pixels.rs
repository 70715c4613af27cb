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

/// Scales evenly until `height` x `width` is covered, and cuts out the middle.
fn cover(picture: &Rgb, height: usize, width: usize) -> Vec<u8> {
    let (from_height, from_width) = (picture.height as f64, picture.width as f64);
    let scale = (height as f64 / from_height).max(width as f64 / from_width);
    let columns = weights(picture.width, width, scale);
    let rows = weights(picture.height, height, scale);
    // Columns first, of the rows that are needed: a picture may be all height.
    let top = rows.first().map_or(0, |(first, _)| *first);
    let end = rows
        .last()
        .map_or(0, |(first, shares)| first + shares.len());
    let mut narrow = vec![0f32; (end - top) * width * CHANNELS];
    for (row, out) in narrow.chunks_exact_mut(width * CHANNELS).enumerate() {
        let line = &picture.rgb8[(top + row) * picture.width * CHANNELS..];
        for (pixel, (first, shares)) in out.chunks_exact_mut(CHANNELS).zip(&columns) {
            for (offset, share) in shares.iter().enumerate() {
                for c in 0..CHANNELS {
                    pixel[c] += share * f32::from(line[(first + offset) * CHANNELS + c]);
                }
            }
        }
    }
    let mut made = Vec::with_capacity(height * width * CHANNELS);
    for (first, shares) in &rows {
        for at in 0..width * CHANNELS {
            let sum: f32 = shares
                .iter()
                .enumerate()
                .map(|(offset, share)| {
                    share * narrow[(first - top + offset) * width * CHANNELS + at]
                })
                .sum();
            made.push(sum.round() as u8);
        }
    }
    made
}

/// For each of `to` places the first of those of `from` places that it is made of, and the share of
/// each: a triangle, as wide as a place is of the coarser of both.
fn weights(from: usize, to: usize, scale: f64) -> Vec<(usize, Vec<f32>)> {
    let reach = (1.0 / scale).max(1.0);
    let middle = from as f64 / 2.0;
    let place = |index: usize| {
        let centre = (index as f64 + 0.5 - to as f64 / 2.0) / scale + middle;
        let first = (centre - reach).floor().clamp(0.0, from as f64 - 1.0) as usize;
        let last = (centre + reach).ceil().clamp(1.0, from as f64) as usize;
        let share = |at: usize| (1.0 - (at as f64 + 0.5 - centre).abs() / reach).max(0.0);
        let shares: Vec<f64> = (first..last).map(share).collect();
        let sum: f64 = shares.iter().sum();
        (first, shares.iter().map(|s| (s / sum) as f32).collect())
    };
    (0..to).map(place).collect()
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
