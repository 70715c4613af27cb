//! PNG pictures: one, or one per frame.

use std::fs::File;
use std::io::BufReader;

use image::codecs::png::{CompressionType, FilterType, PngDecoder, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError};

use crate::file::{Sink, Source};
use crate::frame::{ClipFormat, ClipInfo, Frame, FrameReader, FrameWriter, Rational, WrittenClip};
use crate::{ClipSpec, Codec, Limits, MediaError, Unsupported};

/// Bytes of a decoded picture: at most 4 channels of 16 bits.
const DECODED_PIXEL_BYTES_MAX: u64 = 8;
/// Ancillary chunks and decoder state beside the picture.
const DECODER_BYTES_MAX: u64 = 4 << 20;

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// Whether the first bytes of a file are those of a PNG.
pub(crate) fn is_png(head: &[u8]) -> bool {
    head.starts_with(&SIGNATURE)
}

/// Reads PNG files, one frame each. Transparent pixels are blended with black.
pub(crate) struct PngReader {
    sources: Vec<Source>,
    info: ClipInfo,
    limits: Limits,
    next_frame: usize,
}

impl PngReader {
    pub(crate) fn open_sequence(
        files: Vec<File>,
        frame_rate: Rational,
        limits: &Limits,
    ) -> Result<Self, MediaError> {
        limits.check_frames(files.len() as u64)?;
        let sources = files
            .into_iter()
            .map(|file| Source::new(file, limits))
            .collect::<Result<_, _>>()?;
        Self::open(sources, frame_rate, ClipFormat::PngSequence, limits)
    }

    /// One PNG file, or several one after another in one file. A PNG file tells its own end (PNG specification, 5.3 and
    /// 5.6), so no index is needed; what follows the last one is no concern of ours.
    pub(crate) fn open_stream(source: &Source, limits: &Limits) -> Result<Self, MediaError> {
        let mut sources = Vec::new();
        let mut start = 0;
        while sources.is_empty() || starts_png(source, start)? {
            limits.check_frames(sources.len() as u64 + 1)?;
            let end = end_of_png(source, start)?;
            sources.push(source.part(start, end - start));
            start = end;
        }
        let format = if sources.len() == 1 {
            ClipFormat::Png
        } else {
            ClipFormat::PngSequence
        };
        Self::open(sources, Rational::ONE, format, limits)
    }

    fn open(
        sources: Vec<Source>,
        frame_rate: Rational,
        format: ClipFormat,
        limits: &Limits,
    ) -> Result<Self, MediaError> {
        let first = sources.first().ok_or(MediaError::NoFrames)?;
        let (width, height) = decoder(first, limits, 0)?.dimensions();
        let info = ClipInfo {
            width,
            height,
            frame_count: Some(sources.len() as u64),
            frame_rate,
            frame_rate_varies: false,
            pixel_aspect: Rational::ONE,
            format,
        };
        Ok(Self {
            sources,
            info,
            limits: limits.clone(),
            next_frame: 0,
        })
    }
}

impl FrameReader for PngReader {
    fn info(&self) -> &ClipInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError> {
        let Some(source) = self.sources.get(self.next_frame) else {
            return Ok(None);
        };
        let index = self.next_frame as u64;
        let decoder = decoder(source, &self.limits, index)?;
        let (width, height) = decoder.dimensions();
        if (width, height) != (self.info.width, self.info.height) {
            return Err(MediaError::NotSupported(Unsupported::SizeChange));
        }
        let picture =
            DynamicImage::from_decoder(decoder).map_err(|cause| decode_error(index, cause))?;
        self.next_frame += 1;
        Ok(Some(Frame {
            width,
            height,
            rgb: opaque_rgb(picture),
        }))
    }
}

fn starts_png(source: &Source, start: u64) -> Result<bool, MediaError> {
    let mut head = [0; SIGNATURE.len()];
    if source.bytes().saturating_sub(start) < SIGNATURE.len() as u64 {
        return Ok(false);
    }
    source.read_at(&mut head, start, "the PNG signature")?;
    Ok(is_png(&head))
}

/// Where the PNG that begins at `start` ends: behind its `IEND` chunk.
fn end_of_png(source: &Source, start: u64) -> Result<u64, MediaError> {
    let inside = "the PNG";
    let mut position = start + SIGNATURE.len() as u64;
    loop {
        let mut head = [0; 8];
        source.read_at(&mut head, position, inside)?;
        let [a, b, c, d, kind @ ..] = head;
        // Length, kind, content, checksum.
        position += 12 + u64::from(u32::from_be_bytes([a, b, c, d]));
        if position > source.bytes() {
            return Err(MediaError::Truncated { inside });
        }
        if &kind == b"IEND" {
            return Ok(position);
        }
    }
}

