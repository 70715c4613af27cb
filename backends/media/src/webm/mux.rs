//! A WebM file with one AV1 track (RFC 9559; "Carriage of AV1 in Matroska").
//!
//! Blocks go straight to the file. What is only known at the end (sizes, duration, where the cues lie) has its place
//! from the start and is written over; in memory are the cues, one per key frame.

use super::elements::{self as id, ElementWriter, long_size};
use crate::av1::Av1Stream;
use crate::file::Sink;
use crate::frame::Rational;
use crate::{ClipSpec, MediaError};

/// Nanoseconds of a timestamp unit, as WebM wants it: a millisecond.
const TIMESTAMP_UNIT_NS: u64 = 1_000_000;
/// Blocks count from their cluster's time in 16 bits.
const BLOCK_TIME_MAX: u64 = i16::MAX as u64;
/// The one track.
const TRACK: u8 = 1;
/// Bytes of a size or position that is written over later.
const LONG_BYTES: usize = 8;
/// BT.709 in H.273, for primaries, transfer and matrix alike.
const BT709: u64 = 1;
/// Limited range.
const BROADCAST_RANGE: u64 = 1;
/// `FlagInterlaced` of progressive pictures.
const PROGRESSIVE: u64 = 2;
/// `TrackType` of pictures.
const VIDEO_TRACK: u64 = 1;

/// Writes frames in decoding order, which is AV1's display order, at a constant rate.
pub(crate) struct WebmMuxer {
    sink: Sink,
    /// Where positions in the file count from; None before the first frame.
    segment: Option<Segment>,
    rate: Rational,
    frames: u64,
    cluster: Option<Cluster>,
    cues: Vec<Cue>,
}

/// Places in the file, in bytes from its start.
struct Segment {
    content_at: u64,
    seek_head_at: u64,
    info_at: u64,
    tracks_at: u64,
    duration_at: u64,
}

struct Cluster {
    content_at: u64,
    starts_ms: u64,
}

struct Cue {
    time_ms: u64,
    /// From the start of the segment's content.
    cluster_position: u64,
}

impl WebmMuxer {
    pub(crate) fn new(sink: Sink, spec: &ClipSpec) -> Self {
        Self {
            sink,
            segment: None,
            rate: spec.frame_rate,
            frames: 0,
            cluster: None,
            cues: Vec::new(),
        }
    }

    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Adds a frame; `stream` describes all of them.
    pub(crate) fn append(
        &mut self,
        stream: &Av1Stream<'_>,
        sample: &[u8],
        is_key: bool,
    ) -> Result<(), MediaError> {
        let segment_at = match &self.segment {
            Some(segment) => segment.content_at,
            None => self.begin(stream)?,
        };
        let time_ms = starts_ms(self.rate, self.frames);
        let fits = |cluster: &Cluster| time_ms - cluster.starts_ms <= BLOCK_TIME_MAX;
        if is_key || !self.cluster.as_ref().is_some_and(fits) {
            self.begin_cluster(time_ms, segment_at, is_key)?;
        }
        let starts_ms = self.cluster.as_ref().map_or(time_ms, |c| c.starts_ms);
        let mut head = ElementWriter::default();
        head.head(id::SIMPLE_BLOCK, 4 + sample.len() as u64);
        head.buffer.push(0x80 | TRACK);
        head.buffer
            .extend_from_slice(&((time_ms - starts_ms) as i16).to_be_bytes());
        head.buffer.push(if is_key { 0x80 } else { 0 });
        self.sink.append(&head.buffer)?;
        self.sink.append(sample)?;
        self.frames += 1;
        Ok(())
    }

    /// Writes the cues and what was left open; the size of the file.
    pub(crate) fn finish(mut self) -> Result<u64, MediaError> {
        self.end_cluster()?;
        let segment = self.segment.take().ok_or(MediaError::NoFrames)?;
        let cues_at = self.sink.position();
        let mut cues = ElementWriter::default();
        cues.master(id::CUES, |w| {
            for cue in &self.cues {
                w.master(id::CUE_POINT, |w| {
                    w.unsigned(id::CUE_TIME, cue.time_ms);
                    w.master(id::CUE_TRACK_POSITIONS, |w| {
                        w.unsigned(id::CUE_TRACK, TRACK.into());
                        w.unsigned(id::CUE_CLUSTER_POSITION, cue.cluster_position);
                    });
                });
            }
        });
        self.sink.append(&cues.buffer)?;
        let from = segment.content_at;
        let seek_head = seek_head(
            segment.info_at - from,
            segment.tracks_at - from,
            cues_at - from,
        );
        self.sink.patch(segment.seek_head_at, &seek_head)?;
        let duration_ms = self.frames as f64 * 1000.0 / self.rate.as_f64();
        self.sink
            .patch(segment.duration_at, &duration_ms.to_be_bytes())?;
        let bytes = self.sink.position() - from;
        self.sink
            .patch(from - LONG_BYTES as u64, &long_size(bytes))?;
        self.sink.finish()
    }

