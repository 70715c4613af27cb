//! Frames as C gives them.

use crate::codes::*;
use crate::failure::Failure;
use crate::options::unknown;
use crate::structs::Frame;
use mote_client::{ColorMatrix, ColorRange, FrameFormat, FramePlane, VideoFrame};

/// The frames of a list of a call.
pub(crate) fn frames(given: &[Frame<'_>], list: &str) -> Result<Vec<VideoFrame>, Failure> {
    let frame = |(index, frame): (usize, &Frame<'_>)| {
        let field = |name: &str| format!("{list}[{index}].{name}");
        let buffer = frame.buffer.optional();
        let buffer = buffer.ok_or_else(|| Failure::null(field("buffer")))?;
        let refuse = |name: &str, number: i32| Failure::invalid(field(name), unknown(number));
        if frame.reserved != [0; 2] {
            return Err(Failure::invalid(field("reserved"), "must be 0"));
        }
        let planes = frame.offsets.iter().zip(frame.strides);
        let planes = planes.map(|(&offset, stride)| FramePlane { offset, stride });
        let planes: Vec<_> = planes.take(frame.plane_count as usize).collect();
        if planes.len() != frame.plane_count as usize {
            return Err(Failure::invalid(field("plane_count"), "is more than 3"));
        }
        Ok(VideoFrame {
            name: frame.name.required(field("name"))?.to_owned(),
            format: format(frame.format).ok_or_else(|| refuse("format", frame.format))?,
            width: frame.width,
            height: frame.height,
            buffer: buffer.buffer.id(),
            planes,
            matrix: matrix(frame.matrix).ok_or_else(|| refuse("matrix", frame.matrix))?,
            range: range(frame.range).ok_or_else(|| refuse("range", frame.range))?,
            tensor_size: match (frame.tensor_width, frame.tensor_height) {
                (0, 0) => None,
                size => Some(size),
            },
        })
    };
    given.iter().enumerate().map(frame).collect()
}

fn format(number: i32) -> Option<FrameFormat> {
    Some(match number {
        MOTE_FRAME_RGB8 => FrameFormat::Rgb8,
        MOTE_FRAME_BGR8 => FrameFormat::Bgr8,
        MOTE_FRAME_RGBA8 => FrameFormat::Rgba8,
        MOTE_FRAME_NV12 => FrameFormat::Nv12,
        MOTE_FRAME_I420 => FrameFormat::I420,
        MOTE_FRAME_GRAY8 => FrameFormat::Gray8,
        MOTE_FRAME_F32_NCHW => FrameFormat::F32Nchw,
        MOTE_FRAME_F32_NHWC => FrameFormat::F32Nhwc,
        MOTE_FRAME_F16_NCHW => FrameFormat::F16Nchw,
        MOTE_FRAME_F16_NHWC => FrameFormat::F16Nhwc,
        _ => return None,
    })
}

fn matrix(number: i32) -> Option<ColorMatrix> {
    Some(match number {
        MOTE_COLOR_MATRIX_DEFAULT | MOTE_COLOR_MATRIX_BT601 => ColorMatrix::Bt601,
        MOTE_COLOR_MATRIX_BT709 => ColorMatrix::Bt709,
        MOTE_COLOR_MATRIX_BT2020 => ColorMatrix::Bt2020,
        _ => return None,
    })
}

fn range(number: i32) -> Option<Option<ColorRange>> {
    Some(match number {
        MOTE_COLOR_RANGE_DEFAULT => None,
        MOTE_COLOR_RANGE_LIMITED => Some(ColorRange::Limited),
        MOTE_COLOR_RANGE_FULL => Some(ColorRange::Full),
        _ => return None,
    })
}
