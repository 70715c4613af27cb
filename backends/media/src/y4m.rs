//! YUV4MPEG2 (Y4M): a line of text, then frames, each behind a line of its own.

use crate::colour::{Chroma, ColourCode, Planes, YuvToRgb};
use crate::file::Source;
use crate::frame::{ClipFormat, ClipInfo, Frame, FrameReader, Rational};
use crate::limits::at_most;
use crate::{Limits, MediaError, Quantity, Unsupported};

const SIGNATURE: &[u8] = b"YUV4MPEG2";
const FRAME_SIGNATURE: &[u8] = b"FRAME";
/// Bytes of a line, its end included.
const LINE_BYTES_MAX: usize = 256;
/// `MatrixCoefficients` where nothing is said.
const UNSPECIFIED: u16 = 2;

/// Whether the first bytes of a file are those of a Y4M.
pub(crate) fn is_y4m(head: &[u8]) -> bool {
    head.starts_with(SIGNATURE)
}

/// Reads a Y4M of 8-bit samples.
pub(crate) struct Y4mReader {
    source: Source,
    info: ClipInfo,
    chroma: Chroma,
    to_rgb: YuvToRgb,
    position: u64,
    frames_read: u64,
}

impl Y4mReader {
    pub(crate) fn open(source: Source, limits: &Limits) -> Result<Self, MediaError> {
        let (line, start) = read_line(&source, 0)?;
        let header = Header::read(&line)?;
        limits.check_size(header.width, header.height)?;
        let frame_bytes = header.chroma.picture_bytes(header.width, header.height) as u64;
        let mut position = start;
        let mut frames = 0;
        while position < source.bytes() {
            limits.check_frames(frames + 1)?;
            position = frame_start(&source, position)? + frame_bytes;
            if position > source.bytes() {
                return Err(MediaError::Truncated {
                    inside: "a Y4M frame",
                });
            }
            frames += 1;
        }
        if frames == 0 {
            return Err(MediaError::NoFrames);
        }
        let colour = ColourCode {
            matrix: UNSPECIFIED,
            full_range: header.full_range,
        };
        Ok(Self {
            source,
            info: ClipInfo {
                width: header.width,
                height: header.height,
                frame_count: Some(frames),
                frame_rate: header.frame_rate,
                frame_rate_varies: false,
                pixel_aspect: header.pixel_aspect,
                format: ClipFormat::Y4m,
            },
            chroma: header.chroma,
            to_rgb: YuvToRgb::new(Some(colour), header.height)?,
            position: start,
            frames_read: 0,
        })
    }
}

impl FrameReader for Y4mReader {
    fn info(&self) -> &ClipInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError> {
        if Some(self.frames_read) == self.info.frame_count {
            return Ok(None);
        }
        let (width, height) = (self.info.width, self.info.height);
        let (chroma_width, chroma_height) = self.chroma.size(width, height);
        let mut position = frame_start(&self.source, self.position)?;
        let mut plane = |bytes: usize| {
            let mut plane = vec![0; bytes];
            self.source.read_at(&mut plane, position, "a Y4M frame")?;
            position += bytes as u64;
            Ok::<_, MediaError>(plane)
        };
        let planes = Planes {
            width,
            height,
            chroma: self.chroma,
            y: plane(width as usize * height as usize)?,
            u: plane(chroma_width * chroma_height)?,
            v: plane(chroma_width * chroma_height)?,
        };
        self.position = position;
        self.frames_read += 1;
        Ok(Some(self.to_rgb.convert(&planes)))
    }
}

/// The line at `position` without its end, and where the next one begins.
fn read_line(source: &Source, position: u64) -> Result<(Vec<u8>, u64), MediaError> {
    let left = source.bytes().saturating_sub(position);
    let bytes = left.min(LINE_BYTES_MAX as u64) as usize;
    let mut line = vec![0; bytes];
    source.read_at(&mut line, position, "a Y4M header")?;
    let Some(end) = line.iter().position(|&byte| byte == b'\n') else {
        at_most(Quantity::HeaderBytes, left, LINE_BYTES_MAX as u64 - 1)?;
        return Err(MediaError::Truncated {
            inside: "a Y4M header",
        });
    };
    line.truncate(end);
    Ok((line, position + end as u64 + 1))
}

