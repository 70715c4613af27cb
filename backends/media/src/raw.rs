//! Frames as they are: without a header, or with YUV4MPEG2's.

use crate::colour::{Planes, RgbToYuv};
use crate::file::Sink;
use crate::frame::{Frame, FrameWriter, WrittenClip};
use crate::{ClipSpec, Limits, MediaError};

/// How raw frames lie in a file, one after another without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawLayout {
    /// Three bytes for each pixel.
    Rgb8,
    /// All of Y, then U and V of half the width and height, rounded up: limited range, and the matrix that programs
    /// assume when nothing names one, BT.709 above 576 lines and BT.601 up to there.
    I420,
}

/// Writes frames one after another.
pub(crate) struct RawWriter {
    sink: Sink,
    spec: ClipSpec,
    limits: Limits,
    layout: RawLayout,
    /// Goes before each frame.
    frame_head: &'static [u8],
    to_yuv: RgbToYuv,
    planes: Planes,
    frames: u64,
}

impl RawWriter {
    pub(crate) fn new(sink: Sink, spec: ClipSpec, layout: RawLayout, limits: &Limits) -> Self {
        Self {
            sink,
            to_yuv: RgbToYuv::unnamed(spec.height),
            spec,
            limits: limits.clone(),
            layout,
            frame_head: b"",
            planes: Planes::empty(),
            frames: 0,
        }
    }

    /// With the header of YUV4MPEG2.
    pub(crate) fn y4m(mut sink: Sink, spec: ClipSpec, limits: &Limits) -> Result<Self, MediaError> {
        let (rate, aspect) = (spec.frame_rate, spec.pixel_aspect);
        // Chroma lies in the middle of its four pixels, which is what "jpeg" says; the range is said apart.
        let head = format!(
            "YUV4MPEG2 W{} H{} F{}:{} Ip A{}:{} C420jpeg XCOLORRANGE=LIMITED\n",
            spec.width,
            spec.height,
            rate.num(),
            rate.den(),
            aspect.num(),
            aspect.den()
        );
        sink.append(head.as_bytes())?;
        Ok(Self {
            frame_head: b"FRAME\n",
            ..Self::new(sink, spec, RawLayout::I420, limits)
        })
    }
}

impl FrameWriter for RawWriter {
    fn push(&mut self, frame: &Frame) -> Result<(), MediaError> {
        self.spec.check_frame(frame, self.frames)?;
        self.limits.check_frames(self.frames + 1)?;
        self.sink.append(self.frame_head)?;
        match self.layout {
            RawLayout::Rgb8 => self.sink.append(&frame.rgb)?,
            RawLayout::I420 => {
                self.to_yuv.convert(frame, &mut self.planes);
                for plane in [&self.planes.y, &self.planes.u, &self.planes.v] {
                    self.sink.append(plane)?;
                }
            }
        }
        self.frames += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<WrittenClip, MediaError> {
        if self.frames == 0 {
            return Err(MediaError::NoFrames);
        }
        let (frames, bytes) = (self.frames, self.sink.finish()?);
        Ok(WrittenClip { bytes, frames })
    }
}
