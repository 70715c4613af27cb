//! [`Planes`]: a picture as models compute it.

use super::Rgb;
use super::convert::{self, Padded};
use mote_api::{Padding, ValueRange};

const CHANNELS: usize = 3;

/// A picture as f32 planes.
#[derive(Clone, Debug, PartialEq)]
pub struct Planes {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[3, height, width]`, RGB; black is 0 and white 1, and values may lie beyond both.
    pub values: Vec<f32>,
}

impl Planes {
    pub(crate) fn zeroed(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            values: vec![0.0; CHANNELS * width * height],
        }
    }

    /// The picture in 8 bits: clamped, and rounded to the nearest, halves to even.
    pub fn to_rgb(&self) -> Rgb {
        let (width, height) = (self.width, self.height);
        let padded = Padded { height, width };
        Rgb {
            width,
            height,
            rgb8: convert::from_planes(&self.values, padded, width, height),
        }
    }
}

/// A part of a frame, which may reach beyond it on the right and below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

/// From bytes to a model's values and back.
pub(crate) struct Values {
    of_byte: [f32; 256],
    range: ValueRange,
    padding: Padding,
}

impl Values {
    pub fn new(range: ValueRange, padding: Padding) -> Self {
        let of = |byte: usize| match range {
            ValueRange::Unit => byte as f32 / 255.0,
            ValueRange::Signed => byte as f32 / 127.5 - 1.0,
            ValueRange::Byte => byte as f32,
        };
        Self {
            of_byte: std::array::from_fn(of),
            range,
            padding,
        }
    }

    /// Fills `planes` `[3, part.height, part.width]` with the model's values of a part of a frame.
    pub fn fill(&self, frame: &Rgb, part: Part, planes: &mut [f32]) {
        let plane = part.height * part.width;
        let columns: Vec<usize> = (part.left..part.left + part.width)
            .map(|x| self.inside(x, frame.width) * CHANNELS)
            .collect();
        for row in 0..part.height {
            let y = self.inside(part.top + row, frame.height);
            let pixels = &frame.rgb8[y * frame.width * CHANNELS..][..frame.width * CHANNELS];
            for channel in 0..CHANNELS {
                let start = channel * plane + row * part.width;
                let values = &mut planes[start..start + part.width];
                for (value, &column) in values.iter_mut().zip(&columns) {
                    *value = self.of_byte[usize::from(pixels[column + channel])];
                }
            }
        }
    }

    /// Which of `count` pixels in a line stands at `at`.
    fn inside(&self, at: usize, count: usize) -> usize {
        let last = count - 1;
        match self.padding {
            _ if at <= last => at,
            Padding::Edge => last,
            Padding::Reflect if last == 0 => 0,
            Padding::Reflect => {
                let turned = at % (2 * last);
                turned.min(2 * last - turned)
            }
        }
    }

    /// A model's value as one of [`Planes`].
    pub fn to_unit(&self, value: f32) -> f32 {
        match self.range {
            ValueRange::Unit => value,
            ValueRange::Signed => (value + 1.0) / 2.0,
            ValueRange::Byte => value / 255.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_beyond_a_frame_repeat_its_edge_or_mirror_it() {
        let rgb8: Vec<u8> = (0..3 * 2 * 3).collect();
        let frame = Rgb {
            width: 3,
            height: 2,
            rgb8,
        };
        let part = Part {
            top: 1,
            left: 1,
            height: 2,
            width: 5,
        };
        let red = |padding| {
            let mut planes = [f32::NAN; 30];
            Values::new(ValueRange::Byte, padding).fill(&frame, part, &mut planes);
            assert!(planes.iter().all(|value| value.is_finite()));
            planes[..10].to_vec()
        };
        assert_eq!(
            red(Padding::Edge),
            [12., 15., 15., 15., 15., 12., 15., 15., 15., 15.]
        );
        assert_eq!(
            red(Padding::Reflect),
            [12., 15., 12., 9., 12., 3., 6., 3., 0., 3.]
        );
    }

    #[test]
    fn every_byte_survives_every_range() {
        for range in [ValueRange::Unit, ValueRange::Signed, ValueRange::Byte] {
            let values = Values::new(range, Padding::Edge);
            let of_byte = values.of_byte.map(|value| values.to_unit(value));
            for (byte, value) in of_byte.iter().enumerate() {
                assert!(
                    (value * 255.0 - byte as f32).abs() < 1e-4,
                    "{range:?} {byte}"
                );
            }
        }
    }
}
