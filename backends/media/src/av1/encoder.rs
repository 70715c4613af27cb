//! Frames to AV1 in MP4 or WebM, with as many frames in memory as the encoder looks ahead.

use rav1e::prelude::{
    ChromaSampling, ColorDescription, ColorPrimaries, Config, Context, EncoderConfig,
    EncoderStatus, FrameType, MatrixCoefficients, PixelRange, TransferCharacteristics, Tune,
};

use super::Av1Stream;
use super::level::level_index;
use super::obu::{sequence_header_unit, without_delimiter};
use crate::colour::{Planes, RgbToYuv};
use crate::frame::{Frame, FrameWriter, WrittenClip};
use crate::limits::at_least;
use crate::mp4::Mp4Muxer;
use crate::webm::WebmMuxer;
use crate::{Av1Settings, Cause, ClipSpec, Codec, Limits, MediaError, Quantity, Unsupported};

/// rav1e refuses smaller sides.
const SIDE_PIXELS_MIN: u64 = 16;
/// Fastest preset of rav1e.
const SPEED_MAX: u8 = 10;
/// Seconds between key frames at most, which is how far a player must decode to seek.
const KEY_FRAME_INTERVAL_SECONDS_MAX: f64 = 5.0;
/// Frames between key frames at most.
const KEY_FRAME_INTERVAL_MAX: f64 = 300.0;

/// What the coded frames are put into.
pub(crate) enum Av1Container {
    Mp4(Box<Mp4Muxer>),
    Webm(Box<WebmMuxer>),
}

/// Writes a file with an AV1 track, 4:2:0 8-bit limited-range BT.709.
pub(crate) struct Av1Writer {
    context: Context<u8>,
    container: Av1Container,
    spec: ClipSpec,
    limits: Limits,
    to_yuv: RgbToYuv,
    planes: Planes,
    /// Frames given to the encoder.
    pushed: u64,
    level_index: u8,
    /// What the container says of the stream; empty before the first coded frame.
    config: Vec<u8>,
}

impl Av1Writer {
    pub(crate) fn new(
        container: Av1Container,
        spec: ClipSpec,
        settings: &Av1Settings,
        limits: &Limits,
    ) -> Result<Self, MediaError> {
        at_least(Quantity::Width, spec.width.into(), SIDE_PIXELS_MIN)?;
        at_least(Quantity::Height, spec.height.into(), SIDE_PIXELS_MIN)?;
        let level_index = level_index(&spec);
        let config = Config::new()
            .with_encoder_config(encoder_config(&spec, settings, level_index))
            .with_threads(settings.threads.get().into());
        Ok(Self {
            context: config.new_context().map_err(encode_error)?,
            container,
            to_yuv: RgbToYuv::bt709(),
            planes: Planes::empty(),
            spec,
            limits: limits.clone(),
            pushed: 0,
            level_index,
            config: Vec::new(),
        })
    }

    /// Moves finished packets into the file until the encoder asks for frames or is done.
    fn drain(&mut self) -> Result<(), MediaError> {
        loop {
            match self.context.receive_packet() {
                Ok(packet) => {
                    let is_key = packet.frame_type == FrameType::KEY;
                    self.append(without_delimiter(&packet.data), is_key)?;
                }
                Err(EncoderStatus::Encoded) => {}
                Err(EncoderStatus::NeedMoreData | EncoderStatus::LimitReached) => return Ok(()),
                Err(status) => return Err(encode_error(status)),
            }
        }
    }

    fn append(&mut self, sample: &[u8], is_key: bool) -> Result<(), MediaError> {
        if self.config.is_empty() {
            let header = sequence_header_unit(sample).unwrap_or_default();
            self.config = stream_config(self.level_index, header);
        }
        let stream = Av1Stream {
            spec: &self.spec,
            config: &self.config,
        };
        match &mut self.container {
            Av1Container::Mp4(muxer) => muxer.append(sample, is_key),
            Av1Container::Webm(muxer) => muxer.append(&stream, sample, is_key),
        }
    }
}

