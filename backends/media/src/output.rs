//! What a clip is written as.

use std::fs::File;
use std::num::NonZeroU16;

use crate::audio::{AudioSource, AudioSpec};
use crate::av1::{Av1Container, Av1Writer};
use crate::file::Sink;
use crate::gif::GifWriter;
use crate::mp4::Mp4Muxer;
use crate::png::{PngSequenceWriter, PngStreamWriter};
use crate::raw::{RawLayout, RawWriter};
use crate::webm::WebmMuxer;
use crate::webp::WebPWriter;
use crate::{
    ClipInfo, Codec, Frame, FrameWriter, Limits, MediaError, Rational, SoundTrack, Unsupported,
};

/// Size and rate of a clip to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClipSpec {
    /// Width of every frame, in pixels.
    pub width: u32,
    /// Height of every frame, in pixels.
    pub height: u32,
    /// Frames per second, constant.
    pub frame_rate: Rational,
    /// Width of a pixel divided by its height, as displayed. MP4, WebM and Y4M keep it.
    pub pixel_aspect: Rational,
}

impl ClipSpec {
    /// The spec of a clip that is like one that was read.
    pub fn like(info: &ClipInfo) -> Self {
        Self {
            width: info.width,
            height: info.height,
            frame_rate: info.frame_rate,
            pixel_aspect: info.pixel_aspect,
        }
    }

    pub(crate) fn check_frame(&self, frame: &Frame, index: u64) -> Result<(), MediaError> {
        let (have, want) = ((frame.width, frame.height), (self.width, self.height));
        if have == want && frame.is_consistent() {
            Ok(())
        } else {
            Err(MediaError::FrameSize {
                frame: index,
                have,
                want,
            })
        }
    }
}

/// Format of a written clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// AV1 in MP4: 4:2:0, 8 bits, BT.709, limited range. Sides of at least 16 pixels. The encoder holds about 500
    /// bytes of memory per pixel of a frame, however long the clip. Takes an audio track, in FLAC.
    Mp4Av1(Av1Settings),
    /// The same pictures in WebM, with cues, so that players can seek. Takes an audio track, in Opus.
    ///
    /// Pictures and sound are stored side by side if they are pushed by turns. Up to half an hour of sound may come
    /// before its frames, and is held until they do; frames wait for their sound up to 4 MiB of them.
    WebmAv1(Av1Settings),
    /// Animated GIF that loops: at most 50 frames per second, and 256 colours per frame.
    Gif,
    /// Animated WebP that loops, lossless: at most 90 frames per second. Of each frame, the smallest rectangle with all
    /// that changed is stored.
    WebP,
    /// PNG files one after another in one file, as [`open`](crate::open) reads them too.
    PngStream,
    /// Frames one after another, without a header. Nothing reads them without being told size, rate and layout.
    Raw(RawLayout),
    /// Uncompressed frames of layout [`RawLayout::I420`] behind the header of YUV4MPEG2 (`.y4m`).
    Y4m,
}

impl Output {
    /// Whether [`create_with_audio`] accepts it.
    pub fn takes_audio(&self) -> bool {
        self.audio_codec().is_some()
    }

    /// What its audio track is coded in; None where it takes none.
    pub fn audio_codec(&self) -> Option<Codec> {
        match self {
            Self::Mp4Av1(_) => Some(Codec::Flac),
            Self::WebmAv1(_) => Some(Codec::Opus),
            _ => None,
        }
    }

    /// Whether [`create_with_audio`] accepts it with this sound. WebM takes the rates of
    /// [`OPUS_SAMPLE_RATES`](crate::OPUS_SAMPLE_RATES) only: other sound must be resampled before.
    pub fn takes_audio_spec(&self, audio: &AudioSpec) -> bool {
        self.audio_codec()
            .is_some_and(|codec| audio.check_for(codec).is_ok())
    }

    /// Whether [`create_with_sound`] accepts it with this sound: MP4 takes AAC, MP3, Opus, FLAC, ALAC, AC-3 and E-AC-3,
    /// WebM takes Opus and Vorbis. From WebM to MP4 go Opus, FLAC and AAC whose packets leave no gaps.
    pub fn keeps_sound(&self, sound: &SoundTrack) -> bool {
        match self {
            Self::Mp4Av1(_) => sound.fits_mp4(),
            Self::WebmAv1(_) => sound.fits_webm(),
            _ => false,
        }
    }
}

