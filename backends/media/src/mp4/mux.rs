//! An MP4 file with one AV1 track (ISO/IEC 14496-12 and "AV1 codec ISO media file format binding").
//!
//! Samples go straight to the file; only their sizes stay in memory. The index follows the samples, as its size is known
//! last.

use crate::file::Sink;
use crate::{ClipSpec, MediaError};

/// Samples that share a chunk offset.
const SAMPLES_PER_CHUNK: usize = 32;
/// Box sizes are 32 bits here, except for the media data.
const MEDIA_DATA_HEADER_BYTES: u64 = 16;
/// 72 pixels per inch in 16.16 fixed point, as every writer puts.
const RESOLUTION: u32 = 0x48_0000;
/// Identity display matrix in 16.16 and 2.30 fixed point.
const IDENTITY: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];
/// "und" as three 5-bit letters.
const UNDETERMINED_LANGUAGE: u16 = 0x55c4;
/// BT.709 in H.273, for primaries, transfer and matrix alike.
const BT709: u16 = 1;

/// Writes samples in decoding order, which is AV1's display order, at a constant rate.
pub(crate) struct Mp4Muxer {
    sink: Sink,
    media_data_at: u64,
    sample_bytes: Vec<u32>,
    /// From 1, as the file counts them.
    key_samples: Vec<u32>,
    chunk_positions: Vec<u64>,
}

/// What the index says of the track.
pub(crate) struct Av1Track<'a> {
    pub(crate) spec: &'a ClipSpec,
    /// `seq_level_idx_0` of the stream.
    pub(crate) level_index: u8,
    /// The sequence header unit.
    pub(crate) sequence_header: &'a [u8],
}

impl Mp4Muxer {
    pub(crate) fn new(mut sink: Sink) -> Result<Self, MediaError> {
        let mut head = BoxWriter::default();
        head.boxed(b"ftyp", |w| {
            w.bytes(b"isom");
            w.u32(0x200);
            w.bytes(b"isomiso6av01mp41");
        });
        sink.append(&head.buffer)?;
        let media_data_at = sink.position();
        sink.append(&media_data_header(MEDIA_DATA_HEADER_BYTES))?;
        Ok(Self {
            sink,
            media_data_at,
            sample_bytes: Vec::new(),
            key_samples: Vec::new(),
            chunk_positions: Vec::new(),
        })
    }

    pub(crate) fn samples(&self) -> u64 {
        self.sample_bytes.len() as u64
    }

    pub(crate) fn append(&mut self, sample: &[u8], is_key: bool) -> Result<(), MediaError> {
        if self.sample_bytes.len().is_multiple_of(SAMPLES_PER_CHUNK) {
            self.chunk_positions.push(self.sink.position());
        }
        self.sink.append(sample)?;
        self.sample_bytes.push(sample.len() as u32);
        if is_key {
            self.key_samples.push(self.sample_bytes.len() as u32);
        }
        Ok(())
    }

    /// Writes the index; the size of the file.
    pub(crate) fn finish(mut self, track: &Av1Track<'_>) -> Result<u64, MediaError> {
        let media_data_bytes = self.sink.position() - self.media_data_at;
        let mut index = BoxWriter::default();
        index.boxed(b"moov", |w| self.write_movie(w, track));
        self.sink.append(&index.buffer)?;
        self.sink
            .patch(self.media_data_at, &media_data_header(media_data_bytes))?;
        self.sink.finish()
    }

    fn write_movie(&self, w: &mut BoxWriter, track: &Av1Track<'_>) {
        let rate = track.spec.frame_rate;
        let duration = self.samples() * u64::from(rate.den());
        w.full_box(b"mvhd", 1, 0, |w| {
            w.u64(0); // creation time
            w.u64(0); // modification time
            w.u32(rate.num()); // timescale
            w.u64(duration);
            w.u32(0x1_0000); // normal speed
            w.u16(0x100); // full volume
            w.zeros(10);
            w.u32s(&IDENTITY);
            w.zeros(24);
            w.u32(2); // next track
        });
        w.boxed(b"trak", |w| {
            w.full_box(b"tkhd", 1, 3, |w| {
                w.u64(0);
                w.u64(0);
                w.u32(1); // track
                w.zeros(4);
                w.u64(duration);
                w.zeros(16); // reserved, layer, group, volume
                w.u32s(&IDENTITY);
                w.u32(display_width(track.spec));
                w.u32(track.spec.height << 16);
            });
            w.boxed(b"mdia", |w| self.write_media(w, track, duration));
        });
    }

    fn write_media(&self, w: &mut BoxWriter, track: &Av1Track<'_>, duration: u64) {
        w.full_box(b"mdhd", 1, 0, |w| {
            w.u64(0);
            w.u64(0);
            w.u32(track.spec.frame_rate.num());
            w.u64(duration);
            w.u16(UNDETERMINED_LANGUAGE);
            w.u16(0);
        });
        w.full_box(b"hdlr", 0, 0, |w| {
            w.zeros(4);
            w.bytes(b"vide");
            w.zeros(12);
            w.bytes(b"VideoHandler\0");
        });
        w.boxed(b"minf", |w| {
            w.full_box(b"vmhd", 0, 1, |w| w.zeros(8));
            w.boxed(b"dinf", |w| {
                w.full_box(b"dref", 0, 0, |w| {
                    w.u32(1);
                    w.full_box(b"url ", 0, 1, |_| {}); // flag 1: in this file
                });
            });
            w.boxed(b"stbl", |w| self.write_sample_table(w, track));
        });
    }

