//! Where the pixels of a frame are in memory, checked before any is touched.

use crate::{FRAME_PIXELS_MAX, PipelineError};
use mote_api::{Access, Buffer, DType, Element, MemoryError};
use std::ops::Range;

/// Width and height of a frame at most.
pub const FRAME_SIDE_PIXELS_MAX: usize = 16_384;
/// Planes of a frame at most.
pub const FRAME_PLANES_MAX: usize = 3;

/// What a frame's bytes mean.
///
/// The formats of bytes hold colours by [`ColorRange`]; those of floats hold a tensor's own numbers, in
/// the order of its channels, of which there may be 1 or 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameFormat {
    /// Red, green, blue; one plane.
    Rgb8,
    /// Blue, green, red; one plane.
    Bgr8,
    /// Red, green, blue and an opacity, which is skipped in inputs and 255 in outputs; one plane.
    Rgba8,
    /// Luma; then a plane of half the width and height with Cb and Cr side by side.
    Nv12,
    /// Luma; then a plane each of Cb and Cr, of half the width and height.
    I420,
    /// Luma alone.
    Gray8,
    /// A plane per channel.
    F32Nchw,
    /// The channels of a pixel side by side; one plane.
    F32Nhwc,
    /// As [`FrameFormat::F32Nchw`].
    F16Nchw,
    /// As [`FrameFormat::F32Nhwc`].
    F16Nhwc,
}

impl FrameFormat {
    /// The element type that a row holds.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32Nchw | Self::F32Nhwc => DType::F32,
            Self::F16Nchw | Self::F16Nhwc => DType::F16,
            _ => DType::U8,
        }
    }

    /// Whether it holds a tensor's own numbers.
    pub fn is_float(self) -> bool {
        self.dtype() != DType::U8
    }

    /// Whether chroma is there for each second pixel of each second row.
    pub fn is_subsampled(self) -> bool {
        matches!(self, Self::Nv12 | Self::I420)
    }

    /// Bytes of a row and number of rows, of each plane.
    fn planes(self, width: usize, height: usize, channels: usize) -> Vec<(usize, usize)> {
        let row = width * self.dtype().bytes();
        match self {
            Self::Rgb8 | Self::Bgr8 => vec![(3 * row, height)],
            Self::Rgba8 => vec![(4 * row, height)],
            Self::Gray8 => vec![(row, height)],
            Self::Nv12 => vec![(row, height), (row, height / 2)],
            Self::I420 => {
                let chroma = (row / 2, height / 2);
                vec![(row, height), chroma, chroma]
            }
            Self::F32Nchw | Self::F16Nchw => vec![(row, height); channels],
            Self::F32Nhwc | Self::F16Nhwc => vec![(channels * row, height)],
        }
    }
}

/// The matrix between red, green, blue and luma, chroma.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ColorMatrix {
    /// ITU-R BT.601: standard definition, most cameras, JPEG.
    #[default]
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
    /// ITU-R BT.2020, with non-constant luminance.
    Bt2020,
}

/// Which bytes mean black and white.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ColorRange {
    /// 16 and 235; chroma from 16 to 240.
    Limited,
    /// 0 and 255.
    #[default]
    Full,
}

/// One plane of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plane {
    /// Its first byte, in the buffer.
    pub offset: usize,
    /// Bytes from the beginning of a row to that of the next.
    pub stride: usize,
}

/// A frame in a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameLayout {
    /// What its bytes mean.
    pub format: FrameFormat,
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Its planes; when there are none, they follow each other without gaps from the buffer's start.
    pub planes: Vec<Plane>,
    /// For luma and chroma.
    pub matrix: ColorMatrix,
    /// For formats of bytes.
    pub range: ColorRange,
}

/// A frame that lies in its buffer as a whole. Its memory may be a client's, who may write to it at any
/// time: rows are copied out and in, never borrowed, so that this makes wrong pixels at worst.
#[derive(Clone, Debug)]
pub struct Frame {
    buffer: Buffer,
    layout: FrameLayout,
    channels: usize,
}

impl Frame {
    /// A frame in `buffer`. `channels` is of interest to formats of floats.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the field of the layout: `width`, `height`, `planes`,
    /// `planes[1].stride`, `planes[1].offset`.
    pub fn new(
        buffer: &Buffer,
        layout: &FrameLayout,
        channels: usize,
    ) -> Result<Self, PipelineError> {
        check_size(layout)?;
        if !matches!(channels, 1 | 3) {
            let why = format!("has {channels} channels; 1 or 3 make a picture");
            return Err(PipelineError::invalid("format", why));
        }
        let shapes = layout.format.planes(layout.width, layout.height, channels);
        let mut layout = layout.clone();
        if layout.planes.is_empty() {
            layout.planes = dense(&shapes);
        }
        if layout.planes.len() != shapes.len() {
            let (have, want) = (layout.planes.len(), shapes.len());
            let why = format!("there are {have}, and {:?} has {want}", layout.format);
            return Err(PipelineError::invalid("planes", why));
        }
        let element = layout.format.dtype().bytes();
        let mut extents: Vec<Range<usize>> = Vec::with_capacity(shapes.len());
        for (index, (plane, &shape)) in layout.planes.iter().zip(&shapes).enumerate() {
            let extent = extent(index, *plane, shape, (element, buffer.len()))?;
            let before = extents.iter();
            if let Some(other) = before.clone().position(|other| overlap(other, &extent)) {
                let why = format!("the plane overlaps planes[{other}]");
                return Err(PipelineError::invalid(field(index, "offset"), why));
            }
            extents.push(extent);
        }
        Ok(Self {
            buffer: buffer.clone(),
            layout,
            channels,
        })
    }

