//! A WebM file with one AV1 track (RFC 9559; "Carriage of AV1 in Matroska") and, if wanted, one audio track ("Matroska
//! Media Container Codec Specifications"): Opus, or what is copied from another file.
//!
//! Blocks of both tracks are written in the order of their times. Of the track that is ahead, blocks wait in memory, up
//! to [`FRAMES_WAITING_BYTES_MAX`] and [`AUDIO_AHEAD_MS_MAX`]; what is copied stays in its file until its turn. What is only known at the end (sizes, duration, where the
//! cues lie) has its place from the start and is written over.

use std::collections::VecDeque;

use super::clusters::{Block, Clusters};
use super::head::{AUDIO_TRACK, AudioEntry, Segment, Totals, VIDEO_TRACK, ticks_ns};
use crate::audio::AudioSource;
use crate::av1::Av1Stream;
use crate::file::Sink;
use crate::frame::Rational;
use crate::limits::at_most;
use crate::opus::{OpusEncoder, PACKET_MS};
use crate::sound::{PacketCursor, rescale};
use crate::{ClipSpec, MediaError, Quantity};

/// Bytes of coded frames that wait for their sound. Beyond, frames are written without it, and what comes late is put in
/// clusters of its own behind them: players read it, but one that streams the file has to fetch all up to there.
const FRAMES_WAITING_BYTES_MAX: usize = 4 << 20;
/// Milliseconds by which sound may be ahead of the frames: half an hour, which is 29 MB in stereo.
const AUDIO_AHEAD_MS_MAX: u64 = 30 * 60 * 1000;
const NS_PER_SECOND: u32 = 1_000_000_000;
/// Samples encoded before what is ready is written.
const PIECE_SAMPLES: usize = 1 << 10;

/// Writes frames in decoding order, which is AV1's display order, at a constant rate.
pub(crate) struct WebmMuxer {
    sink: Sink,
    /// None before the first frame.
    segment: Option<Segment>,
    clusters: Clusters,
    rate: Rational,
    frames: Frames,
    sound: Option<Sound>,
}

#[derive(Default)]
struct Frames {
    written: u64,
    waiting: VecDeque<Frame>,
    waiting_bytes: usize,
}

struct Frame {
    content: Vec<u8>,
    is_key: bool,
}

enum Sound {
    Encoded {
        /// None once it is finished.
        encoder: Option<Box<OpusEncoder>>,
        packets: Packets,
    },
    Copied(Box<PacketCursor>),
}

#[derive(Default)]
struct Packets {
    written: u64,
    waiting: VecDeque<Vec<u8>>,
    /// Nanoseconds at the end of the last one that are not to be heard.
    padding_ns: u64,
}

/// Whether more may come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Awaited,
    Complete,
}

impl WebmMuxer {
    pub(crate) fn new(sink: Sink, spec: &ClipSpec, audio: AudioSource) -> Result<Self, MediaError> {
        let sound = match audio {
            AudioSource::None => None,
            AudioSource::Samples(spec) => Some(Sound::Encoded {
                encoder: Some(Box::new(OpusEncoder::new(spec)?)),
                packets: Packets::default(),
            }),
            AudioSource::Copy(track) => Some(Sound::Copied(Box::new(PacketCursor::new(track)))),
        };
        Ok(Self {
            sink,
            segment: None,
            clusters: Clusters::default(),
            rate: spec.frame_rate,
            frames: Frames::default(),
            sound,
        })
    }

