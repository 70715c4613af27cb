//! Frames of a WebP, composited onto its canvas.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image_webp::{DecodingError, WebPDecoder};

use super::chunks::{Chunk, Chunks, FILE_HEAD_BYTES, extended_header, file_of, u24_at};
use crate::file::Source;
use crate::frame::{ClipFormat, ClipInfo, Frame, FrameReader, Rational};
use crate::limits::at_most;
use crate::timing::frame_rate;
use crate::{Codec, Limits, MediaError, Quantity};

/// Chunks beside those of frames, in a file and in a frame.
const OTHER_CHUNKS_MAX: u64 = 64;
/// Fields of `ANMF` before its chunks.
const FRAME_HEAD_BYTES: u64 = 16;
const EXTENDED_HEAD_BYTES: usize = 10;
/// Times up to this are not honoured by browsers, which then show a frame for [`DEFAULT_MS`].
const IGNORED_MS_MAX: u32 = 10;
const DEFAULT_MS: u32 = 100;
/// Flags of `VP8X`.
const ANIMATION: u8 = 0x02;
const ALPHA: u8 = 0x10;
/// Flags of `ANMF`: the pixels replace those under them; the area becomes black before the next frame.
const DO_NOT_BLEND: u8 = 0x02;
const DISPOSE: u8 = 0x01;
const NS_PER_MS: u64 = 1_000_000;

/// Reads a WebP. Transparent pixels are blended with black.
pub(crate) struct WebPReader {
    source: Source,
    info: ClipInfo,
    limits: Limits,
    frames: Vec<StoredFrame>,
    next_frame: usize,
    canvas: Frame,
    /// Area to be cleared before the next frame is drawn.
    dispose: Option<Area>,
}

/// Where a frame lies, in the file and on the canvas.
#[derive(Clone, Copy)]
struct StoredFrame {
    start: u64,
    end: u64,
    area: Area,
    is_blended: bool,
    is_disposed: bool,
}

/// A rectangle within the canvas, in pixels.
#[derive(Clone, Copy)]
struct Area {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl WebPReader {
    pub(crate) fn open(source: Source, limits: &Limits) -> Result<Self, MediaError> {
        let Contents {
            size: (width, height),
            frames,
            times,
        } = Contents::read(&source, limits)?;
        let (rate, varies) = match times.len() {
            1 => (Rational::ONE, false),
            _ => frame_rate(&times, NS_PER_MS, None),
        };
        let info = ClipInfo {
            width,
            height,
            frame_count: Some(frames.len() as u64),
            frame_rate: rate,
            frame_rate_varies: varies,
            pixel_aspect: Rational::ONE,
            format: ClipFormat::WebP,
        };
        Ok(Self {
            source,
            info,
            limits: limits.clone(),
            frames,
            next_frame: 0,
            canvas: Frame::black(width, height),
            dispose: None,
        })
    }
}

impl FrameReader for WebPReader {
    fn info(&self) -> &ClipInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError> {
        let Some(&stored) = self.frames.get(self.next_frame) else {
            return Ok(None);
        };
        let index = self.next_frame as u64;
        let coded = CodedPicture::read(&self.source, &stored, &self.limits)?;
        let picture = coded.decode(stored.area, index)?;
        self.next_frame += 1;
        if let Some(area) = self.dispose.take() {
            for row in area.rows(&mut self.canvas) {
                row.fill(0);
            }
        }
        let row_bytes = stored.area.width as usize * picture.pixel_bytes;
        for (row, drawn) in stored
            .area
            .rows(&mut self.canvas)
            .zip(picture.pixels.chunks_exact(row_bytes))
        {
            draw_row(row, drawn, picture.pixel_bytes, stored.is_blended);
        }
        self.dispose = stored.is_disposed.then_some(stored.area);
        Ok(Some(self.canvas.clone()))
    }
}

impl Area {
    fn rows<'a>(&self, canvas: &'a mut Frame) -> impl Iterator<Item = &'a mut [u8]> + use<'a> {
        let (start, end) = (
            self.left as usize * 3,
            (self.left + self.width) as usize * 3,
        );
        canvas
            .rgb
            .chunks_exact_mut(canvas.width as usize * 3)
            .skip(self.top as usize)
            .take(self.height as usize)
            .map(move |row| &mut row[start..end])
    }
}

/// Draws RGB or RGBA pixels over RGB ones. The canvas stands for one whose transparent pixels are black.
fn draw_row(row: &mut [u8], drawn: &[u8], pixel_bytes: usize, is_blended: bool) {
    if pixel_bytes == 3 {
        row.copy_from_slice(drawn);
        return;
    }
    for (under, pixel) in row.chunks_exact_mut(3).zip(drawn.chunks_exact(4)) {
        let alpha = u32::from(pixel[3]);
        for (under, &over) in under.iter_mut().zip(pixel) {
            let kept = if is_blended {
                u32::from(*under) * (255 - alpha)
            } else {
                0
            };
            *under = ((u32::from(over) * alpha + kept + 127) / 255) as u8;
        }
    }
}