    /// Where its pixels are; all planes are named.
    pub fn layout(&self) -> &FrameLayout {
        &self.layout
    }

    /// Its buffer.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Where it begins, if its planes follow each other without gaps.
    pub(crate) fn dense_offset(&self) -> Option<usize> {
        let layout = &self.layout;
        let shapes = layout
            .format
            .planes(layout.width, layout.height, self.channels);
        let first = layout.planes.first()?.offset;
        let mut next = first;
        for (plane, (row_bytes, rows)) in layout.planes.iter().zip(shapes) {
            if plane.offset != next || plane.stride != row_bytes {
                return None;
            }
            next += row_bytes * rows;
        }
        Some(first)
    }

    /// From its first byte to the end of its last one, as addresses.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = self.buffer.as_ptr().addr();
        let layout = &self.layout;
        let shapes = layout
            .format
            .planes(layout.width, layout.height, self.channels);
        let ends = layout.planes.iter().zip(shapes);
        let ends = ends.map(|(plane, (row, rows))| plane.offset + plane.stride * (rows - 1) + row);
        let first = layout.planes.iter().map(|plane| plane.offset).min();
        start + first.unwrap_or(0)..start + ends.max().unwrap_or(0)
    }

    /// Copies the beginning of a row out.
    pub(crate) fn read_row<T: Element>(
        &self,
        plane: usize,
        row: usize,
        values: &mut [T],
    ) -> Result<(), MemoryError> {
        let plane = self.layout.planes[plane];
        self.buffer
            .copy_out(plane.offset + row * plane.stride, values)
    }

    /// Copies the beginning of a row in.
    pub(crate) fn write_row<T: Element>(
        &self,
        plane: usize,
        row: usize,
        values: &[T],
    ) -> Result<(), MemoryError> {
        let plane = self.layout.planes[plane];
        self.buffer
            .copy_in(plane.offset + row * plane.stride, values)
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.buffer.access() == Access::ReadWrite
    }
}

/// Bytes of all planes of such a frame, without gaps.
pub fn dense_bytes(format: FrameFormat, width: usize, height: usize, channels: usize) -> usize {
    let planes = format.planes(width, height, channels).into_iter();
    planes.map(|(row_bytes, rows)| row_bytes * rows).sum()
}

fn check_size(layout: &FrameLayout) -> Result<(), PipelineError> {
    let (width, height) = (layout.width, layout.height);
    for (field, side) in [("width", width), ("height", height)] {
        if !(1..=FRAME_SIDE_PIXELS_MAX).contains(&side) {
            let why = format!("{side} is not 1 to {FRAME_SIDE_PIXELS_MAX}");
            return Err(PipelineError::invalid(field, why));
        }
        if layout.format.is_subsampled() && !side.is_multiple_of(2) {
            let why = format!("{side} is odd, and chroma is there for each second pixel");
            return Err(PipelineError::invalid(field, why));
        }
    }
    if width * height > FRAME_PIXELS_MAX {
        let why = format!("{width} × {height} are more than {FRAME_PIXELS_MAX} pixels");
        return Err(PipelineError::invalid("height", why));
    }
    Ok(())
}

fn dense(shapes: &[(usize, usize)]) -> Vec<Plane> {
    let mut offset = 0;
    let place = |&(stride, rows): &(usize, usize)| {
        let plane = Plane { offset, stride };
        offset += stride * rows;
        plane
    };
    shapes.iter().map(place).collect()
}

/// Checks one plane: its bytes, from the first to the last that is a pixel's.
fn extent(
    index: usize,
    plane: Plane,
    (row_bytes, rows): (usize, usize),
    (element, buffer_bytes): (usize, usize),
) -> Result<Range<usize>, PipelineError> {
    let Plane { offset, stride } = plane;
    if stride < row_bytes {
        let why = format!("{stride} bytes, and a row has {row_bytes}: rows would overlap");
        return Err(PipelineError::invalid(field(index, "stride"), why));
    }
    for (name, value) in [("offset", offset), ("stride", stride)] {
        if !value.is_multiple_of(element) {
            let why = format!("{value} is no multiple of {element}");
            return Err(PipelineError::invalid(field(index, name), why));
        }
    }
    let end = stride
        .checked_mul(rows - 1)
        .and_then(|bytes| bytes.checked_add(row_bytes))
        .and_then(|bytes| bytes.checked_add(offset));
    match end {
        Some(end) if end <= buffer_bytes => Ok(offset..end),
        _ => {
            let why = format!(
                "{rows} rows of {stride} bytes from {offset} on leave the buffer's {buffer_bytes}"
            );
            let culprit = if offset > buffer_bytes {
                "offset"
            } else {
                "stride"
            };
            Err(PipelineError::invalid(field(index, culprit), why))
        }
    }
}

fn field(plane: usize, name: &str) -> String {
    format!("planes[{plane}].{name}")
}

pub(crate) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}