    /// Frames that were given to it.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.written + self.frames.waiting.len() as u64
    }

    /// Adds a frame; `stream` describes all of them.
    pub(crate) fn append(
        &mut self,
        stream: &Av1Stream<'_>,
        sample: &[u8],
        is_key: bool,
    ) -> Result<(), MediaError> {
        if self.segment.is_none() {
            let entry = self.sound.as_ref().and_then(Sound::entry);
            self.segment = Some(Segment::begin(&mut self.sink, stream, entry.as_ref())?);
        }
        self.frames.waiting_bytes += sample.len();
        self.frames.waiting.push_back(Frame {
            content: sample.to_vec(),
            is_key,
        });
        self.write_ready(Rest::Awaited)
    }

    /// Adds interleaved samples to the audio track; false where there is none.
    pub(crate) fn append_audio(&mut self, samples: &[f32]) -> Result<bool, MediaError> {
        let frames_ms = starts_ms(self.rate, self.frames());
        let Some(Sound::Encoded {
            encoder: Some(encoder),
            ..
        }) = &self.sound
        else {
            return Ok(false);
        };
        let spec = encoder.spec();
        let after = encoder.samples() + samples.len() as u64 / u64::from(spec.channels);
        spec.check_samples(after)?;
        let after_ms = after * 1000 / u64::from(spec.sample_rate);
        let ahead_ms = after_ms.saturating_sub(frames_ms);
        at_most(Quantity::AudioAheadMs, ahead_ms, AUDIO_AHEAD_MS_MAX)?;
        for piece in samples.chunks(PIECE_SAMPLES) {
            if let Some(Sound::Encoded {
                encoder: Some(encoder),
                packets,
            }) = &mut self.sound
            {
                encoder.push(piece, |packet| packets.waiting.push_back(packet))?;
            }
            self.write_ready(Rest::Awaited)?;
        }
        Ok(true)
    }

    /// Writes what waits, the cues and what was left open; the size of the file.
    pub(crate) fn finish(mut self) -> Result<u64, MediaError> {
        let mut duration_ms = self.frames() as f64 * 1000.0 / self.rate.as_f64();
        let mut is_silent = true;
        if let Some(Sound::Copied(packets)) = &self.sound {
            let track = packets.track();
            let sound_units = track.delay() + track.heard_for();
            let sound_ms = sound_units as f64 * 1000.0 / f64::from(track.timescale());
            duration_ms = duration_ms.max(sound_ms);
            is_silent = false;
        }
        if let Some(Sound::Encoded { encoder, packets }) = &mut self.sound
            && let Some(encoder) = encoder.take()
        {
            let samples = encoder.samples();
            is_silent = samples == 0;
            let sound_ms = samples as f64 * 1000.0 / f64::from(encoder.spec().sample_rate);
            duration_ms = duration_ms.max(sound_ms);
            let tail = encoder.finish()?;
            packets.waiting.extend(tail.packets);
            packets.padding_ns = ticks_ns(tail.padding_ticks);
        }
        self.write_ready(Rest::Complete)?;
        let segment = self.segment.ok_or(MediaError::NoFrames)?;
        let cues_at = self.clusters.finish(&mut self.sink, segment.content_at())?;
        let totals = Totals {
            duration_ms,
            cues_at,
            is_silent,
        };
        segment.end(&mut self.sink, &totals)?;
        self.sink.finish()
    }

    /// Writes what waits, as far as nothing earlier can come. Of a frame and a packet of one time the frame is first, so
    /// that the cluster of a key frame has its sound.
    fn write_ready(&mut self, rest: Rest) -> Result<(), MediaError> {
        if self.segment.is_none() {
            return Ok(());
        }
        let is_complete = rest == Rest::Complete;
        loop {
            let (has_packet, packet_ms) = match &self.sound {
                Some(sound) => sound.next(),
                None => (false, u64::MAX),
            };
            let has_frame = !self.frames.waiting.is_empty();
            let frame_ms = starts_ms(self.rate, self.frames.written);
            let is_frame_first = frame_ms <= packet_ms;
            let is_full = self.frames.waiting_bytes > FRAMES_WAITING_BYTES_MAX;
            if has_frame && (is_frame_first || (!has_packet && (is_full || is_complete))) {
                self.write_frame(frame_ms)?;
            } else if has_packet && (!is_frame_first || (!has_frame && is_complete)) {
                self.write_packet(packet_ms, rest)?;
            } else {
                return Ok(());
            }
        }
    }

    fn write_frame(&mut self, time_ms: u64) -> Result<(), MediaError> {
        let Some(frame) = self.frames.waiting.pop_front() else {
            return Ok(());
        };
        self.frames.waiting_bytes -= frame.content.len();
        self.frames.written += 1;
        let block = Block {
            track: VIDEO_TRACK,
            time_ms,
            content: &frame.content,
            is_key: frame.is_key,
            padding_ns: 0,
        };
        self.clusters.append(&mut self.sink, &block)
    }

    fn write_packet(&mut self, time_ms: u64, rest: Rest) -> Result<(), MediaError> {
        let (encoded, content, padding_ns);
        match &mut self.sound {
            Some(Sound::Encoded { packets, .. }) => {
                let Some(packet) = packets.waiting.pop_front() else {
                    return Ok(());
                };
                packets.written += 1;
                let is_last = rest == Rest::Complete && packets.waiting.is_empty();
                padding_ns = if is_last { packets.padding_ns } else { 0 };
                encoded = packet;
                content = encoded.as_slice();
            }
            Some(Sound::Copied(packets)) => {
                let is_last = packets.is_last();
                let track = packets.track();
                let padding = rescale(track.padding(), track.timescale(), NS_PER_SECOND);
                padding_ns = if is_last { padding.max(0) as u64 } else { 0 };
                let Some((_, packet)) = packets.read()? else {
                    return Ok(());
                };
                content = packet;
            }
            None => return Ok(()),
        }
        let block = Block {
            track: AUDIO_TRACK,
            time_ms,
            content,
            is_key: true,
            padding_ns,
        };
        self.clusters.append(&mut self.sink, &block)
    }
}

impl Sound {
    fn entry(&self) -> Option<AudioEntry> {
        match self {
            Self::Encoded { encoder, .. } => encoder.as_deref().map(AudioEntry::encoded),
            Self::Copied(packets) => AudioEntry::copied(packets.track()),
        }
    }

    /// Whether a packet is there, and the time of the first that is or else will come.
    fn next(&self) -> (bool, u64) {
        match self {
            Self::Encoded { packets, .. } => packets.next(),
            Self::Copied(packets) => match packets.peek() {
                Some(packet) => {
                    let track = packets.track();
                    // Times of blocks are ahead of what is heard by what is dropped.
                    let units = track.starts(&packet) + track.skip();
                    let ms = rescale(units, track.timescale(), 1000);
                    (true, u64::try_from(ms).unwrap_or(0))
                }
                None => (false, u64::MAX),
            },
        }
    }
}

impl Packets {
    /// Whether one waits, and the time of the first that does or else will come. The codec's delay makes up for that
    /// the first packet begins with what is not to be heard.
    fn next(&self) -> (bool, u64) {
        (!self.waiting.is_empty(), self.written * PACKET_MS)
    }
}

/// When frame `index` is shown, rounded so that the errors do not add up.
fn starts_ms(rate: Rational, index: u64) -> u64 {
    let (num, den) = (u128::from(rate.num()), u128::from(rate.den()));
    let ms = (u128::from(index) * 1000 * den + num / 2) / num;
    u64::try_from(ms).unwrap_or(u64::MAX)
}
