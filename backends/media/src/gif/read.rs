//! Frames of a GIF, composited onto its canvas.

use std::num::NonZeroU64;

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, DisposalMethod, MemoryLimit};

use super::UNITS_PER_SECOND;
use crate::file::{Source, SourceReader};
use crate::frame::{ClipFormat, ClipInfo, Frame, FrameReader, Rational};
use crate::{Codec, Limits, MediaError};

/// Delays up to this mean "not said"; browsers then show a frame for [`DEFAULT_DELAY`].
const IGNORED_DELAY_MAX: u16 = 1;
/// In hundredths of a second.
const DEFAULT_DELAY: u16 = 10;

/// Reads a GIF. Pixels that no frame has covered are black.
pub(crate) struct GifReader {
    decoder: Decoder<SourceReader>,
    info: ClipInfo,
    limits: Limits,
    canvas: Frame,
    /// Area to restore before the next frame is drawn, with what it is restored to.
    restore: Option<(Area, Restore)>,
    pixels: Vec<u8>,
    next_frame: u64,
}

enum Restore {
    Black,
    /// RGB rows of the area, clipped to the canvas.
    Saved(Vec<u8>),
}

impl GifReader {
    pub(crate) fn open(source: &Source, limits: &Limits) -> Result<Self, MediaError> {
        let timing = scan(source, limits)?;
        let decoder = decode(source, limits, false)?;
        let (width, height) = (decoder.width().into(), decoder.height().into());
        let info = ClipInfo {
            width,
            height,
            frame_count: Some(timing.frames),
            frame_rate: timing.rate()?,
            frame_rate_varies: timing.varies,
            pixel_aspect: Rational::ONE,
            format: ClipFormat::Gif,
        };
        Ok(Self {
            decoder,
            info,
            limits: limits.clone(),
            canvas: Frame::black(width, height),
            restore: None,
            pixels: Vec::new(),
            next_frame: 0,
        })
    }

    fn restore_canvas(&mut self) {
        match self.restore.take() {
            Some((area, Restore::Black)) => {
                for row in area.rows(&mut self.canvas) {
                    row.fill(0);
                }
            }
            Some((area, Restore::Saved(saved))) => {
                let row_bytes = area.row_bytes().max(1);
                for (row, saved) in area
                    .rows(&mut self.canvas)
                    .zip(saved.chunks_exact(row_bytes))
                {
                    row.copy_from_slice(saved);
                }
            }
            None => {}
        }
    }
}

impl FrameReader for GifReader {
    fn info(&self) -> &ClipInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError> {
        let index = self.next_frame;
        let Some(frame) = self
            .decoder
            .next_frame_info()
            .map_err(|cause| decode_error(index, cause))?
        else {
            return Ok(None);
        };
        self.limits
            .check_size(frame.width.into(), frame.height.into())?;
        let area = Area::of(frame, &self.canvas);
        let (dispose, frame_width) = (frame.dispose, usize::from(frame.width));
        self.pixels.resize(self.decoder.buffer_size(), 0);
        self.decoder
            .read_into_buffer(&mut self.pixels)
            .map_err(|cause| decode_error(index, cause))?;
        self.next_frame += 1;
        self.restore_canvas();
        self.restore = match dispose {
            DisposalMethod::Any | DisposalMethod::Keep => None,
            DisposalMethod::Background => Some((area, Restore::Black)),
            DisposalMethod::Previous => {
                let saved = area
                    .rows(&mut self.canvas)
                    .flat_map(|row| row.iter().copied())
                    .collect();
                Some((area, Restore::Saved(saved)))
            }
        };
        for (row, drawn) in area
            .rows(&mut self.canvas)
            .zip(self.pixels.chunks_exact(frame_width * 4))
        {
            draw_row(row, drawn);
        }
        Ok(Some(self.canvas.clone()))
    }
}