/// What a file holds: checked, but not decoded.
struct Contents {
    size: (u32, u32),
    frames: Vec<StoredFrame>,
    /// When each begins, in milliseconds.
    times: Vec<i64>,
}

impl Contents {
    fn read(source: &Source, limits: &Limits) -> Result<Self, MediaError> {
        let mut head = [0; FILE_HEAD_BYTES as usize];
        source.read_at(&mut head, 0, "the WebP file's head")?;
        let [_, _, _, _, a, b, c, d, ..] = head;
        let end = 8 + u64::from(u32::from_le_bytes([a, b, c, d]));
        if end > source.bytes() {
            return Err(MediaError::Truncated {
                inside: "the WebP file",
            });
        }
        let chunks_max = limits.frames_max.saturating_add(OTHER_CHUNKS_MAX);
        let mut chunks = Chunks::between(source, FILE_HEAD_BYTES, end, chunks_max);
        let first = chunks.next()?.ok_or(MediaError::NoFrames)?;
        match &first.name {
            b"VP8X" => {}
            b"VP8 " | b"VP8L" => {
                let size = picture_size(source, &first)?;
                return Self::still(size, (FILE_HEAD_BYTES, end), limits);
            }
            _ => {
                return Err(MediaError::corrupt(
                    "the WebP file",
                    "does not begin with a picture or a header",
                ));
            }
        }
        let mut head = [0; EXTENDED_HEAD_BYTES];
        if first.bytes() < head.len() as u64 {
            return Err(MediaError::corrupt("VP8X", "is shorter than its fields"));
        }
        source.read_at(&mut head, first.start, "VP8X")?;
        let size = (u24_at(&head, 4) + 1, u24_at(&head, 7) + 1);
        limits.check_size(size.0, size.1)?;
        if head[0] & ANIMATION == 0 {
            let rest = first.end + first.end % 2;
            return Self::still(size, (rest, end), limits);
        }
        Self::animation(source, size, chunks, limits)
    }

    /// One picture, whose chunks lie between `start` and `end`.
    fn still(
        (width, height): (u32, u32),
        (start, end): (u64, u64),
        limits: &Limits,
    ) -> Result<Self, MediaError> {
        limits.check_size(width, height)?;
        let frame = StoredFrame {
            start,
            end,
            area: Area {
                left: 0,
                top: 0,
                width,
                height,
            },
            is_blended: false,
            is_disposed: false,
        };
        Ok(Self {
            size: (width, height),
            frames: vec![frame],
            times: vec![0],
        })
    }

    fn animation(
        source: &Source,
        size: (u32, u32),
        mut chunks: Chunks<'_>,
        limits: &Limits,
    ) -> Result<Self, MediaError> {
        let mut contents = Self {
            size,
            frames: Vec::new(),
            times: Vec::new(),
        };
        let mut time = 0;
        while let Some(chunk) = chunks.next()? {
            if chunk.name != *b"ANMF" {
                continue;
            }
            limits.check_frames(contents.frames.len() as u64 + 1)?;
            let (frame, ms) = stored_frame(source, &chunk, size)?;
            contents.frames.push(frame);
            contents.times.push(time);
            time += i64::from(if ms <= IGNORED_MS_MAX { DEFAULT_MS } else { ms });
        }
        if contents.frames.is_empty() {
            return Err(MediaError::NoFrames);
        }
        Ok(contents)
    }
}

/// What `ANMF` says of a frame, and for how many milliseconds it is shown.
fn stored_frame(
    source: &Source,
    chunk: &Chunk,
    (width, height): (u32, u32),
) -> Result<(StoredFrame, u32), MediaError> {
    let mut head = [0; FRAME_HEAD_BYTES as usize];
    if chunk.bytes() < FRAME_HEAD_BYTES {
        return Err(MediaError::corrupt("ANMF", "is shorter than its fields"));
    }
    source.read_at(&mut head, chunk.start, "ANMF")?;
    let area = Area {
        left: u24_at(&head, 0) * 2,
        top: u24_at(&head, 3) * 2,
        width: u24_at(&head, 6) + 1,
        height: u24_at(&head, 9) + 1,
    };
    if area.left + area.width > width || area.top + area.height > height {
        return Err(MediaError::corrupt("ANMF", "lies outside the canvas"));
    }
    let flags = head[15];
    let frame = StoredFrame {
        start: chunk.start + FRAME_HEAD_BYTES,
        end: chunk.end,
        area,
        is_blended: flags & DO_NOT_BLEND == 0,
        is_disposed: flags & DISPOSE != 0,
    };
    Ok((frame, u24_at(&head, 12)))
}