/// Where the samples of the frame whose line is at `position` begin.
fn frame_start(source: &Source, position: u64) -> Result<u64, MediaError> {
    let (line, start) = read_line(source, position)?;
    match line.strip_prefix(FRAME_SIGNATURE) {
        Some([] | [b' ', ..]) => Ok(start),
        _ => Err(MediaError::corrupt("a Y4M frame", "has no header")),
    }
}

/// What the first line says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    width: u32,
    height: u32,
    frame_rate: Rational,
    pixel_aspect: Rational,
    chroma: Chroma,
    full_range: bool,
}

impl Header {
    fn read(line: &[u8]) -> Result<Self, MediaError> {
        let corrupt = |why| MediaError::corrupt("the Y4M header", why);
        let text = str::from_utf8(line).map_err(|_| corrupt("is not text"))?;
        let (mut width, mut height) = (None, None);
        let mut header = Self {
            width: 0,
            height: 0,
            frame_rate: Rational::ONE,
            pixel_aspect: Rational::ONE,
            chroma: Chroma::Cs420,
            full_range: false,
        };
        for field in text.split(' ').skip(1).filter(|field| !field.is_empty()) {
            let mut chars = field.chars();
            let kind = chars.next();
            let value = chars.as_str();
            match kind {
                Some('W') => width = value.parse().ok(),
                Some('H') => height = value.parse().ok(),
                Some('F') => {
                    header.frame_rate =
                        fraction(value).ok_or(corrupt("has no valid frame rate"))?;
                }
                // 0:0 means unknown.
                Some('A') => header.pixel_aspect = fraction(value).unwrap_or(Rational::ONE),
                Some('C') => header.chroma = chroma(value)?,
                Some('I') if !matches!(value, "p" | "?") => {
                    return Err(MediaError::NotSupported(Unsupported::Y4mInterlaced));
                }
                Some('X') if value == "COLORRANGE=FULL" => header.full_range = true,
                _ => {}
            }
        }
        header.width = width.ok_or(corrupt("has no valid width"))?;
        header.height = height.ok_or(corrupt("has no valid height"))?;
        Ok(header)
    }
}

fn fraction(text: &str) -> Option<Rational> {
    let (num, den) = text.split_once(':')?;
    Rational::new(num.parse().ok()?, den.parse().ok()?)
}

fn chroma(name: &str) -> Result<Chroma, MediaError> {
    match name {
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Ok(Chroma::Cs420),
        "422" => Ok(Chroma::Cs422),
        "444" => Ok(Chroma::Cs444),
        "mono" => Ok(Chroma::Monochrome),
        _ => Err(MediaError::NotSupported(Unsupported::Y4mColourSpace)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_field_by_field() {
        let text = b"YUV4MPEG2 W20 H10 F30000:1001 Ip A4:3 C422 XYSCSS=422 XCOLORRANGE=FULL";
        let want = Header {
            width: 20,
            height: 10,
            frame_rate: Rational::new(30_000, 1001).expect("a positive fraction"),
            pixel_aspect: Rational::new(4, 3).expect("a positive fraction"),
            chroma: Chroma::Cs422,
            full_range: true,
        };
        assert_eq!(Header::read(text).expect("a valid header"), want);
        let least = Header::read(b"YUV4MPEG2 H2 W1 A0:0 I?").expect("a valid header");
        assert_eq!(
            (least.width, least.height, least.chroma, least.pixel_aspect),
            (1, 2, Chroma::Cs420, Rational::ONE)
        );
    }

    #[test]
    fn what_cannot_be_read_rightly_is_refused() {
        let refusal = |text: &str| Header::read(text.as_bytes()).expect_err("a refusal");
        for text in [
            "YUV4MPEG2 W1",
            "YUV4MPEG2 H1",
            "YUV4MPEG2 W-1 H1",
            "YUV4MPEG2 W1 H1 F0:1",
        ] {
            assert!(
                matches!(refusal(text), MediaError::Corrupt { .. }),
                "{text}"
            );
        }
        for name in ["420p10", "444alpha", "411", "mono16", ""] {
            assert!(matches!(
                refusal(&format!("YUV4MPEG2 W1 H1 C{name}")),
                MediaError::NotSupported(Unsupported::Y4mColourSpace)
            ));
        }
        assert!(matches!(
            refusal("YUV4MPEG2 W1 H1 It"),
            MediaError::NotSupported(Unsupported::Y4mInterlaced)
        ));
    }
}