/// Draws RGBA pixels over RGB ones; GIF pixels are opaque or absent.
fn draw_row(row: &mut [u8], drawn: &[u8]) {
    for (pixel, drawn) in row.chunks_exact_mut(3).zip(drawn.chunks_exact(4)) {
        if drawn[3] != 0 {
            pixel.copy_from_slice(&drawn[..3]);
        }
    }
}

/// A rectangle within the canvas, in pixels.
#[derive(Clone, Copy)]
struct Area {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Area {
    /// The part of the canvas that a frame covers.
    fn of(frame: &gif::Frame<'_>, canvas: &Frame) -> Self {
        let (left, top) = (usize::from(frame.left), usize::from(frame.top));
        Self {
            left,
            top,
            width: usize::from(frame.width).min((canvas.width as usize).saturating_sub(left)),
            height: usize::from(frame.height).min((canvas.height as usize).saturating_sub(top)),
        }
    }

    fn row_bytes(&self) -> usize {
        self.width * 3
    }

    fn rows<'a>(&self, canvas: &'a mut Frame) -> impl Iterator<Item = &'a mut [u8]> + use<'a> {
        let stride = canvas.width as usize * 3;
        let (start, bytes) = (self.left * 3, self.row_bytes());
        let height = if self.width == 0 { 0 } else { self.height };
        canvas
            .rgb
            .chunks_exact_mut(stride)
            .skip(self.top)
            .take(height)
            .map(move |row| &mut row[start..start + bytes])
    }
}

struct Timing {
    frames: u64,
    /// Sum of all delays, in hundredths of a second.
    units: u64,
    varies: bool,
}

impl Timing {
    fn rate(&self) -> Result<Rational, MediaError> {
        Rational::new(self.frames * UNITS_PER_SECOND, self.units).ok_or(MediaError::NoFrames)
    }
}

/// Counts frames and delays without decoding, and checks every frame's size.
fn scan(source: &Source, limits: &Limits) -> Result<Timing, MediaError> {
    let mut decoder = decode(source, limits, true)?;
    limits.check_size(decoder.width().into(), decoder.height().into())?;
    let mut timing = Timing {
        frames: 0,
        units: 0,
        varies: false,
    };
    let (mut first_delay, mut last_differs) = (None, false);
    while let Some(frame) = decoder
        .next_frame_info()
        .map_err(|cause| decode_error(timing.frames, cause))?
    {
        limits.check_size(frame.width.into(), frame.height.into())?;
        let delay = if frame.delay <= IGNORED_DELAY_MAX {
            DEFAULT_DELAY
        } else {
            frame.delay
        };
        timing.varies |= last_differs;
        last_differs = *first_delay.get_or_insert(delay) != delay;
        timing.frames += 1;
        timing.units += u64::from(delay);
        limits.check_frames(timing.frames)?;
    }
    if timing.frames == 0 {
        Err(MediaError::NoFrames)
    } else {
        Ok(timing)
    }
}

fn decode(
    source: &Source,
    limits: &Limits,
    skip_pixels: bool,
) -> Result<Decoder<SourceReader>, MediaError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    options.skip_frame_decoding(skip_pixels);
    let frame_bytes_max = NonZeroU64::new(limits.frame_pixels_max * 4).unwrap_or(NonZeroU64::MIN);
    options.set_memory_limit(MemoryLimit::Bytes(frame_bytes_max));
    options
        .read_info(source.reader())
        .map_err(|cause| decode_error(0, cause))
}

fn decode_error(frame: u64, cause: DecodingError) -> MediaError {
    match cause {
        DecodingError::UnexpectedEof => MediaError::Truncated { inside: "the GIF" },
        DecodingError::Io(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::Truncated { inside: "the GIF" }
        }
        DecodingError::Io(cause) => MediaError::Read(cause),
        cause => MediaError::Decode {
            codec: Codec::Gif,
            frame,
            cause: Box::new(cause),
        },
    }
}