/// Settings of the AV1 encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Av1Settings {
    /// rav1e's preset from 0 (smallest file) to 10 (fastest); above counts as 10.
    pub speed: u8,
    /// Base quantiser from 0 (best) to 255 (smallest file).
    pub quantizer: u8,
    /// Threads of the encoder.
    pub threads: NonZeroU16,
    /// Tiles that each frame is cut into, which can be encoded at the same time; 0 or 1 for none.
    pub tiles: u16,
    /// Whether frames are coded in display order: nearly twice as fast, files a third larger.
    pub low_latency: bool,
}

impl Default for Av1Settings {
    /// Fastest preset, good quality, one thread.
    fn default() -> Self {
        Self {
            speed: 10,
            quantizer: 80,
            threads: NonZeroU16::MIN,
            tiles: 1,
            low_latency: false,
        }
    }
}

/// Starts a clip in `file`, which must be a regular file (or a memfd) open for writing, not in append mode; it is
/// emptied first. Pipes and sockets are refused: whoever fails to read from one would halt the process that writes.
pub fn create(
    file: File,
    spec: &ClipSpec,
    output: &Output,
    limits: &Limits,
) -> Result<Box<dyn FrameWriter>, MediaError> {
    create_clip(file, spec, output, AudioSource::None, limits)
}

/// Starts a clip with an audio track, as [`create`] does: FLAC of 16 bits in MP4, Opus of 64 kbit/s per channel in WebM.
/// Samples come by [`FrameWriter::push_audio`].
pub fn create_with_audio(
    file: File,
    spec: &ClipSpec,
    output: &Output,
    audio: &AudioSpec,
    limits: &Limits,
) -> Result<Box<dyn FrameWriter>, MediaError> {
    if let Some(codec) = output.audio_codec() {
        audio.check_for(codec)?;
        create_clip(file, spec, output, AudioSource::Samples(*audio), limits)
    } else {
        Err(MediaError::NotSupported(Unsupported::AudioTrack))
    }
}

/// Starts a clip with the sound of another, as [`create`] does. Its packets are copied as frames come, without being
/// decoded, each near the frames that it is heard with; the first frame is that of the other clip.
/// [`FrameWriter::push_audio`] is refused.
///
/// Frames and sound stay together where the frames' rate is that of the other clip, or, with frames between frames, a
/// multiple of it. Of a clip whose rate varies, which is written at its average, beginning and end do.
pub fn create_with_sound(
    file: File,
    spec: &ClipSpec,
    output: &Output,
    sound: &SoundTrack,
    limits: &Limits,
) -> Result<Box<dyn FrameWriter>, MediaError> {
    if !output.keeps_sound(sound) {
        return Err(MediaError::NotSupported(Unsupported::AudioTrack));
    }
    create_clip(file, spec, output, AudioSource::Copy(sound.clone()), limits)
}

fn create_clip(
    file: File,
    spec: &ClipSpec,
    output: &Output,
    audio: AudioSource,
    limits: &Limits,
) -> Result<Box<dyn FrameWriter>, MediaError> {
    limits.check_size(spec.width, spec.height)?;
    let sink = Sink::new(file)?;
    let own = spec.clone();
    Ok(match output {
        Output::Mp4Av1(settings) => {
            let container = Av1Container::Mp4(Box::new(Mp4Muxer::new(sink, spec, audio)?));
            Box::new(Av1Writer::new(container, own, settings, limits)?)
        }
        Output::WebmAv1(settings) => {
            let container = Av1Container::Webm(Box::new(WebmMuxer::new(sink, spec, audio)?));
            Box::new(Av1Writer::new(container, own, settings, limits)?)
        }
        Output::Gif => Box::new(GifWriter::new(sink, own, limits)?),
        Output::WebP => Box::new(WebPWriter::new(sink, own, limits)?),
        Output::PngStream => Box::new(PngStreamWriter::new(sink, own, limits)),
        Output::Raw(layout) => Box::new(RawWriter::new(sink, own, *layout, limits)),
        Output::Y4m => Box::new(RawWriter::y4m(sink, own, limits)?),
    })
}

/// Starts a clip of one PNG file per frame. `next_file` opens the file for frame number `n`, from 0.
pub fn create_png_sequence(
    next_file: impl FnMut(u64) -> std::io::Result<File> + Send + 'static,
    spec: &ClipSpec,
    limits: &Limits,
) -> Result<Box<dyn FrameWriter>, MediaError> {
    limits.check_size(spec.width, spec.height)?;
    Ok(Box::new(PngSequenceWriter::new(
        Box::new(next_file),
        spec.clone(),
        limits,
    )))
}
