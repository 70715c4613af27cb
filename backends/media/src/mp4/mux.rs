//! An MP4 file with one AV1 track (ISO/IEC 14496-12 and "AV1 codec ISO media file format binding") and, if wanted, one
//! audio track: FLAC ("Encapsulation of FLAC in ISO base media file format"), or what is copied from another file.
//!
//! Samples go straight to the file; only their sizes stay in memory. The index follows the samples, as its size is known
//! last.

use super::movie::{AudioEdit, AudioTrack, write_movie};
use super::table::SampleTable;
use super::write::BoxWriter;
use crate::audio::AudioSource;
use crate::av1::Av1Stream;
use crate::file::Sink;
use crate::flac::{AudioBlock, FlacEncoder};
use crate::frame::Rational;
use crate::sound::{PacketCursor, SoundConfig, StreamInfo};
use crate::{ClipSpec, MediaError};

/// Box sizes are 32 bits here, except for the media data.
const MEDIA_DATA_HEADER_BYTES: u64 = 16;

/// Writes samples in decoding order, which is AV1's display order, at a constant rate.
pub(crate) struct Mp4Muxer {
    sink: Sink,
    media_data_at: u64,
    /// In the video track's units.
    frame_duration: u32,
    rate: Rational,
    video: SampleTable,
    audio: Option<Audio>,
    /// Whether the last sample was one of the audio track.
    is_last_audio: bool,
}

struct Audio {
    packets: Packets,
    table: SampleTable,
}

enum Packets {
    Encoded(Box<FlacEncoder>),
    Copied(Box<PacketCursor>),
}

impl Mp4Muxer {
    pub(crate) fn new(
        mut sink: Sink,
        spec: &ClipSpec,
        audio: AudioSource,
    ) -> Result<Self, MediaError> {
        let packets = match audio {
            AudioSource::None => None,
            AudioSource::Samples(spec) => Some(Packets::Encoded(Box::new(FlacEncoder::new(spec)?))),
            AudioSource::Copy(track) => Some(Packets::Copied(Box::new(PacketCursor::new(track)))),
        };
        let audio = packets.map(|packets| Audio {
            packets,
            table: SampleTable::default(),
        });
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
            frame_duration: spec.frame_rate.den(),
            rate: spec.frame_rate,
            video: SampleTable::default(),
            audio,
            is_last_audio: false,
        })
    }

    pub(crate) fn frames(&self) -> u64 {
        self.video.samples()
    }

    pub(crate) fn append(&mut self, sample: &[u8], is_key: bool) -> Result<(), MediaError> {
        self.copy_audio_before(self.video.samples())?;
        let position = self.sink.position();
        self.sink.append(sample)?;
        let goes_on = !std::mem::replace(&mut self.is_last_audio, false);
        let bytes = sample.len() as u32;
        self.video
            .push(position, bytes, self.frame_duration, goes_on);
        if is_key {
            self.video.mark_key();
        }
        Ok(())
    }

    /// Adds interleaved samples to the audio track; false where there is none.
    pub(crate) fn append_audio(&mut self, samples: &[f32]) -> Result<bool, MediaError> {
        let Some(Audio {
            packets: Packets::Encoded(encoder),
            table,
        }) = &mut self.audio
        else {
            return Ok(false);
        };
        let spec = encoder.spec();
        let after = encoder.samples() + samples.len() as u64 / u64::from(spec.channels);
        spec.check_samples(after)?;
        let (sink, is_last_audio) = (&mut self.sink, &mut self.is_last_audio);
        encoder.push(samples, |block| {
            append_block(sink, table, &block, is_last_audio)
        })?;
        Ok(true)
    }

    /// Writes the index; the size of the file.
    pub(crate) fn finish(mut self, stream: &Av1Stream<'_>) -> Result<u64, MediaError> {
        let mut audio_track = None;
        self.copy_audio_before(u64::MAX)?;
        if let Some(Audio { packets, mut table }) = self.audio.take() {
            audio_track = match packets {
                Packets::Encoded(encoder) => {
                    let spec = encoder.spec();
                    let (last, stream_info) = encoder.finish()?;
                    if let Some(block) = last {
                        append_block(&mut self.sink, &mut table, &block, &mut self.is_last_audio)?;
                    }
                    Some(AudioTrack {
                        config: SoundConfig::Flac(StreamInfo::read(&stream_info)?),
                        sample_rate: spec.sample_rate,
                        channels: spec.channels,
                        timescale: spec.sample_rate,
                        table,
                        edit: None,
                    })
                }
                Packets::Copied(packets) => copied_track(&packets, table),
            };
        }
        // A track without samples is one that some players stumble over.
        let audio_track = audio_track.filter(|track| track.table.samples() > 0);
        let media_data_bytes = self.sink.position() - self.media_data_at;
        let index = write_movie(stream, &self.video, audio_track.as_ref());
        self.sink.append(&index)?;
        self.sink
            .patch(self.media_data_at, &media_data_header(media_data_bytes))?;
        self.sink.finish()
    }
}

impl Mp4Muxer {
    /// Copies packets that begin before frame number `frame`.
    fn copy_audio_before(&mut self, frame: u64) -> Result<(), MediaError> {
        let Some(Audio {
            packets: Packets::Copied(packets),
            table,
        }) = &mut self.audio
        else {
            return Ok(());
        };
        while let Some(packet) = packets.peek() {
            let track = packets.track();
            let starts = i128::from(track.starts(&packet)) * i128::from(self.rate.num());
            let units = i128::from(self.rate.den()) * i128::from(track.timescale());
            if starts >= i128::from(frame) * units {
                break;
            }
            let position = self.sink.position();
            if let Some((packet, content)) = packets.read()? {
                self.sink.append(content)?;
                let goes_on = std::mem::replace(&mut self.is_last_audio, true);
                table.push(position, packet.bytes, packet.duration, goes_on);
            }
        }
        Ok(())
    }
}

fn copied_track(packets: &PacketCursor, table: SampleTable) -> Option<AudioTrack> {
    let track = packets.track();
    Some(AudioTrack {
        config: track.config()?.clone(),
        sample_rate: track.sample_rate(),
        channels: track.channels(),
        timescale: track.timescale(),
        table,
        edit: Some(AudioEdit {
            delay: track.delay().max(0) as u64,
            skip: track.skip() as u64,
            pre_skip: track.skip_ticks().unwrap_or(0),
            heard: track.heard_for().max(0) as u64,
        }),
    })
}

fn append_block(
    sink: &mut Sink,
    table: &mut SampleTable,
    block: &AudioBlock,
    is_last_audio: &mut bool,
) -> Result<(), MediaError> {
    let position = sink.position();
    sink.append(&block.bytes)?;
    let goes_on = std::mem::replace(is_last_audio, true);
    table.push(position, block.bytes.len() as u32, block.samples, goes_on);
    Ok(())
}

/// Header of the media data box with a 64-bit size.
fn media_data_header(bytes: u64) -> [u8; MEDIA_DATA_HEADER_BYTES as usize] {
    let mut header = [0; MEDIA_DATA_HEADER_BYTES as usize];
    header[..8].copy_from_slice(b"\0\0\0\x01mdat");
    header[8..].copy_from_slice(&bytes.to_be_bytes());
    header
}
