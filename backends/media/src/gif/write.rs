//! Frames to an animated GIF that loops, each with a palette of its own.

use gif::{Encoder, Repeat};

use super::{UNITS_PER_SECOND, encode_error};
use crate::file::Sink;
use crate::frame::{Frame, FrameWriter, Rational, WrittenClip};
use crate::limits::at_most;
use crate::{ClipSpec, Limits, MediaError, Quantity};

/// Shorter delays are not honoured by viewers.
const FRAMES_PER_SECOND_MAX: u64 = 50;
/// Colour quantisation from 1 (best) to 30 (fastest).
const QUANTISATION_SPEED: i32 = 10;

/// Writes a GIF. Frames of more than 256 colours lose some.
pub(crate) struct GifWriter {
    encoder: Encoder<Sink>,
    spec: ClipSpec,
    limits: Limits,
    frames: u64,
}

impl GifWriter {
    pub(crate) fn new(sink: Sink, spec: ClipSpec, limits: &Limits) -> Result<Self, MediaError> {
        let frames_per_second =
            u64::from(spec.frame_rate.num()).div_ceil(spec.frame_rate.den().into());
        at_most(
            Quantity::FrameRate,
            frames_per_second,
            FRAMES_PER_SECOND_MAX,
        )?;
        let mut encoder = Encoder::new(
            sink,
            side(Quantity::Width, spec.width)?,
            side(Quantity::Height, spec.height)?,
            &[],
        )
        .map_err(encode_error)?;
        encoder.set_repeat(Repeat::Infinite).map_err(encode_error)?;
        Ok(Self {
            encoder,
            spec,
            limits: limits.clone(),
            frames: 0,
        })
    }
}

fn side(what: Quantity, pixels: u32) -> Result<u16, MediaError> {
    let too_large = MediaError::TooLarge {
        what,
        have: pixels.into(),
        limit: u16::MAX.into(),
    };
    u16::try_from(pixels).map_err(|_| too_large)
}

impl FrameWriter for GifWriter {
    fn push(&mut self, frame: &Frame) -> Result<(), MediaError> {
        self.spec.check_frame(frame, self.frames)?;
        self.limits.check_frames(self.frames + 1)?;
        let (width, height) = (
            side(Quantity::Width, frame.width)?,
            side(Quantity::Height, frame.height)?,
        );
        let mut coded = gif::Frame::from_rgb_speed(width, height, &frame.rgb, QUANTISATION_SPEED);
        coded.delay = delay(self.spec.frame_rate, self.frames);
        self.encoder.write_frame(&coded).map_err(encode_error)?;
        self.frames += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<WrittenClip, MediaError> {
        if self.frames == 0 {
            return Err(MediaError::NoFrames);
        }
        let sink = self.encoder.into_inner().map_err(encode_error)?;
        Ok(WrittenClip {
            bytes: sink.finish()?,
            frames: self.frames,
        })
    }
}

/// The time frame `index` is shown, in hundredths of a second: rounded so that the errors do not add up.
fn delay(rate: Rational, index: u64) -> u16 {
    let starts_at = |index: u64| {
        let (num, den) = (u128::from(rate.num()), u128::from(rate.den()));
        (u128::from(index * UNITS_PER_SECOND) * den + num / 2) / num
    };
    u16::try_from(starts_at(index + 1) - starts_at(index)).unwrap_or(u16::MAX)
}