/// Width and height of a `VP8 ` or `VP8L` chunk (RFC 6386, 9.1; "WebP Lossless Bitstream", 3).
fn picture_size(source: &Source, chunk: &Chunk) -> Result<(u32, u32), MediaError> {
    const SIDE_BITS: u32 = 14;
    const SIDE_MASK: u32 = (1 << SIDE_BITS) - 1;
    let mut head = [0; 10];
    let head_bytes = if chunk.name == *b"VP8L" { 5 } else { 10 };
    if chunk.bytes() < head_bytes {
        return Err(MediaError::corrupt("a picture", "is shorter than its head"));
    }
    let head = &mut head[..head_bytes as usize];
    source.read_at(head, chunk.start, "a picture")?;
    Ok(match *head {
        [_, a, b, c, d] => {
            let bits = u32::from_le_bytes([a, b, c, d]);
            ((bits & SIDE_MASK) + 1, (bits >> SIDE_BITS & SIDE_MASK) + 1)
        }
        _ => {
            let side = |at: usize| u32::from(u16::from_le_bytes([head[at], head[at + 1]]));
            (side(6) & SIDE_MASK, side(8) & SIDE_MASK)
        }
    })
}

/// The chunks of one picture, put together to a file of their own.
struct CodedPicture {
    file: Vec<u8>,
}

/// Decoded pixels, row-major, without padding.
struct Picture {
    pixels: Vec<u8>,
    /// 3, or 4 with alpha.
    pixel_bytes: usize,
}

impl CodedPicture {
    /// Finds the chunks of a frame; the picture in them must have the size of its area.
    fn read(source: &Source, stored: &StoredFrame, limits: &Limits) -> Result<Self, MediaError> {
        let mut chunks = Chunks::between(source, stored.start, stored.end, OTHER_CHUNKS_MAX);
        let mut alpha = None;
        while let Some(chunk) = chunks.next()? {
            match &chunk.name {
                b"ALPH" => alpha = Some(chunk),
                b"VP8 " | b"VP8L" => return Self::of(source, stored, limits, &chunk, alpha),
                _ => {}
            }
        }
        Err(MediaError::corrupt("a WebP frame", "has no picture"))
    }

    fn of(
        source: &Source,
        stored: &StoredFrame,
        limits: &Limits,
        chunk: &Chunk,
        alpha: Option<Chunk>,
    ) -> Result<Self, MediaError> {
        let size = (stored.area.width, stored.area.height);
        if picture_size(source, chunk)? != size {
            return Err(MediaError::corrupt(
                "a picture",
                "does not have the size of its frame",
            ));
        }
        let read = |chunk: &Chunk| {
            let limit = limits.sample_bytes_max.into();
            at_most(Quantity::SampleBytes, chunk.bytes(), limit)?;
            let mut content = vec![0; chunk.bytes() as usize];
            source.read_at(&mut content, chunk.start, "a picture")?;
            Ok::<_, MediaError>(content)
        };
        let picture = read(chunk)?;
        let file = match alpha {
            // Lossless pictures have their alpha in them.
            Some(alpha) if chunk.name == *b"VP8 " => file_of(&[
                (b"VP8X", &extended_header(ALPHA, size)),
                (b"ALPH", &read(&alpha)?),
                (b"VP8 ", &picture),
            ]),
            _ => file_of(&[(&chunk.name, &picture)]),
        };
        Ok(Self { file })
    }

    fn decode(self, area: Area, index: u64) -> Result<Picture, MediaError> {
        let pixels = area.width as usize * area.height as usize;
        let decode = || {
            let mut decoder = WebPDecoder::new(Cursor::new(self.file))?;
            let pixel_bytes = if decoder.has_alpha() { 4 } else { 3 };
            if decoder.dimensions() != (area.width, area.height) {
                return Err(DecodingError::InconsistentImageSizes);
            }
            let mut picture = Picture {
                pixels: vec![0; pixels * pixel_bytes],
                pixel_bytes,
            };
            decoder.read_image(&mut picture.pixels)?;
            Ok(picture)
        };
        // The decoder means never to panic; a file that finds a way shall end its clip, not the process.
        match catch_unwind(AssertUnwindSafe(decode)) {
            Ok(Ok(picture)) => Ok(picture),
            Ok(Err(cause)) => Err(decode_error(index, cause)),
            Err(_) => Err(decode_error(index, "the decoder panicked")),
        }
    }
}

fn decode_error(frame: u64, cause: impl Into<crate::Cause>) -> MediaError {
    MediaError::Decode {
        codec: Codec::WebP,
        frame,
        cause: cause.into(),
    }
}
