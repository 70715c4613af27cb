//! Frames in registered buffers. Whether they fit their buffer and their model is for the worker to see.

use super::{Parsed, Place, id, invalid, limited, name, unique};
use crate::limits::{FRAME_PLANES_MAX, FRAME_SIDE_PIXELS_MAX, TENSORS_MAX};
use crate::pb;
use crate::types::{ColorMatrix, ColorRange, FrameFormat, FramePlane, VideoFrame};

/// Frames of one list, their names unique.
pub(super) fn parse_all(
    frames: Vec<pb::VideoFrame>,
    list: &'static str,
) -> Parsed<Vec<VideoFrame>> {
    limited(list, frames.len(), TENSORS_MAX)?;
    let frames = frames.into_iter().enumerate();
    let frames: Vec<_> = frames
        .map(|(index, frame)| parse(frame, Place { list, index }))
        .collect::<Parsed<_>>()?;
    unique(list, frames.iter().map(|frame| &*frame.name))?;
    Ok(frames)
}

/// As [`parse_all`], of frames that outputs become.
pub(super) fn parse_targets(
    frames: Vec<pb::VideoFrame>,
    list: &'static str,
) -> Parsed<Vec<VideoFrame>> {
    let frames = parse_all(frames, list)?;
    match frames.iter().position(|frame| frame.tensor_size.is_some()) {
        Some(index) => {
            let field = Place { list, index }.field("tensor_width");
            Err(invalid(field, "the model says how large its outputs are"))
        }
        None => Ok(frames),
    }
}

fn parse(frame: pb::VideoFrame, at: Place) -> Parsed<VideoFrame> {
    let format = parse_format(frame.format, at)?;
    let (matrix, range) = (
        parse_matrix(frame.matrix, at)?,
        parse_range(frame.range, at)?,
    );
    for (field, side) in [("width", frame.width), ("height", frame.height)] {
        check_side(side, at, field)?;
    }
    let field = at.field("planes");
    limited(field, frame.planes.len(), FRAME_PLANES_MAX)?;
    let tensor_size = match (frame.tensor_width, frame.tensor_height) {
        (0, 0) => None,
        (width, height) => {
            check_side(width, at, "tensor_width")?;
            check_side(height, at, "tensor_height")?;
            Some((width, height))
        }
    };
    let plane = |plane: pb::FramePlane| FramePlane {
        offset: plane.offset,
        stride: plane.stride,
    };
    Ok(VideoFrame {
        name: name(at.field("name"), frame.name)?,
        format,
        width: frame.width,
        height: frame.height,
        buffer: id(at.field("buffer"), frame.buffer)?,
        planes: frame.planes.into_iter().map(plane).collect(),
        matrix,
        range,
        tensor_size,
    })
}

fn check_side(side: u32, at: Place, field: &'static str) -> Parsed<()> {
    if (1..=FRAME_SIDE_PIXELS_MAX).contains(&side) {
        return Ok(());
    }
    let why = format!("{side} is not 1 to {FRAME_SIDE_PIXELS_MAX}");
    Err(invalid(at.field(field), why))
}

fn parse_format(format: i32, at: Place) -> Parsed<FrameFormat> {
    let format = pb::FrameFormat::try_from(format).unwrap_or(pb::FrameFormat::Unspecified);
    Ok(match format {
        pb::FrameFormat::Unspecified => {
            return Err(invalid(at.field("format"), "it is missing or unknown"));
        }
        pb::FrameFormat::Rgb8 => FrameFormat::Rgb8,
        pb::FrameFormat::Bgr8 => FrameFormat::Bgr8,
        pb::FrameFormat::Rgba8 => FrameFormat::Rgba8,
        pb::FrameFormat::Nv12 => FrameFormat::Nv12,
        pb::FrameFormat::I420 => FrameFormat::I420,
        pb::FrameFormat::Gray8 => FrameFormat::Gray8,
        pb::FrameFormat::F32Nchw => FrameFormat::F32Nchw,
        pb::FrameFormat::F32Nhwc => FrameFormat::F32Nhwc,
        pb::FrameFormat::F16Nchw => FrameFormat::F16Nchw,
        pb::FrameFormat::F16Nhwc => FrameFormat::F16Nhwc,
    })
}

fn parse_matrix(matrix: i32, at: Place) -> Parsed<ColorMatrix> {
    Ok(match pb::ColorMatrix::try_from(matrix) {
        Ok(pb::ColorMatrix::Unspecified | pb::ColorMatrix::Bt601) => ColorMatrix::Bt601,
        Ok(pb::ColorMatrix::Bt709) => ColorMatrix::Bt709,
        Ok(pb::ColorMatrix::Bt2020) => ColorMatrix::Bt2020,
        Err(_) => return Err(invalid(at.field("matrix"), "it is unknown")),
    })
}

fn parse_range(range: i32, at: Place) -> Parsed<Option<ColorRange>> {
    Ok(match pb::ColorRange::try_from(range) {
        Ok(pb::ColorRange::Unspecified) => None,
        Ok(pb::ColorRange::Limited) => Some(ColorRange::Limited),
        Ok(pb::ColorRange::Full) => Some(ColorRange::Full),
        Err(_) => return Err(invalid(at.field("range"), "it is unknown")),
    })
}

pub(super) fn write_all(frames: Vec<VideoFrame>) -> Vec<pb::VideoFrame> {
    frames.into_iter().map(write).collect()
}

fn write(frame: VideoFrame) -> pb::VideoFrame {
    let plane = |plane: FramePlane| pb::FramePlane {
        offset: plane.offset,
        stride: plane.stride,
    };
    let (tensor_width, tensor_height) = frame.tensor_size.unwrap_or_default();
    pb::VideoFrame {
        name: frame.name,
        format: write_format(frame.format).into(),
        width: frame.width,
        height: frame.height,
        buffer: frame.buffer,
        planes: frame.planes.into_iter().map(plane).collect(),
        matrix: write_matrix(frame.matrix).into(),
        range: write_range(frame.range).into(),
        tensor_width,
        tensor_height,
    }
}

fn write_format(format: FrameFormat) -> pb::FrameFormat {
    match format {
        FrameFormat::Rgb8 => pb::FrameFormat::Rgb8,
        FrameFormat::Bgr8 => pb::FrameFormat::Bgr8,
        FrameFormat::Rgba8 => pb::FrameFormat::Rgba8,
        FrameFormat::Nv12 => pb::FrameFormat::Nv12,
        FrameFormat::I420 => pb::FrameFormat::I420,
        FrameFormat::Gray8 => pb::FrameFormat::Gray8,
        FrameFormat::F32Nchw => pb::FrameFormat::F32Nchw,
        FrameFormat::F32Nhwc => pb::FrameFormat::F32Nhwc,
        FrameFormat::F16Nchw => pb::FrameFormat::F16Nchw,
        FrameFormat::F16Nhwc => pb::FrameFormat::F16Nhwc,
    }
}

fn write_matrix(matrix: ColorMatrix) -> pb::ColorMatrix {
    match matrix {
        ColorMatrix::Bt601 => pb::ColorMatrix::Bt601,
        ColorMatrix::Bt709 => pb::ColorMatrix::Bt709,
        ColorMatrix::Bt2020 => pb::ColorMatrix::Bt2020,
    }
}

fn write_range(range: Option<ColorRange>) -> pb::ColorRange {
    match range {
        None => pb::ColorRange::Unspecified,
        Some(ColorRange::Limited) => pb::ColorRange::Limited,
        Some(ColorRange::Full) => pb::ColorRange::Full,
    }
}
