//! Frames of a video track, decoded one by one and put into display order, whatever container it lies in.

use std::collections::BTreeMap;

use crate::av1::{Av1Decoder, find_sequence_header};
use crate::colour::{ColourCode, Planes, YuvToRgb};
use crate::error::FourCc;
use crate::file::Source;
use crate::frame::{ClipFormat, ClipInfo, Frame, FrameReader, Rational};
use crate::h264::H264Decoder;
use crate::limits::at_most;
use crate::sound::SoundTrack;
use crate::{Limits, MediaError, Quantity};

/// Frames that may wait for one that is shown earlier; the largest decoded picture buffer of H.264 (A.3.1).
const REORDERED_FRAMES_MAX: u64 = 16;
/// Fields of `av1C` before its units (AV1 in ISOBMFF, 2.3.3).
const AV1_CONFIG_HEADER_BYTES: usize = 4;

/// A codec, with what the container says about its stream.
pub(crate) enum TrackCodec {
    /// Payload of `avcC`.
    H264(Vec<u8>),
    /// Payload of `av1C`; empty where the container has none.
    Av1(Vec<u8>),
}

/// One coded frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodedFrame {
    /// In the file, in bytes.
    pub(crate) position: u64,
    /// Within the limit and the file.
    pub(crate) bytes: u32,
    /// Position among the shown frames. None for a frame that only others refer to.
    pub(crate) shown: Option<u32>,
}

/// A track ready to be decoded.
pub(crate) struct VideoTrack {
    pub(crate) codec: TrackCodec,
    /// In decoding order.
    pub(crate) frames: Vec<CodedFrame>,
    pub(crate) frames_shown: u64,
    pub(crate) frame_rate: Rational,
    pub(crate) frame_rate_varies: bool,
    /// Clockwise quarter turns from the coded to the displayed picture.
    pub(crate) quarter_turns: u8,
    /// Outranks what the stream says.
    pub(crate) colour: Option<ColourCode>,
    /// Outranks what the stream says.
    pub(crate) pixel_aspect: Option<Rational>,
    /// What a clip of this track is called when its codec is AV1.
    pub(crate) av1_format: ClipFormat,
    pub(crate) sound: Option<SoundTrack>,
}

/// What a stream says of itself.
struct StreamInfo {
    width: u32,
    height: u32,
    colour: Option<ColourCode>,
    pixel_aspect: Option<Rational>,
    format: ClipFormat,
}

enum Decoder {
    H264(Box<H264Decoder>),
    Av1(Box<Av1Decoder>),
}

impl Decoder {
    fn decode(&mut self, sample: &[u8], index: u64) -> Result<Planes, MediaError> {
        match self {
            Self::H264(decoder) => decoder.decode(sample, index),
            Self::Av1(decoder) => decoder.decode(sample, index),
        }
    }
}

/// Reads a video track.
pub(crate) struct VideoReader {
    source: Source,
    info: ClipInfo,
    sound: Option<SoundTrack>,
    decoder: Decoder,
    to_rgb: YuvToRgb,
    quarter_turns: u8,
    frames: Vec<CodedFrame>,
    /// Index into `frames` of the next one to decode.
    next_coded: usize,
    /// Display position of the next frame to hand out.
    next_shown: u32,
    waiting: BTreeMap<u32, Planes>,
    sample: Vec<u8>,
}

impl VideoReader {
    pub(crate) fn open(
        source: Source,
        track: VideoTrack,
        limits: &Limits,
    ) -> Result<Self, MediaError> {
        let (decoder, stream) = open_stream(&source, &track, limits)?;
        let to_rgb = YuvToRgb::new(track.colour.or(stream.colour), stream.height)?;
        let pixel_aspect = track
            .pixel_aspect
            .or(stream.pixel_aspect)
            .unwrap_or(Rational::ONE);
        let mut info = ClipInfo {
            width: stream.width,
            height: stream.height,
            frame_count: Some(track.frames_shown),
            frame_rate: track.frame_rate,
            frame_rate_varies: track.frame_rate_varies,
            pixel_aspect,
            format: stream.format,
        };
        if track.quarter_turns % 2 == 1 {
            (info.width, info.height) = (stream.height, stream.width);
            info.pixel_aspect = pixel_aspect.inverse();
        }
        Ok(Self {
            source,
            info,
            sound: track.sound,
            decoder,
            to_rgb,
            quarter_turns: track.quarter_turns,
            frames: track.frames,
            next_coded: 0,
            next_shown: 0,
            waiting: BTreeMap::new(),
            sample: Vec::new(),
        })
    }

