//! Frames as cameras and displays have them, in and out of tensors, with nothing copied first.
//!
//! A [`FrameLayout`] says where the pixels of a frame are in a buffer. Where they lie as the model's input
//! has them, the buffer itself is bound. Elsewhere one pass reads the frame, converts colours, scales, and
//! writes the tensor; outputs are written the other way round. `[[input]]` and `[[output]]` of the manifest
//! say how.
//!
//! The memory may be a client's, who can write to it meanwhile. So a row at a time is read into memory that
//! stays in the processor's cache, and no reference into the mapping exists: a client that writes gets wrong
//! pixels, and nobody else gets anything.

mod axis;
mod colour;
mod layout;
mod picture;
mod ports;
mod reader;
mod source;
mod writer;

pub use axis::FittedRect;
pub use layout::{
    ColorMatrix, ColorRange, FRAME_PLANES_MAX, FRAME_SIDE_PIXELS_MAX, Frame, FrameFormat,
    FrameLayout, Plane, dense_bytes,
};
pub use ports::{FrameSource, FrameTarget};

pub(crate) use colour::to_byte;
pub(crate) use ports::{FramePorts, check_apart};

use crate::{PipelineError, Rgb};
use mote_api::{Buffer, DType, InputHint, PictureLayout, Tensor, TensorSpec};
use picture::Picture;
use reader::FrameReader;

/// A frame as 8-bit RGB of the same size, for pipelines that keep frames.
///
/// # Errors
/// [`PipelineError::Invalid`] with the field of the layout, as [`Frame::new`].
pub fn rgb_of(buffer: &Buffer, layout: &FrameLayout) -> Result<Rgb, PipelineError> {
    if layout.format.is_float() {
        let why = "floats are not converted to pixels here";
        return Err(PipelineError::invalid("format", why));
    }
    let frame = Frame::new(buffer, layout, 3)?;
    let (width, height) = (layout.width, layout.height);
    let shape = [1, height, width, 3];
    let spec = TensorSpec {
        name: String::new(),
        dtype: DType::U8,
        shape: shape.iter().copied().map(Some).collect(),
    };
    let pixels = InputHint {
        scale: 1.0,
        ..InputHint::plain("", PictureLayout::Nhwc)
    };
    let picture = Picture::of_input(&spec, &pixels, (width, height))?;
    let tensor = Tensor::zeroed(DType::U8, &shape)?;
    FrameReader::new(layout, &picture, &pixels).read(&frame, &tensor)?;
    Ok(Rgb {
        width,
        height,
        rgb8: tensor.read()?,
    })
}
