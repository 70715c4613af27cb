//! Frames of the wire as the pipeline knows them.

use crate::buffers::Buffers;
use mote_pipeline::{
    ColorMatrix, ColorRange, FrameFormat, FrameLayout, FrameSource, FrameTarget, Plane,
};
use mote_wire::types as wire;
use mote_wire::types::Status;

/// Frames that become inputs.
pub fn sources(frames: &[wire::VideoFrame], buffers: &Buffers) -> Result<Vec<FrameSource>, Status> {
    let source = |frame: &wire::VideoFrame| {
        let (buffer, layout) = place(frame, buffers, "frames")?;
        Ok(FrameSource {
            name: frame.name.clone(),
            buffer,
            layout,
            size: frame.tensor_size.map(sides),
        })
    };
    frames.iter().map(source).collect()
}

/// Frames that outputs become.
pub fn targets(frames: &[wire::VideoFrame], buffers: &Buffers) -> Result<Vec<FrameTarget>, Status> {
    let target = |frame: &wire::VideoFrame| {
        let (buffer, layout) = place(frame, buffers, "frame_outputs")?;
        Ok(FrameTarget {
            name: frame.name.clone(),
            buffer,
            layout,
        })
    };
    frames.iter().map(target).collect()
}

/// The buffer of a frame, and where it lies there; whether it does, the pipeline checks.
pub fn place(
    frame: &wire::VideoFrame,
    buffers: &Buffers,
    list: &str,
) -> Result<(mote_api::Buffer, FrameLayout), Status> {
    let field = |name: &str| format!("{list}[{}].{name}", frame.name);
    let buffer = buffers.get(frame.buffer).map_err(|_| {
        let why = format!("buffer {} is not registered", frame.buffer);
        Status::invalid(field("buffer"), why)
    })?;
    let plane = |(index, plane): (usize, &wire::FramePlane)| {
        let number = |name: &str, number: u64| {
            usize::try_from(number).map_err(|_| {
                let why = "is too large for this machine";
                Status::invalid(field(&format!("planes[{index}].{name}")), why)
            })
        };
        Ok(Plane {
            offset: number("offset", plane.offset)?,
            stride: number("stride", plane.stride)?,
        })
    };
    let planes = frame.planes.iter().enumerate().map(plane);
    let planes: Vec<Plane> = planes.collect::<Result<_, Status>>()?;
    let (width, height) = sides((frame.width, frame.height));
    let format = format(frame.format);
    let layout = FrameLayout {
        format,
        width,
        height,
        planes,
        matrix: matrix(frame.matrix),
        range: range(frame.range, format),
    };
    Ok((buffer.clone(), layout))
}

/// Checked by the wire to be small.
fn sides((width, height): (u32, u32)) -> (usize, usize) {
    (width as usize, height as usize)
}

fn format(format: wire::FrameFormat) -> FrameFormat {
    match format {
        wire::FrameFormat::Rgb8 => FrameFormat::Rgb8,
        wire::FrameFormat::Bgr8 => FrameFormat::Bgr8,
        wire::FrameFormat::Rgba8 => FrameFormat::Rgba8,
        wire::FrameFormat::Nv12 => FrameFormat::Nv12,
        wire::FrameFormat::I420 => FrameFormat::I420,
        wire::FrameFormat::Gray8 => FrameFormat::Gray8,
        wire::FrameFormat::F32Nchw => FrameFormat::F32Nchw,
        wire::FrameFormat::F32Nhwc => FrameFormat::F32Nhwc,
        wire::FrameFormat::F16Nchw => FrameFormat::F16Nchw,
        wire::FrameFormat::F16Nhwc => FrameFormat::F16Nhwc,
    }
}

fn matrix(matrix: wire::ColorMatrix) -> ColorMatrix {
    match matrix {
        wire::ColorMatrix::Bt601 => ColorMatrix::Bt601,
        wire::ColorMatrix::Bt709 => ColorMatrix::Bt709,
        wire::ColorMatrix::Bt2020 => ColorMatrix::Bt2020,
    }
}

fn range(range: Option<wire::ColorRange>, format: FrameFormat) -> ColorRange {
    match range {
        Some(wire::ColorRange::Full) => ColorRange::Full,
        Some(wire::ColorRange::Limited) => ColorRange::Limited,
        None if format.is_subsampled() => ColorRange::Limited,
        None => ColorRange::Full,
    }
}
