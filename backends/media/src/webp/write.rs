//! Frames to an animated WebP that loops, lossless. Only the part of a frame that differs from the one before is stored.

use image_webp::{ColorType, WebPEncoder};

use super::chunks::{
    CHUNK_HEAD_BYTES, FILE_HEAD_BYTES, append_chunk, extended_header, file_of, u24,
};
use crate::file::Sink;
use crate::frame::{Frame, FrameWriter, Rational, WrittenClip};
use crate::limits::at_most;
use crate::{ClipSpec, Codec, Limits, MediaError, Quantity};

/// Browsers show frames that are shorter than 11 ms for a tenth of a second.
const FRAMES_PER_SECOND_MAX: u64 = 90;
/// Sides of what VP8L codes have 14 bits.
const SIDE_PIXELS_MAX: u64 = 1 << 14;
/// Frame times have 24 bits.
const FRAME_MS_MAX: u64 = (1 << 24) - 1;
/// `VP8X`: the file is animated.
const ANIMATION: u8 = 0x02;
/// `ANMF`: the frame's pixels replace those under it.
const DO_NOT_BLEND: u8 = 0x02;
/// `ANIM`: background, then how often to show the clip; 0 for ever.
const FOR_EVER_ON_BLACK: [u8; 6] = [0, 0, 0, 255, 0, 0];
/// The size in a RIFF header has 32 bits, counts from behind itself, and is even.
const FILE_BYTES_MAX: u64 = u32::MAX as u64 - 1 + CHUNK_HEAD_BYTES;

/// Writes a WebP. Keeps the last frame.
pub(crate) struct WebPWriter {
    sink: Sink,
    spec: ClipSpec,
    limits: Limits,
    frames: u64,
    last: Option<Frame>,
}

impl WebPWriter {
    pub(crate) fn new(mut sink: Sink, spec: ClipSpec, limits: &Limits) -> Result<Self, MediaError> {
        let rate = spec.frame_rate;
        let frames_per_second = u64::from(rate.num()).div_ceil(rate.den().into());
        at_most(
            Quantity::FrameRate,
            frames_per_second,
            FRAMES_PER_SECOND_MAX,
        )?;
        at_most(Quantity::Width, spec.width.into(), SIDE_PIXELS_MAX)?;
        at_most(Quantity::Height, spec.height.into(), SIDE_PIXELS_MAX)?;
        let head = extended_header(ANIMATION, (spec.width, spec.height));
        sink.append(&file_of(&[(b"VP8X", &head), (b"ANIM", &FOR_EVER_ON_BLACK)]))?;
        Ok(Self {
            sink,
            spec,
            limits: limits.clone(),
            frames: 0,
            last: None,
        })
    }
}

impl FrameWriter for WebPWriter {
    fn push(&mut self, frame: &Frame) -> Result<(), MediaError> {
        self.spec.check_frame(frame, self.frames)?;
        self.limits.check_frames(self.frames + 1)?;
        let area = match &self.last {
            Some(last) => changed_area(last, frame),
            None => Area {
                left: 0,
                top: 0,
                right: frame.width,
                bottom: frame.height,
            },
        };
        let picture = encode_area(frame, &area)?;
        let mut content = Vec::with_capacity(picture.len() + 16);
        for number in [
            area.left / 2,
            area.top / 2,
            area.width() - 1,
            area.height() - 1,
            frame_ms(self.spec.frame_rate, self.frames),
        ] {
            content.extend(u24(number));
        }
        content.push(DO_NOT_BLEND);
        content.extend_from_slice(&picture);
        let mut chunk = Vec::with_capacity(content.len() + CHUNK_HEAD_BYTES as usize + 1);
        append_chunk(&mut chunk, b"ANMF", &content);
        let bytes = self.sink.position() + chunk.len() as u64;
        at_most(Quantity::WrittenBytes, bytes, FILE_BYTES_MAX)?;
        self.sink.append(&chunk)?;
        self.last = Some(frame.clone());
        self.frames += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<WrittenClip, MediaError> {
        if self.frames == 0 {
            return Err(MediaError::NoFrames);
        }
        let bytes = (self.sink.position() - CHUNK_HEAD_BYTES) as u32;
        self.sink.patch(4, &bytes.to_le_bytes())?;
        Ok(WrittenClip {
            bytes: self.sink.finish()?,
            frames: self.frames,
        })
    }
}

/// A rectangle whose left and top are even, as the format wants; right and bottom are exclusive.
#[derive(Debug, PartialEq, Eq)]
struct Area {
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
}

impl Area {
    fn width(&self) -> u32 {
        self.right - self.left
    }

