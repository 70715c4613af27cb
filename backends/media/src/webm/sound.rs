//! The sound of a segment: its track, and its packets as blocks come by.

use super::elements::{self as id, Elements};
use crate::file::Source;
use crate::limits::at_most;
use crate::sound::{
    Esds, FRAME_HEADER_BYTES_MAX, OpusHead, PACKET_BYTES_MAX, PACKETS_MAX, Packet, SoundConfig,
    SoundOutline, SoundParts, SoundTrack, TIME_MAX, VorbisHead, frame_samples, packet_ticks,
    read_audio_specific_config, rescale, stream_info,
};
use crate::{MediaError, Quantity, Unsupported};

/// `TrackType` of sound.
const AUDIO_TRACK: u64 = 2;
const NS_PER_SECOND: u32 = 1_000_000_000;
/// Milliseconds that a block may be away from where the durations of those before it say, so that they count as without
/// gaps: times are rounded, and writers of live streams are not exact.
const GAP_MS_MAX: i64 = 20;
/// Before the metadata blocks in `CodecPrivate` ("Matroska Media Container Codec Specifications", `A_FLAC`).
const FLAC_MAGIC: &[u8] = b"fLaC";

/// An audio track as it is described.
pub(super) struct SoundEntry {
    pub(super) number: u64,
    stream: Result<Stream, MediaError>,
    sample_rate: u32,
    channels: u16,
    delay_ns: u64,
}

struct Stream {
    config: SoundConfig,
    /// Units per second that times are turned into.
    timescale: u32,
    /// In those units, where all packets are alike.
    packet_units: Option<u32>,
}

/// Finds the first audio track of `tracks` that can be copied, or else the first one.
pub(super) fn read_sound_entry(tracks: &[u8]) -> Option<SoundEntry> {
    let mut refused = None;
    for inner in Elements::inside(tracks) {
        let Ok((id::TRACK_ENTRY, entry)) = inner else {
            continue;
        };
        if !matches!(
            Elements::unsigned(entry, id::TRACK_TYPE),
            Ok(Some(AUDIO_TRACK))
        ) {
            continue;
        }
        let Ok(Some(number)) = Elements::unsigned(entry, id::TRACK_NUMBER) else {
            continue;
        };
        let sound = read_entry(entry, number);
        if sound.stream.is_ok() {
            return Some(sound);
        }
        refused.get_or_insert(sound);
    }
    refused
}

fn read_entry(entry: &[u8], number: u64) -> SoundEntry {
    let number_of = |name| Elements::unsigned(entry, name).ok().flatten();
    let audio = Elements::find(entry, id::AUDIO).ok().flatten();
    let (said_rate, said_channels) = audio.map_or((0, 1), said);
    let stream = read_stream(entry);
    let (sample_rate, channels) = match stream.as_ref().map(|stream| &stream.config) {
        Ok(SoundConfig::Opus(head)) => (48_000, head.channels.into()),
        Ok(SoundConfig::Vorbis(head)) => (head.sample_rate, head.channels),
        Ok(SoundConfig::Flac(info)) => (info.sample_rate, info.channels),
        _ => (said_rate, said_channels),
    };
    let pre_skip_ns = match stream.as_ref().map(|stream| &stream.config) {
        Ok(SoundConfig::Opus(head)) => u64::from(head.pre_skip) * 1_000_000 / 48,
        _ => 0,
    };
    SoundEntry {
        number,
        stream,
        sample_rate,
        channels,
        delay_ns: number_of(id::CODEC_DELAY).unwrap_or(pre_skip_ns),
    }
}

/// Samples per second when decoded, and channels.
fn said(audio: &[u8]) -> (u32, u16) {
    let float = |name| match Elements::find(audio, name) {
        Ok(Some(body)) => match *body {
            [a, b, c, d] => Some(f64::from(f32::from_be_bytes([a, b, c, d]))),
            [a, b, c, d, e, f, g, h] => Some(f64::from_be_bytes([a, b, c, d, e, f, g, h])),
            _ => None,
        },
        _ => None,
    };
    let rate = float(id::OUTPUT_SAMPLING_FREQUENCY).or_else(|| float(id::SAMPLING_FREQUENCY));
    let rate = rate.unwrap_or(8000.0).clamp(0.0, f64::from(u32::MAX)) as u32;
    let channels = Elements::unsigned(audio, id::CHANNELS).ok().flatten();
    (rate, u16::try_from(channels.unwrap_or(1)).unwrap_or(0))
}