/// `av1C` (AV1 in ISOBMFF, 2.3.3), the same in both containers.
fn stream_config(level_index: u8, sequence_header: &[u8]) -> Vec<u8> {
    let mut config = vec![
        0x81,        // marker, version 1
        level_index, // profile 0 in the high bits
        0b1100,      // tier 0, 8 bits, colour, 4:2:0, unknown chroma position
        0,           // no initial presentation delay
    ];
    config.extend_from_slice(sequence_header);
    config
}

impl FrameWriter for Av1Writer {
    fn push(&mut self, frame: &Frame) -> Result<(), MediaError> {
        self.spec.check_frame(frame, self.pushed)?;
        self.limits.check_frames(self.pushed + 1)?;
        self.to_yuv.convert(frame, &mut self.planes);
        let mut input = self.context.new_frame();
        let width = frame.width as usize;
        let (chroma_width, _) = self.planes.chroma.size(frame.width, frame.height);
        input.planes[0].copy_from_raw_u8(&self.planes.y, width, 1);
        input.planes[1].copy_from_raw_u8(&self.planes.u, chroma_width, 1);
        input.planes[2].copy_from_raw_u8(&self.planes.v, chroma_width, 1);
        self.context.send_frame(input).map_err(encode_error)?;
        self.pushed += 1;
        self.drain()
    }

    fn push_audio(&mut self, samples: &[f32]) -> Result<(), MediaError> {
        let has_track = match &mut self.container {
            Av1Container::Mp4(muxer) => muxer.append_audio(samples)?,
            Av1Container::Webm(muxer) => muxer.append_audio(samples)?,
        };
        if has_track {
            Ok(())
        } else {
            Err(MediaError::NotSupported(Unsupported::AudioTrack))
        }
    }

    fn finish(mut self: Box<Self>) -> Result<WrittenClip, MediaError> {
        if self.pushed == 0 {
            return Err(MediaError::NoFrames);
        }
        self.context.flush();
        self.drain()?;
        let frames = match &self.container {
            Av1Container::Mp4(muxer) => muxer.frames(),
            Av1Container::Webm(muxer) => muxer.frames(),
        };
        if frames != self.pushed {
            return Err(encode_error("the encoder lost frames"));
        }
        let stream = Av1Stream {
            spec: &self.spec,
            config: &self.config,
        };
        let bytes = match self.container {
            Av1Container::Mp4(muxer) => muxer.finish(&stream)?,
            Av1Container::Webm(muxer) => muxer.finish()?,
        };
        Ok(WrittenClip { bytes, frames })
    }
}

fn encoder_config(spec: &ClipSpec, settings: &Av1Settings, level_index: u8) -> EncoderConfig {
    let mut config = EncoderConfig::with_speed_preset(settings.speed.min(SPEED_MAX));
    config.width = spec.width as usize;
    config.height = spec.height as usize;
    config.time_base =
        rav1e::prelude::Rational::new(spec.frame_rate.den().into(), spec.frame_rate.num().into());
    config.bit_depth = 8;
    config.chroma_sampling = ChromaSampling::Cs420;
    config.pixel_range = PixelRange::Limited;
    config.color_description = Some(ColorDescription {
        color_primaries: ColorPrimaries::BT709,
        transfer_characteristics: TransferCharacteristics::BT709,
        matrix_coefficients: MatrixCoefficients::BT709,
    });
    config.level_idx = Some(level_index);
    config.low_latency = settings.low_latency;
    // Against the default (psychovisual) tuning: a fifth less time and the same size, at 0.2 dB less.
    config.tune = Tune::Psnr;
    // Looking further ahead only feeds the default tuning, at the price of the frames held.
    config.speed_settings.rdo_lookahead_frames = 1;
    if settings.speed >= SPEED_MAX {
        config.speed_settings.cdef = false;
    }
    config.quantizer = settings.quantizer.into();
    config.tiles = settings.tiles.into();
    let key_frame_interval = spec.frame_rate.as_f64() * KEY_FRAME_INTERVAL_SECONDS_MAX;
    config.set_key_frame_interval(
        0,
        key_frame_interval.clamp(1.0, KEY_FRAME_INTERVAL_MAX) as u64,
    );
    config
}

fn encode_error(cause: impl Into<Cause>) -> MediaError {
    MediaError::Encode {
        codec: Codec::Av1,
        cause: cause.into(),
    }
}
