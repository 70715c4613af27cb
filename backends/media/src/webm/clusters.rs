//! Blocks in clusters, written as they come, and the cues that name the clusters of key frames.

use super::elements::{self as id, ElementWriter, long_size};
use super::head::{LONG_BYTES, VIDEO_TRACK};
use crate::MediaError;
use crate::file::Sink;

/// Milliseconds from the time of a cluster to that of its last block, at most, which is as WebM recommends. Blocks count
/// in 16 bits.
const CLUSTER_MS_MAX: u64 = 5000;
/// Flag of a `SimpleBlock` that needs no other to be decoded.
const KEY_FLAG: u8 = 0x80;

/// A coded frame or packet.
pub(super) struct Block<'a> {
    /// Below 127, so that it is one byte.
    pub(super) track: u8,
    pub(super) time_ms: u64,
    pub(super) content: &'a [u8],
    /// Whether it needs no other to be decoded.
    pub(super) is_key: bool,
    /// Nanoseconds at its end that are not to be heard.
    pub(super) padding_ns: u64,
}

/// In memory are the cues, one per key frame.
#[derive(Default)]
pub(super) struct Clusters {
    open: Option<Cluster>,
    cues: Vec<Cue>,
}

struct Cluster {
    content_at: u64,
    starts_ms: u64,
    /// Time of its last block.
    last_ms: u64,
}

struct Cue {
    time_ms: u64,
    /// In bytes from the start of the file.
    cluster_at: u64,
}

impl Clusters {
    /// Adds a block. One of an earlier time than the last begins a cluster, so that times rise within each.
    pub(super) fn append(&mut self, sink: &mut Sink, block: &Block<'_>) -> Result<(), MediaError> {
        let time_ms = block.time_ms;
        let is_cue = block.track == VIDEO_TRACK && block.is_key;
        let fits = |cluster: &Cluster| {
            time_ms >= cluster.last_ms && time_ms - cluster.starts_ms <= CLUSTER_MS_MAX
        };
        let starts_ms = match &mut self.open {
            Some(cluster) if !is_cue && fits(cluster) => {
                cluster.last_ms = time_ms;
                cluster.starts_ms
            }
            _ => {
                self.begin(sink, time_ms, is_cue)?;
                time_ms
            }
        };
        sink.append(&block_head(block, (time_ms - starts_ms) as i16))?;
        sink.append(block.content)?;
        sink.append(&block_end(block))
    }

    /// Ends the last cluster and writes the cues; `segment_at` is where positions count from. Where the cues begin.
    pub(super) fn finish(mut self, sink: &mut Sink, segment_at: u64) -> Result<u64, MediaError> {
        self.end(sink)?;
        let cues_at = sink.position();
        let mut cues = ElementWriter::default();
        cues.master(id::CUES, |w| {
            for cue in &self.cues {
                w.master(id::CUE_POINT, |w| {
                    w.unsigned(id::CUE_TIME, cue.time_ms);
                    w.master(id::CUE_TRACK_POSITIONS, |w| {
                        w.unsigned(id::CUE_TRACK, VIDEO_TRACK.into());
                        w.unsigned(id::CUE_CLUSTER_POSITION, cue.cluster_at - segment_at);
                    });
                });
            }
        });
        sink.append(&cues.buffer)?;
        Ok(cues_at)
    }

    fn begin(&mut self, sink: &mut Sink, time_ms: u64, is_cue: bool) -> Result<(), MediaError> {
        self.end(sink)?;
        if is_cue {
            self.cues.push(Cue {
                time_ms,
                cluster_at: sink.position(),
            });
        }
        let mut head = ElementWriter::default();
        head.buffer.extend_from_slice(&id::CLUSTER.to_be_bytes());
        head.buffer.extend_from_slice(&long_size(0));
        let content_at = sink.position() + head.buffer.len() as u64;
        head.unsigned(id::TIMESTAMP, time_ms);
        sink.append(&head.buffer)?;
        self.open = Some(Cluster {
            content_at,
            starts_ms: time_ms,
            last_ms: time_ms,
        });
        Ok(())
    }

    /// Writes the size of the cluster, which is known now.
    fn end(&mut self, sink: &mut Sink) -> Result<(), MediaError> {
        let Some(cluster) = self.open.take() else {
            return Ok(());
        };
        let bytes = sink.position() - cluster.content_at;
        sink.patch(cluster.content_at - LONG_BYTES as u64, &long_size(bytes))
    }
}

/// What stands before a block's content. A padded one is in a group, which has no flag for key frames: it has no
/// reference instead.
fn block_head(block: &Block<'_>, time_ms: i16) -> Vec<u8> {
    let mut fields = vec![0x80 | block.track];
    fields.extend_from_slice(&time_ms.to_be_bytes());
    let is_simple = block.padding_ns == 0;
    fields.push(if is_simple && block.is_key {
        KEY_FLAG
    } else {
        0
    });
    let bytes = (fields.len() + block.content.len()) as u64;
    let mut head = ElementWriter::default();
    if is_simple {
        head.head(id::SIMPLE_BLOCK, bytes);
    } else {
        let mut inner = ElementWriter::default();
        inner.head(id::BLOCK, bytes);
        let group_bytes = inner.buffer.len() as u64 + bytes + block_end(block).len() as u64;
        head.head(id::BLOCK_GROUP, group_bytes);
        head.buffer.extend_from_slice(&inner.buffer);
    }
    head.buffer.extend_from_slice(&fields);
    head.buffer
}

/// What stands behind a block's content, in its group.
fn block_end(block: &Block<'_>) -> Vec<u8> {
    let mut end = ElementWriter::default();
    if block.padding_ns > 0 {
        end.signed(id::DISCARD_PADDING, block.padding_ns as i64);
    }
    end.buffer
}
