//! What a WebM file says before its first cluster: where things lie, how long it is, and what the tracks are.

use super::elements::{self as id, ElementWriter, long_size, void};
use crate::MediaError;
use crate::av1::Av1Stream;
use crate::file::Sink;
use crate::opus::{OpusEncoder, TICK_RATE};
use crate::sound::{SoundConfig, SoundTrack, rescale};

/// Number of the video track.
pub(super) const VIDEO_TRACK: u8 = 1;
/// Number of the audio track.
pub(super) const AUDIO_TRACK: u8 = 2;
/// Bytes of a size or position that is written over later.
pub(super) const LONG_BYTES: usize = 8;
/// Nanoseconds of a timestamp unit, as WebM wants it: a millisecond.
const TIMESTAMP_UNIT_NS: u64 = 1_000_000;
/// BT.709 in H.273, for primaries, transfer and matrix alike.
const BT709: u64 = 1;
/// Limited range.
const BROADCAST_RANGE: u64 = 1;
/// `FlagInterlaced` of progressive pictures.
const PROGRESSIVE: u64 = 2;
/// `TrackType` of pictures.
const VIDEO_TYPE: u64 = 1;
/// `TrackType` of sound.
const AUDIO_TYPE: u64 = 2;
/// What a decoder of Opus must have heard before it is right again after a seek (RFC 7845, 4.6): 80 ms.
const SEEK_PRE_ROLL_NS: u64 = 80_000_000;

/// Places in the file, in bytes from its start.
pub(super) struct Segment {
    content_at: u64,
    info_at: u64,
    tracks_at: u64,
    duration_at: u64,
    /// Entry of the audio track, if there is one, and its size.
    audio_at: u64,
    audio_bytes: usize,
}

/// What the audio track says of itself.
pub(super) struct AudioEntry {
    codec: &'static [u8],
    private: Vec<u8>,
    /// By which what is heard is behind the times of its blocks, in nanoseconds.
    delay_ns: u64,
    /// What decoders must have heard before they are right after a seek.
    seek_pre_roll_ns: u64,
    /// Samples per second of what was encoded.
    sample_rate: u32,
    /// Samples per second when decoded, where that is another.
    decoded_rate: Option<u32>,
    channels: u16,
}

impl AudioEntry {
    pub(super) fn encoded(sound: &OpusEncoder) -> Self {
        let spec = sound.spec();
        Self {
            codec: b"A_OPUS",
            private: sound.head(),
            delay_ns: ticks_ns(sound.delay_ticks()),
            seek_pre_roll_ns: SEEK_PRE_ROLL_NS,
            sample_rate: spec.sample_rate,
            // Players decode at this one, and FFmpeg counts what to discard in it.
            decoded_rate: Some(TICK_RATE as u32),
            channels: spec.channels,
        }
    }

    /// None where WebM does not take the codec.
    pub(super) fn copied(track: &SoundTrack) -> Option<Self> {
        let (codec, private, seek_pre_roll_ns): (&[u8], _, _) = match track.config()? {
            SoundConfig::Opus(head) => {
                let private = head.to_webm(track.skip_ticks()?);
                (b"A_OPUS", private, SEEK_PRE_ROLL_NS)
            }
            SoundConfig::Vorbis(head) => (b"A_VORBIS", head.private.clone(), 0),
            _ => return None,
        };
        let delay_ns = rescale(track.skip(), track.timescale(), 1_000_000_000);
        Some(Self {
            codec,
            private,
            delay_ns: delay_ns as u64,
            seek_pre_roll_ns,
            sample_rate: track.sample_rate(),
            decoded_rate: None,
            channels: track.channels(),
        })
    }
}

/// What is known once all is written.
pub(super) struct Totals {
    pub(super) duration_ms: f64,
    /// Where the cues begin, in bytes from the start of the file.
    pub(super) cues_at: u64,
    /// Whether the audio track has no samples. Some players stumble over such a track.
    pub(super) is_silent: bool,
}

impl Segment {
    /// Writes everything before the first cluster.
    pub(super) fn begin(
        sink: &mut Sink,
        stream: &Av1Stream<'_>,
        sound: Option<&AudioEntry>,
    ) -> Result<Self, MediaError> {
        let mut w = ElementWriter::default();
        write_document(&mut w);
        w.buffer.extend_from_slice(&id::SEGMENT.to_be_bytes());
        w.buffer.extend_from_slice(&long_size(0));
        let content_at = w.buffer.len() as u64;
        w.buffer.extend_from_slice(&seek_head(0, 0, 0));
        let info_at = w.buffer.len() as u64;
        w.master(id::INFO, |w| {
            w.unsigned(id::TIMESTAMP_SCALE, TIMESTAMP_UNIT_NS);
            w.bytes(id::MUXING_APP, b"mote");
            w.bytes(id::WRITING_APP, b"mote");
            // Last, so that its place is known.
            w.float(id::DURATION, 0.0);
        });
        let tracks_at = w.buffer.len() as u64;
        let mut audio = ElementWriter::default();
        if let Some(sound) = sound {
            audio.master(id::TRACK_ENTRY, |w| write_audio(w, sound));
        }
        w.master(id::TRACKS, |w| {
            w.master(id::TRACK_ENTRY, |w| write_video(w, stream));
            // Last, for the same reason.
            w.buffer.extend_from_slice(&audio.buffer);
        });
        sink.append(&w.buffer)?;
        Ok(Self {
            content_at,
            info_at,
            tracks_at,
            duration_at: tracks_at - LONG_BYTES as u64,
            audio_at: (w.buffer.len() - audio.buffer.len()) as u64,
            audio_bytes: audio.buffer.len(),
        })
    }