    /// Writes everything before the first cluster; where the segment's content begins.
    fn begin(&mut self, stream: &Av1Stream<'_>) -> Result<u64, MediaError> {
        let mut w = ElementWriter::default();
        w.master(id::EBML, |w| {
            w.unsigned(id::EBML_VERSION, 1);
            w.unsigned(id::EBML_READ_VERSION, 1);
            w.unsigned(id::EBML_MAX_ID_LENGTH, 4);
            w.unsigned(id::EBML_MAX_SIZE_LENGTH, 8);
            w.bytes(id::DOC_TYPE, b"webm");
            w.unsigned(id::DOC_TYPE_VERSION, 4);
            w.unsigned(id::DOC_TYPE_READ_VERSION, 2);
        });
        w.buffer.extend_from_slice(&id::SEGMENT.to_be_bytes());
        w.buffer.extend_from_slice(&long_size(0));
        let content_at = w.buffer.len() as u64;
        let seek_head_at = content_at;
        w.buffer.extend_from_slice(&seek_head(0, 0, 0));
        let info_at = w.buffer.len() as u64;
        w.master(id::INFO, |w| {
            w.unsigned(id::TIMESTAMP_SCALE, TIMESTAMP_UNIT_NS);
            w.bytes(id::MUXING_APP, b"mote");
            w.bytes(id::WRITING_APP, b"mote");
            // Last, so that its place is known.
            w.bytes(id::DURATION, &0_f64.to_be_bytes());
        });
        let tracks_at = w.buffer.len() as u64;
        w.master(id::TRACKS, |w| {
            w.master(id::TRACK_ENTRY, |w| write_track(w, stream));
        });
        self.sink.append(&w.buffer)?;
        self.segment = Some(Segment {
            content_at,
            seek_head_at,
            info_at,
            tracks_at,
            duration_at: tracks_at - LONG_BYTES as u64,
        });
        Ok(content_at)
    }

    fn begin_cluster(
        &mut self,
        time_ms: u64,
        segment_at: u64,
        is_key: bool,
    ) -> Result<(), MediaError> {
        self.end_cluster()?;
        if is_key {
            self.cues.push(Cue {
                time_ms,
                cluster_position: self.sink.position() - segment_at,
            });
        }
        let mut head = ElementWriter::default();
        head.buffer.extend_from_slice(&id::CLUSTER.to_be_bytes());
        head.buffer.extend_from_slice(&long_size(0));
        let content_at = self.sink.position() + head.buffer.len() as u64;
        head.unsigned(id::TIMESTAMP, time_ms);
        self.sink.append(&head.buffer)?;
        self.cluster = Some(Cluster {
            content_at,
            starts_ms: time_ms,
        });
        Ok(())
    }

    /// Writes the size of the cluster, which is known now.
    fn end_cluster(&mut self) -> Result<(), MediaError> {
        let Some(cluster) = self.cluster.take() else {
            return Ok(());
        };
        let bytes = self.sink.position() - cluster.content_at;
        self.sink
            .patch(cluster.content_at - LONG_BYTES as u64, &long_size(bytes))
    }
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

fn write_track(w: &mut ElementWriter, stream: &Av1Stream<'_>) {
    let spec = stream.spec;
    let rate = spec.frame_rate;
    let frame_ns =
        (1_000_000_000 * u64::from(rate.den()) + u64::from(rate.num()) / 2) / u64::from(rate.num());
    w.unsigned(id::TRACK_NUMBER, TRACK.into());
    w.unsigned(id::TRACK_UID, TRACK.into());
    w.unsigned(id::TRACK_TYPE, VIDEO_TRACK);
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

/// When frame `index` is shown, rounded so that the errors do not add up.
fn starts_ms(rate: Rational, index: u64) -> u64 {
    let (num, den) = (u128::from(rate.num()), u128::from(rate.den()));
    let ms = (u128::from(index) * 1000 * den + num / 2) / num;
    u64::try_from(ms).unwrap_or(u64::MAX)
}