fn read_stream(entry: &[u8]) -> Result<Stream, MediaError> {
    if Elements::find(entry, id::CONTENT_ENCODINGS)?.is_some() {
        return Err(MediaError::NotSupported(Unsupported::WebmEncoding));
    }
    let private = Elements::find(entry, id::CODEC_PRIVATE)?.unwrap_or_default();
    let codec = Elements::find(entry, id::CODEC_ID)?.unwrap_or_default();
    // A string may be followed by zeros (RFC 8794, 7.4).
    let codec = codec.split(|&byte| byte == 0).next().unwrap_or_default();
    match codec {
        b"A_OPUS" => Ok(Stream {
            config: SoundConfig::Opus(OpusHead::from_webm(private)?),
            timescale: 48_000,
            packet_units: None,
        }),
        b"A_VORBIS" => Ok(Stream {
            config: SoundConfig::Vorbis(VorbisHead::read(private)?),
            timescale: NS_PER_SECOND,
            packet_units: None,
        }),
        b"A_FLAC" => {
            let blocks = private.strip_prefix(FLAC_MAGIC).unwrap_or_default();
            let info = stream_info(blocks)?;
            Ok(Stream {
                timescale: info.sample_rate,
                config: SoundConfig::Flac(info),
                packet_units: None,
            })
        }
        b"A_AAC" => aac(private),
        _ => Err(MediaError::NotSupported(Unsupported::WebmCodec)),
    }
}

/// `CodecPrivate` is an `AudioSpecificConfig`, the rest of what MP4 says of a stream is only told.
fn aac(private: &[u8]) -> Result<Stream, MediaError> {
    let kind = read_audio_specific_config(private)?;
    let specific = private
        .get(..private.len().min(Esds::SPECIFIC_BYTES_MAX))
        .filter(|specific| specific.len() == private.len())
        .ok_or(MediaError::corrupt("AudioSpecificConfig", "is too large"))?;
    let packet_samples = kind
        .packet_samples
        .ok_or(MediaError::NotSupported(Unsupported::WebmCodec))?;
    Ok(Stream {
        config: SoundConfig::Esds(Esds {
            object_type: Esds::AAC,
            buffer_bytes: [0; 3],
            bits_per_second_max: 0,
            bits_per_second: 0,
            specific: specific.to_vec(),
        }),
        timescale: kind.core_rate,
        packet_units: Some(packet_samples),
    })
}

/// A block of the track.
pub(super) struct SoundBlock {
    /// In the file, in bytes.
    pub(super) position: u64,
    pub(super) bytes: u64,
    /// In timestamp units.
    pub(super) time: i64,
    pub(super) is_laced: bool,
}

/// Packets of the track, in the order of the file.
pub(super) struct SoundBlocks {
    entry: SoundEntry,
    /// Times in timestamp units, and durations in those of the stream.
    packets: Vec<Packet>,
    /// Of the last packet.
    padding_ns: u64,
}