fn decoder(
    source: &Source,
    limits: &Limits,
    frame: u64,
) -> Result<PngDecoder<BufReader<impl std::io::Read + std::io::Seek + use<>>>, MediaError> {
    let mut head = [0; 8];
    source.read_at(&mut head, 0, "the PNG signature")?;
    if !is_png(&head) {
        return Err(MediaError::NotSupported(Unsupported::Container));
    }
    let mut memory = image::Limits::no_limits();
    memory.max_alloc = Some(limits.frame_pixels_max * DECODED_PIXEL_BYTES_MAX + DECODER_BYTES_MAX);
    let reader = BufReader::new(source.reader());
    let decoder =
        PngDecoder::with_limits(reader, memory).map_err(|cause| decode_error(frame, cause))?;
    let (width, height) = decoder.dimensions();
    limits.check_size(width, height)?;
    Ok(decoder)
}

fn opaque_rgb(picture: DynamicImage) -> Vec<u8> {
    if !picture.color().has_alpha() {
        return picture.into_rgb8().into_raw();
    }
    let blend =
        |channel: u8, alpha: u8| ((u16::from(channel) * u16::from(alpha) + 127) / 255) as u8;
    picture
        .into_rgba8()
        .pixels()
        .flat_map(|&image::Rgba([r, g, b, a])| [r, g, b].map(|c| blend(c, a)))
        .collect()
}

fn decode_error(frame: u64, cause: ImageError) -> MediaError {
    match cause {
        ImageError::IoError(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::Truncated { inside: "the PNG" }
        }
        ImageError::IoError(cause) => MediaError::Read(cause),
        cause => MediaError::Decode {
            codec: Codec::Png,
            frame,
            cause: Box::new(cause),
        },
    }
}

/// Encodes one frame as an RGB PNG.
pub fn encode_png(frame: &Frame) -> Result<Vec<u8>, MediaError> {
    if !frame.is_consistent() {
        let size = (frame.width, frame.height);
        return Err(MediaError::FrameSize {
            frame: 0,
            have: size,
            want: size,
        });
    }
    let mut png = Vec::new();
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive)
        .write_image(
            &frame.rgb,
            frame.width,
            frame.height,
            ExtendedColorType::Rgb8,
        )
        .map_err(|cause| MediaError::Encode {
            codec: Codec::Png,
            cause: Box::new(cause),
        })?;
    Ok(png)
}

/// Opens the file for frame number `index`, from 0.
pub(crate) type NextFile = Box<dyn FnMut(u64) -> std::io::Result<File> + Send>;

/// Writes one PNG file per frame.
pub(crate) struct PngSequenceWriter {
    next_file: NextFile,
    spec: ClipSpec,
    limits: Limits,
    written: WrittenClip,
}

impl PngSequenceWriter {
    pub(crate) fn new(next_file: NextFile, spec: ClipSpec, limits: &Limits) -> Self {
        Self {
            next_file,
            spec,
            limits: limits.clone(),
            written: WrittenClip {
                bytes: 0,
                frames: 0,
            },
        }
    }
}

impl FrameWriter for PngSequenceWriter {
    fn push(&mut self, frame: &Frame) -> Result<(), MediaError> {
        self.spec.check_frame(frame, self.written.frames)?;
        self.limits.check_frames(self.written.frames + 1)?;
        let png = encode_png(frame)?;
        let file = (self.next_file)(self.written.frames).map_err(MediaError::Write)?;
        let mut sink = Sink::new(file)?;
        sink.append(&png)?;
        self.written.bytes += sink.finish()?;
        self.written.frames += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<WrittenClip, MediaError> {
        if self.written.frames == 0 {
            Err(MediaError::NoFrames)
        } else {
            Ok(self.written)
        }
    }
}

/// Writes PNG files one after another into one file.
pub(crate) struct PngStreamWriter {
    sink: Sink,
    spec: ClipSpec,
    limits: Limits,
    frames: u64,
}

impl PngStreamWriter {
    pub(crate) fn new(sink: Sink, spec: ClipSpec, limits: &Limits) -> Self {
        Self {
            sink,
            spec,
            limits: limits.clone(),
            frames: 0,
        }
    }
}

impl FrameWriter for PngStreamWriter {
    fn push(&mut self, frame: &Frame) -> Result<(), MediaError> {
        self.spec.check_frame(frame, self.frames)?;
        self.limits.check_frames(self.frames + 1)?;
        self.sink.append(&encode_png(frame)?)?;
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