    /// Where positions in the file count from, in bytes from its start.
    pub(super) fn content_at(&self) -> u64 {
        self.content_at
    }

    /// Writes what was left open.
    pub(super) fn end(&self, sink: &mut Sink, totals: &Totals) -> Result<(), MediaError> {
        let from = self.content_at;
        let seek_head = seek_head(
            self.info_at - from,
            self.tracks_at - from,
            totals.cues_at - from,
        );
        sink.patch(from, &seek_head)?;
        sink.patch(self.duration_at, &totals.duration_ms.to_be_bytes())?;
        if totals.is_silent && self.audio_bytes > 0 {
            sink.patch(self.audio_at, &void(self.audio_bytes))?;
        }
        let bytes = sink.position() - from;
        sink.patch(from - LONG_BYTES as u64, &long_size(bytes))
    }
}

fn write_document(w: &mut ElementWriter) {
    w.master(id::EBML, |w| {
        w.unsigned(id::EBML_VERSION, 1);
        w.unsigned(id::EBML_READ_VERSION, 1);
        w.unsigned(id::EBML_MAX_ID_LENGTH, 4);
        w.unsigned(id::EBML_MAX_SIZE_LENGTH, 8);
        w.bytes(id::DOC_TYPE, b"webm");
        w.unsigned(id::DOC_TYPE_VERSION, 4);
        w.unsigned(id::DOC_TYPE_READ_VERSION, 2);
    });
}

/// Where the masters lie, from the start of the segment's content. Its size does not depend on the positions.
fn seek_head(info: u64, tracks: u64, cues: u64) -> Vec<u8> {
    let mut w = ElementWriter::default();
    w.master(id::SEEK_HEAD, |w| {
        for (name, position) in [(id::INFO, info), (id::TRACKS, tracks), (id::CUES, cues)] {
            w.master(id::SEEK, |w| {
                w.bytes(id::SEEK_ID, &name.to_be_bytes());
                w.bytes(id::SEEK_POSITION, &position.to_be_bytes());
            });
        }
    });
    w.buffer
}

fn write_video(w: &mut ElementWriter, stream: &Av1Stream<'_>) {
    let spec = stream.spec;
    let rate = spec.frame_rate;
    let frame_ns =
        (1_000_000_000 * u64::from(rate.den()) + u64::from(rate.num()) / 2) / u64::from(rate.num());
    w.unsigned(id::TRACK_NUMBER, VIDEO_TRACK.into());
    w.unsigned(id::TRACK_UID, VIDEO_TRACK.into());
    w.unsigned(id::TRACK_TYPE, VIDEO_TYPE);
    w.unsigned(id::FLAG_LACING, 0);
    w.bytes(id::LANGUAGE, b"und");
    w.bytes(id::CODEC_ID, b"V_AV1");
    w.bytes(id::CODEC_PRIVATE, stream.config);
    // 0 is not allowed: above a thousand million frames per second nothing is said.
    if frame_ns > 0 {
        w.unsigned(id::DEFAULT_DURATION, frame_ns);
    }
    w.master(id::VIDEO, |w| {
        w.unsigned(id::FLAG_INTERLACED, PROGRESSIVE);
        w.unsigned(id::PIXEL_WIDTH, spec.width.into());
        w.unsigned(id::PIXEL_HEIGHT, spec.height.into());
        let display_width = f64::from(spec.width) * spec.pixel_aspect.as_f64();
        w.unsigned(id::DISPLAY_WIDTH, display_width.round().max(1.0) as u64);
        w.unsigned(id::DISPLAY_HEIGHT, spec.height.into());
        w.master(id::COLOUR, |w| {
            w.unsigned(id::MATRIX_COEFFICIENTS, BT709);
            w.unsigned(id::BITS_PER_CHANNEL, 8);
            w.unsigned(id::CHROMA_SUBSAMPLING_HORZ, 1);
            w.unsigned(id::CHROMA_SUBSAMPLING_VERT, 1);
            w.unsigned(id::RANGE, BROADCAST_RANGE);
            w.unsigned(id::TRANSFER_CHARACTERISTICS, BT709);
            w.unsigned(id::PRIMARIES, BT709);
        });
    });
}

/// The audio track ("Matroska Media Container Codec Specifications", `A_OPUS`, `A_VORBIS`). It has no
/// `DefaultDuration`, with which the block that is padded would need a duration too.
fn write_audio(w: &mut ElementWriter, sound: &AudioEntry) {
    w.unsigned(id::TRACK_NUMBER, AUDIO_TRACK.into());
    w.unsigned(id::TRACK_UID, AUDIO_TRACK.into());
    w.unsigned(id::TRACK_TYPE, AUDIO_TYPE);
    w.unsigned(id::FLAG_LACING, 0);
    w.bytes(id::LANGUAGE, b"und");
    w.bytes(id::CODEC_ID, sound.codec);
    w.bytes(id::CODEC_PRIVATE, &sound.private);
    w.unsigned(id::CODEC_DELAY, sound.delay_ns);
    w.unsigned(id::SEEK_PRE_ROLL, sound.seek_pre_roll_ns);
    w.master(id::AUDIO, |w| {
        w.float(id::SAMPLING_FREQUENCY, f64::from(sound.sample_rate));
        if let Some(rate) = sound.decoded_rate {
            w.float(id::OUTPUT_SAMPLING_FREQUENCY, f64::from(rate));
        }
        w.unsigned(id::CHANNELS, sound.channels.into());
    });
}

/// Nanoseconds of so many ticks of Opus's clock, rounded.
pub(super) fn ticks_ns(ticks: u64) -> u64 {
    (ticks * 1_000_000_000 + TICK_RATE / 2) / TICK_RATE
}
