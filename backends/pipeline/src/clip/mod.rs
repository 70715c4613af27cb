//! Frames out of frames: between them, better ones, larger ones; and what is to be seen in them.

mod convert;
mod filter;
mod interpolator;
mod labels;
mod planes;
mod restore;
mod window;

pub(crate) use convert::to_byte;
pub use filter::{FilterStep, FrameFilter};
pub use interpolator::{FACTORS, Interpolator};
pub(crate) use labels::picture_shape;
pub use labels::{
    LABEL_BYTES_MAX, LABELS_BYTES_MAX, LABELS_MAX, Label, LabelStep, Labelled, LabelledBox,
    Labeller, read_labels,
};
pub use planes::Planes;
pub(crate) use restore::input_shape;
pub use restore::{PlanesStep, RestorationOptions, Restorer};
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
