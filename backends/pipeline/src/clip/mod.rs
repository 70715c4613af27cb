//! Frames between frames.

mod convert;
mod interpolator;
mod window;

pub use interpolator::{FACTORS, FRAME_PIXELS_MAX, Interpolator};
pub use window::{FrameWindow, WindowStep};

/// A borrowed picture: 8-bit RGB, rows from the top without gaps.
#[derive(Clone, Copy, Debug)]
pub struct RgbFrame<'a> {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height * 3` bytes.
    pub rgb8: &'a [u8],
}

/// A picture: 8-bit RGB, rows from the top without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height * 3` bytes.
    pub rgb8: Vec<u8>,
}

impl Rgb {
    /// The same picture, borrowed.
    pub fn as_frame(&self) -> RgbFrame<'_> {
        RgbFrame {
            width: self.width,
            height: self.height,
            rgb8: &self.rgb8,
        }
    }
}