    /// Decodes the next coded frame and keeps its picture if it is shown.
    fn decode_next(&mut self) -> Result<(), MediaError> {
        let coded = self.frames[self.next_coded];
        read_sample(&self.source, coded, &mut self.sample)?;
        let planes = self.decoder.decode(&self.sample, self.next_coded as u64)?;
        self.next_coded += 1;
        if let Some(position) = coded.shown {
            self.waiting.insert(position, planes);
            at_most(
                Quantity::ReorderedFrames,
                self.waiting.len() as u64 - 1,
                REORDERED_FRAMES_MAX,
            )?;
        }
        Ok(())
    }
}

impl FrameReader for VideoReader {
    fn info(&self) -> &ClipInfo {
        &self.info
    }

    fn sound(&self) -> Option<&SoundTrack> {
        self.sound.as_ref()
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError> {
        loop {
            if let Some(planes) = self.waiting.remove(&self.next_shown) {
                self.next_shown += 1;
                let frame = self.to_rgb.convert(&planes);
                return Ok(Some(frame.rotated(self.quarter_turns)));
            }
            if self.next_coded == self.frames.len() {
                return Ok(None);
            }
            self.decode_next()?;
        }
    }
}

fn read_sample(source: &Source, coded: CodedFrame, buffer: &mut Vec<u8>) -> Result<(), MediaError> {
    buffer.resize(coded.bytes as usize, 0);
    source.read_at(buffer, coded.position, "a sample")
}

fn open_stream(
    source: &Source,
    track: &VideoTrack,
    limits: &Limits,
) -> Result<(Decoder, StreamInfo), MediaError> {
    match &track.codec {
        TrackCodec::H264(config) => {
            let decoder = H264Decoder::new(config, limits)?;
            let params = decoder.parameters();
            let stream = StreamInfo {
                width: params.width,
                height: params.height,
                colour: params.colour,
                pixel_aspect: params.pixel_aspect,
                format: ClipFormat::Mp4H264 {
                    profile_idc: params.profile_idc,
                },
            };
            Ok((Decoder::H264(Box::new(decoder)), stream))
        }
        TrackCodec::Av1(config) => open_av1(source, track, config, limits),
    }
}

/// The sequence header is in the container's description, or else in the first sample.
fn open_av1(
    source: &Source,
    track: &VideoTrack,
    config: &[u8],
    limits: &Limits,
) -> Result<(Decoder, StreamInfo), MediaError> {
    let units = config.get(AV1_CONFIG_HEADER_BYTES..).unwrap_or_default();
    let mut header = find_sequence_header(units, limits)?;
    if header.is_none()
        && let Some(&first) = track.frames.first()
    {
        let mut sample = Vec::new();
        read_sample(source, first, &mut sample)?;
        header = find_sequence_header(&sample, limits)?;
    }
    let header = header.ok_or(MediaError::corrupt(
        "the AV1 stream",
        "has no sequence header",
    ))?;
    let stream = StreamInfo {
        width: header.width,
        height: header.height,
        colour: header.colour,
        pixel_aspect: None,
        format: track.av1_format,
    };
    let decoder = Av1Decoder::new(units, &header)?;
    Ok((Decoder::Av1(Box::new(decoder)), stream))
}

/// A codec that is refused, by the name that MP4 files have for it.
pub(crate) fn refused_codec(name: &[u8; 4]) -> MediaError {
    MediaError::NotSupported(crate::Unsupported::Codec(FourCc(*name)))
}