    fn write_sample_table(&self, w: &mut BoxWriter, track: &Av1Track<'_>) {
        let samples = self.sample_bytes.len() as u32;
        w.full_box(b"stsd", 0, 0, |w| {
            w.u32(1);
            write_sample_entry(w, track);
        });
        w.full_box(b"stts", 0, 0, |w| {
            w.u32s(&[1, samples, track.spec.frame_rate.den()])
        });
        w.full_box(b"stss", 0, 0, |w| {
            w.u32(self.key_samples.len() as u32);
            w.u32s(&self.key_samples);
        });
        w.full_box(b"stsc", 0, 0, |w| {
            let (full, last) = (
                samples / SAMPLES_PER_CHUNK as u32,
                samples % SAMPLES_PER_CHUNK as u32,
            );
            w.u32(u32::from(full > 0) + u32::from(last > 0));
            if full > 0 {
                w.u32s(&[1, SAMPLES_PER_CHUNK as u32, 1]);
            }
            if last > 0 {
                w.u32s(&[full + 1, last, 1]);
            }
        });
        w.full_box(b"stsz", 0, 0, |w| {
            w.u32s(&[0, samples]);
            w.u32s(&self.sample_bytes);
        });
        let chunks = self.chunk_positions.len() as u32;
        if self
            .chunk_positions
            .last()
            .is_some_and(|&position| position > u32::MAX.into())
        {
            w.full_box(b"co64", 0, 0, |w| {
                w.u32(chunks);
                self.chunk_positions
                    .iter()
                    .for_each(|&position| w.u64(position));
            });
        } else {
            w.full_box(b"stco", 0, 0, |w| {
                w.u32(chunks);
                self.chunk_positions
                    .iter()
                    .for_each(|&position| w.u32(position as u32));
            });
        }
    }
}

fn write_sample_entry(w: &mut BoxWriter, track: &Av1Track<'_>) {
    let spec = track.spec;
    w.boxed(b"av01", |w| {
        w.zeros(6);
        w.u16(1); // data reference
        w.zeros(16);
        w.u16(spec.width as u16);
        w.u16(spec.height as u16);
        w.u32(RESOLUTION);
        w.u32(RESOLUTION);
        w.zeros(4);
        w.u16(1); // frames per sample
        w.zeros(32); // compressor name
        w.u16(0x18); // colour without alpha
        w.u16(u16::MAX); // predefined
        w.boxed(b"av1C", |w| {
            w.u8(0x81); // marker, version 1
            w.u8(track.level_index); // profile 0 in the high bits
            w.u8(0b1100); // tier 0, 8 bits, colour, 4:2:0, unknown chroma position
            w.u8(0); // no initial presentation delay
            w.bytes(track.sequence_header);
        });
        w.boxed(b"colr", |w| {
            w.bytes(b"nclx");
            w.u16(BT709);
            w.u16(BT709);
            w.u16(BT709);
            w.u8(0); // limited range
        });
        w.boxed(b"pasp", |w| {
            w.u32s(&[spec.pixel_aspect.num(), spec.pixel_aspect.den()])
        });
    });
}

/// Displayed width in 16.16 fixed point.
fn display_width(spec: &ClipSpec) -> u32 {
    (f64::from(spec.width) * spec.pixel_aspect.as_f64() * 65536.0).round() as u32
}

/// Header of the media data box with a 64-bit size.
fn media_data_header(bytes: u64) -> [u8; MEDIA_DATA_HEADER_BYTES as usize] {
    let mut header = [0; MEDIA_DATA_HEADER_BYTES as usize];
    header[..8].copy_from_slice(b"\0\0\0\x01mdat");
    header[8..].copy_from_slice(&bytes.to_be_bytes());
    header
}

/// Boxes in memory, big-endian.
#[derive(Default)]
struct BoxWriter {
    buffer: Vec<u8>,
}

impl BoxWriter {
    fn boxed(&mut self, name: &[u8; 4], content: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.zeros(4);
        self.bytes(name);
        content(self);
        let bytes = (self.buffer.len() - start) as u32;
        self.buffer[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
    }

    fn full_box(
        &mut self,
        name: &[u8; 4],
        version: u8,
        flags: u32,
        content: impl FnOnce(&mut Self),
    ) {
        self.boxed(name, |w| {
            w.u32(u32::from(version) << 24 | flags);
            content(w);
        });
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn zeros(&mut self, count: usize) {
        self.buffer.resize(self.buffer.len() + count, 0);
    }

    fn u8(&mut self, value: u8) {
        self.buffer.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32s(&mut self, values: &[u32]) {
        values.iter().for_each(|&value| self.u32(value));
    }
}