impl SoundBlocks {
    pub(super) fn new(entry: SoundEntry) -> Self {
        Self {
            entry,
            packets: Vec::new(),
            padding_ns: 0,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.entry.number
    }

    /// Notes a block. What is wrong with it stands in the way of the sound, not of the frames.
    pub(super) fn push(&mut self, source: &Source, block: &SoundBlock) {
        let noted = self.note(source, block);
        if let Err(why) = noted
            && self.entry.stream.is_ok()
        {
            self.entry.stream = Err(why);
        }
    }

    /// Nanoseconds at the end of the last block that are not heard.
    pub(super) fn pad(&mut self, padding_ns: i64) {
        self.padding_ns = u64::try_from(padding_ns).unwrap_or(0);
    }

    fn note(&mut self, source: &Source, block: &SoundBlock) -> Result<(), MediaError> {
        self.padding_ns = 0;
        let mut packet = Packet {
            position: block.position,
            bytes: u32::try_from(block.bytes).unwrap_or(u32::MAX),
            duration: 0,
            starts: block.time,
        };
        let Ok(stream) = &self.entry.stream else {
            // Where it begins and ends is all that is told.
            self.packets.truncate(1);
            self.packets.push(packet);
            return Ok(());
        };
        if block.is_laced {
            return Err(MediaError::NotSupported(Unsupported::WebmLacing));
        }
        at_most(
            Quantity::AudioPacketBytes,
            block.bytes,
            PACKET_BYTES_MAX.into(),
        )?;
        at_most(
            Quantity::AudioPackets,
            self.packets.len() as u64 + 1,
            PACKETS_MAX,
        )?;
        packet.duration = match stream.packet_units {
            Some(units) => units,
            None => stream.duration(source, block)?,
        };
        self.packets.push(packet);
        Ok(())
    }

    /// The track, of a segment with these units, whose first frame has this time in them.
    pub(super) fn into_track(
        self,
        source: &Source,
        unit_ns: u64,
        first_frame: i64,
    ) -> Option<SoundTrack> {
        let Self {
            entry,
            packets,
            padding_ns,
        } = self;
        let (first, last) = packets.first().zip(packets.last())?;
        let spans_ns = (last.starts.saturating_sub(first.starts))
            .unsigned_abs()
            .saturating_mul(unit_ns);
        let outline = SoundOutline {
            sample_rate: entry.sample_rate,
            channels: entry.channels,
            timescale: NS_PER_SECOND,
            duration: spans_ns,
        };
        let track = entry.stream.and_then(|stream| {
            let clock = Clock {
                unit_ns,
                timescale: stream.timescale,
            };
            let delay = clock.of_ns(entry.delay_ns.into());
            let mut packets = packets;
            for packet in &mut packets {
                packet.starts = clock.of_units(packet.starts);
            }
            let is_continuous = is_continuous(&packets, stream.timescale);
            if let SoundConfig::Vorbis(_) = stream.config {
                last_until_the_next(&mut packets);
            } else if is_continuous {
                follow_each_other(&mut packets);
            }
            let (starts, ends) = match packets.as_slice() {
                [first, ..] => (first.starts, packets.last().map_or(0, Packet::ends)),
                [] => (0, 0),
            };
            let parts = SoundParts {
                is_continuous,
                config: stream.config,
                sample_rate: entry.sample_rate,
                channels: entry.channels,
                timescale: stream.timescale,
                packets,
                first_frame: clock.of_units(first_frame).saturating_add(delay),
                heard: starts.saturating_add(delay)
                    ..ends.saturating_sub(clock.of_ns(padding_ns.into())),
            };
            SoundTrack::new(source, parts)
        });
        track.unwrap_or_else(|why| Some(SoundTrack::refused(source, outline, why)))
    }
}

impl Stream {
    /// Of a packet, by its first bytes; 0 for Vorbis, which does not tell.
    fn duration(&self, source: &Source, block: &SoundBlock) -> Result<u32, MediaError> {
        let mut head = [0; FRAME_HEADER_BYTES_MAX];
        let available = block.bytes.min(FRAME_HEADER_BYTES_MAX as u64) as usize;
        let head = &mut head[..available];
        let duration = match self.config {
            SoundConfig::Opus(_) => {
                source.read_at(head, block.position, "a packet of sound")?;
                packet_ticks(head)
            }
            SoundConfig::Flac(_) => {
                source.read_at(head, block.position, "a packet of sound")?;
                frame_samples(head)
            }
            _ => Some(0),
        };
        duration.ok_or(MediaError::corrupt(
            "a packet of sound",
            "does not say how long it is",
        ))
    }
}

/// Turns times of a segment into those of a stream.
struct Clock {
    unit_ns: u64,
    timescale: u32,
}

impl Clock {
    /// Out of the possible where it is above that.
    fn of_ns(&self, ns: i128) -> i64 {
        match i64::try_from(ns) {
            Ok(ns) => rescale(ns, NS_PER_SECOND, self.timescale).clamp(-TIME_MAX - 1, TIME_MAX + 1),
            Err(_) => TIME_MAX + 1,
        }
    }

    fn of_units(&self, units: i64) -> i64 {
        self.of_ns(i128::from(units) * i128::from(self.unit_ns))
    }
}

/// Gives each packet the time to the next one, and the last the time of the one before.
fn last_until_the_next(packets: &mut [Packet]) {
    let mut units = 0;
    for at in 1..packets.len() {
        units = packets[at].starts.saturating_sub(packets[at - 1].starts);
        packets[at - 1].duration = u32::try_from(units).unwrap_or(0);
    }
    if let Some(last) = packets.last_mut() {
        last.duration = u32::try_from(units).unwrap_or(0);
    }
}

/// Sets times, which are rounded to milliseconds as a rule, to what durations say.
fn follow_each_other(packets: &mut [Packet]) {
    let mut starts = packets.first().map_or(0, |packet| packet.starts);
    for packet in packets {
        packet.starts = starts;
        starts = packet.ends();
    }
}

fn is_continuous(packets: &[Packet], timescale: u32) -> bool {
    let slack = i64::from(timescale) * GAP_MS_MAX / 1000;
    let mut expected = packets.first().map_or(0, |packet| packet.starts);
    packets.iter().all(|packet| {
        let is_near = packet.starts.saturating_sub(expected).saturating_abs() <= slack;
        expected = expected.saturating_add(packet.duration.into());
        is_near
    })
}