    fn height(&self) -> u32 {
        self.bottom - self.top
    }
}

/// The smallest area outside of which both frames, of the same size, are equal; one pixel where they are.
fn changed_area(last: &Frame, frame: &Frame) -> Area {
    let row_bytes = frame.width as usize * 3;
    let rows = || {
        last.rgb
            .chunks_exact(row_bytes)
            .zip(frame.rgb.chunks_exact(row_bytes))
    };
    let differs = |(old, new): (&[u8], &[u8])| old != new;
    let (Some(top), Some(from_bottom)) = (rows().position(differs), rows().rev().position(differs))
    else {
        return Area {
            left: 0,
            top: 0,
            right: 1,
            bottom: 1,
        };
    };
    let (mut left, mut right) = (row_bytes, 0);
    for (old, new) in rows() {
        let bytes = || old.iter().zip(new);
        if let Some(first) = bytes().position(|(old, new)| old != new) {
            left = left.min(first);
            let last = bytes().rposition(|(old, new)| old != new).unwrap_or(first);
            right = right.max(last);
        }
    }
    Area {
        left: (left / 3) as u32 & !1,
        top: top as u32 & !1,
        right: (right / 3) as u32 + 1,
        bottom: frame.height - from_bottom as u32,
    }
}

/// The `VP8L` chunk of a part of a frame.
fn encode_area(frame: &Frame, area: &Area) -> Result<Vec<u8>, MediaError> {
    let row_bytes = frame.width as usize * 3;
    let part = area.left as usize * 3..area.right as usize * 3;
    let rows = frame.rgb.chunks_exact(row_bytes);
    let pixels: Vec<u8> = rows
        .skip(area.top as usize)
        .take(area.height() as usize)
        .flat_map(|row| row[part.clone()].iter().copied())
        .collect();
    let mut file = Vec::new();
    WebPEncoder::new(&mut file)
        .encode(&pixels, area.width(), area.height(), ColorType::Rgb8)
        .map_err(|cause| MediaError::Encode {
            codec: Codec::WebP,
            cause: Box::new(cause),
        })?;
    // What it writes is a file with this chunk alone.
    file.drain(..FILE_HEAD_BYTES as usize);
    Ok(file)
}

/// The time frame `index` is shown, in milliseconds: rounded so that the errors do not add up.
fn frame_ms(rate: Rational, index: u64) -> u32 {
    let starts_at = |index: u64| {
        let (num, den) = (u128::from(rate.num()), u128::from(rate.den()));
        (u128::from(index) * 1000 * den + num / 2) / num
    };
    (starts_at(index + 1) - starts_at(index)).min(FRAME_MS_MAX.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_to_the_pixel() {
        let black = Frame::black(9, 7);
        let unchanged = Area {
            left: 0,
            top: 0,
            right: 1,
            bottom: 1,
        };
        assert_eq!(changed_area(&black, &black), unchanged);
        let mut frame = black.clone();
        for (x, y) in [(3, 5), (7, 4)] {
            frame.rgb[(y * 9 + x) * 3 + 2] = 9;
        }
        let want = Area {
            left: 2,
            top: 4,
            right: 8,
            bottom: 6,
        };
        assert_eq!(changed_area(&black, &frame), want);
        let white = Frame {
            rgb: vec![255; 9 * 7 * 3],
            ..black.clone()
        };
        let all = Area {
            left: 0,
            top: 0,
            right: 9,
            bottom: 7,
        };
        assert_eq!(changed_area(&black, &white), all);
    }
}
