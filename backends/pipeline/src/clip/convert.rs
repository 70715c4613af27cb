//! Between 8-bit pixels and the planes that models compute with.

use super::RgbFrame;
use crate::frames::to_byte as nearest_byte;

const CHANNELS: usize = 3;

/// Height and width after padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Padded {
    pub height: usize,
    pub width: usize,
}

impl Padded {
    pub fn elements(self) -> usize {
        CHANNELS * self.height * self.width
    }
}

/// Fills `planes` `[3, height, width]` with the frame's values over 255; the last column and row
/// are repeated to the right and below.
pub(crate) fn to_planes(frame: RgbFrame<'_>, padded: Padded, planes: &mut [f32]) {
    let (width, height) = (frame.width, frame.height);
    let plane = padded.height * padded.width;
    let (red, rest) = planes.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    let rows = frame.rgb8.chunks_exact(width * CHANNELS);
    let (red_rows, green_rows, blue_rows) = (
        red.chunks_exact_mut(padded.width),
        green.chunks_exact_mut(padded.width),
        blue.chunks_exact_mut(padded.width),
    );
    let targets = red_rows.zip(green_rows).zip(blue_rows);
    for (row, ((red, green), blue)) in rows.zip(targets) {
        let pixels = row.as_chunks::<CHANNELS>().0.iter();
        for (((&[r, g, b], red), green), blue) in pixels
            .zip(red.iter_mut())
            .zip(green.iter_mut())
            .zip(blue.iter_mut())
        {
            *red = f32::from(r) / 255.0;
            *green = f32::from(g) / 255.0;
            *blue = f32::from(b) / 255.0;
        }
        for row in [red, green, blue] {
            let edge = row[width - 1];
            row[width..].fill(edge);
        }
    }
    for plane in planes.chunks_exact_mut(plane) {
        let (image, below) = plane.split_at_mut(height * padded.width);
        let last = &image[(height - 1) * padded.width..];
        for row in below.chunks_exact_mut(padded.width) {
            row.copy_from_slice(last);
        }
    }
}

/// The upper left `width` × `height` of `planes` as 8-bit RGB: clamped to 0..=1, times 255,
/// rounded, halves to even. NaN becomes 0.
pub(crate) fn from_planes(planes: &[f32], padded: Padded, width: usize, height: usize) -> Vec<u8> {
    let plane = padded.height * padded.width;
    let mut rgb8 = vec![0u8; CHANNELS * width * height];
    for (y, row) in rgb8.chunks_exact_mut(CHANNELS * width).enumerate() {
        let start = y * padded.width;
        let [red, green, blue] =
            [0, 1, 2].map(|c| &planes[c * plane + start..c * plane + start + width]);
        let pixels = row.as_chunks_mut::<CHANNELS>().0.iter_mut();
        for (((pixel, &r), &g), &b) in pixels.zip(red).zip(green).zip(blue) {
            *pixel = [to_byte(r), to_byte(g), to_byte(b)];
        }
    }
    rgb8
}

/// A number in 0..=1 as 8 bits: clamped, rounded, halves to even. NaN becomes 0.
pub(crate) fn to_byte(value: f32) -> u8 {
    nearest_byte(value * 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_and_values_between_round_to_the_nearest() {
        for byte in 0..=255u8 {
            assert_eq!(to_byte(f32::from(byte) / 255.0), byte);
        }
        for (value, want) in [
            (-0.1, 0),
            (1.5, 255),
            (f32::NAN, 0),
            (f32::INFINITY, 255),
            (0.5, 128),
            (100.4 / 255.0, 100),
            (100.6 / 255.0, 101),
        ] {
            assert_eq!(to_byte(value), want, "{value}");
        }
    }

    #[test]
    fn edges_are_repeated_and_cropped_again() {
        let rgb8: Vec<u8> = (0..2 * 3 * 3).collect();
        let frame = RgbFrame {
            width: 3,
            height: 2,
            rgb8: &rgb8,
        };
        let padded = Padded {
            height: 4,
            width: 4,
        };
        let mut planes = vec![f32::NAN; padded.elements()];
        to_planes(frame, padded, &mut planes);
        let red: Vec<u8> = planes[..16].iter().map(|&v| to_byte(v)).collect();
        assert_eq!(
            red,
            [0, 3, 6, 6, 9, 12, 15, 15, 9, 12, 15, 15, 9, 12, 15, 15]
        );
        let blue: Vec<u8> = planes[32..40].iter().map(|&v| to_byte(v)).collect();
        assert_eq!(blue, [2, 5, 8, 8, 11, 14, 17, 17]);
        assert_eq!(from_planes(&planes, padded, 3, 2), rgb8);
    }
}
