//! The sound of a clip that is read, as it lies in the file: nothing is decoded, packets are copied.

mod aac;
mod config;
mod cursor;
mod flac;
mod opus;
mod vorbis;

pub(crate) use aac::read_audio_specific_config;
pub(crate) use config::{Esds, SoundConfig};
pub(crate) use cursor::PacketCursor;
pub(crate) use flac::{
    FRAME_HEADER_BYTES_MAX, STREAM_INFO_BYTES, StreamInfo, frame_samples, stream_info,
};
pub(crate) use opus::{OpusHead, packet_ticks};
pub(crate) use vorbis::VorbisHead;

use std::ops::Range;
use std::sync::Arc;

use crate::file::Source;
use crate::limits::at_most;
use crate::{Codec, MediaError, Quantity, Rational};

/// Packets of a track, at most: above six hours of AAC at 48 kHz. Each takes 24 bytes of memory.
pub(crate) const PACKETS_MAX: u64 = 1 << 20;
/// Size of a packet in bytes, at most. Uncompressed blocks of FLAC or ALAC can be as large as that.
pub(crate) const PACKET_BYTES_MAX: u32 = 4 << 20;
/// Units of a track's clock that a place on it may lie from 0, at most: more than 100 days of nanoseconds. What is
/// computed with such places does not overflow.
pub(crate) const TIME_MAX: i64 = 1 << 53;
/// Milliseconds of packets kept before the first one that is heard, where sound begins before the frames: what decoders
/// must have heard to be right again. Opus asks for 80 ms (RFC 7845, 4.6), MP3 for as far as its reservoir of bits
/// reaches back (511 bytes, ISO/IEC 11172-3, 2.4.2.7).
const PRE_ROLL_MS: i64 = 200;

/// A coded piece of sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    /// In the file, in bytes.
    pub(crate) position: u64,
    /// At most [`PACKET_BYTES_MAX`].
    pub(crate) bytes: u32,
    /// In units of the track's clock; 0 where nothing tells.
    pub(crate) duration: u32,
    /// Where it begins on the track's clock.
    pub(crate) starts: i64,
}

impl Packet {
    pub(crate) fn ends(&self) -> i64 {
        self.starts + i64::from(self.duration)
    }
}

/// What a container tells of a track of sound.
pub(crate) struct SoundParts {
    pub(crate) config: SoundConfig,
    /// Samples per second of each channel when decoded.
    pub(crate) sample_rate: u32,
    pub(crate) channels: u16,
    /// Units of the clock per second.
    pub(crate) timescale: u32,
    pub(crate) packets: Vec<Packet>,
    /// Where on the clock the first frame is shown.
    pub(crate) first_frame: i64,
    /// The part of the clock that is heard.
    pub(crate) heard: Range<i64>,
    /// Whether each packet begins where the last one ends, by its duration.
    pub(crate) is_continuous: bool,
}

/// What is known of sound that cannot be copied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SoundOutline {
    /// Samples per second of each channel; 0 where nothing tells.
    pub(crate) sample_rate: u32,
    /// 0 where nothing tells.
    pub(crate) channels: u16,
    /// Units per second, not 0.
    pub(crate) timescale: u32,
    /// In those units.
    pub(crate) duration: u64,
}

/// The sound of a clip that was opened, to be copied into another by [`create_with_sound`](crate::create_with_sound).
///
/// It is described, not held: packets are read from the clip's file as they are copied. It begins with the first frame:
/// sound before that is not heard in the copy.
#[derive(Debug, Clone)]
pub struct SoundTrack {
    source: Source,
    stream: Result<SoundConfig, Arc<MediaError>>,
    sample_rate: u32,
    channels: u16,
    timescale: u32,
    packets: Arc<Vec<Packet>>,
    /// Those of the packets that are copied.
    kept: Range<usize>,
    first_frame: i64,
    heard: Range<i64>,
    is_continuous: bool,
}

impl SoundTrack {
    /// None where nothing is heard from the first frame on.
    pub(crate) fn new(source: &Source, parts: SoundParts) -> Result<Option<Self>, MediaError> {
        check_clock(&parts)?;
        let mut track = Self {
            source: source.clone(),
            stream: Ok(parts.config),
            sample_rate: parts.sample_rate,
            channels: parts.channels,
            timescale: parts.timescale,
            kept: 0..parts.packets.len(),
            packets: Arc::new(parts.packets),
            first_frame: parts.first_frame,
            heard: parts.heard,
            is_continuous: parts.is_continuous,
        };
        track.begin_with_the_first_frame();
        track.leave_out_unheard_end();
        Ok(track.is_heard().then_some(track))
    }

    /// Sound that is there and cannot be copied, and why.
    pub(crate) fn refused(source: &Source, outline: SoundOutline, why: MediaError) -> Self {
        let duration = i64::try_from(outline.duration).unwrap_or(TIME_MAX);
        Self {
            source: source.clone(),
            stream: Err(Arc::new(why)),
            sample_rate: outline.sample_rate,
            channels: outline.channels,
            timescale: outline.timescale.max(1),
            packets: Arc::default(),
            kept: 0..0,
            first_frame: 0,
            heard: 0..duration.clamp(1, TIME_MAX),
            is_continuous: false,
        }
    }

    /// What it is coded in; None where it is not known or damaged, and so cannot be copied.
    pub fn codec(&self) -> Option<Codec> {
        self.stream.as_ref().ok().map(SoundConfig::codec)
    }

    /// Why it cannot be copied into any file, where it cannot.
    pub fn refusal(&self) -> Option<&MediaError> {
        self.stream.as_ref().err().map(|why| &**why)
    }

    /// Samples per second of each channel, decoded; 48,000 for Opus. 0 where nothing tells.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Channels; 0 where nothing tells.
    pub fn channels(&self) -> u16 {
        self.channels
    }

    /// Samples of each channel that are heard from the first frame on, by what the file tells of times; at least 1.
    pub fn samples(&self) -> u64 {
        let rate = match self.sample_rate {
            0 => self.timescale,
            rate => rate,
        };
        let units = self.heard.end - self.heard.start;
        u64::try_from(rescale(units, self.timescale, rate)).map_or(1, |samples| samples.max(1))
    }

    /// The sound up to the end of the first `frames` frames of a clip of this rate; None where nothing is heard till then.
    /// Packets are copied whole, and what of the last one is too much is not heard, but with Vorbis.
    pub fn cut(mut self, frames: u64, frame_rate: Rational) -> Option<Self> {
        let units_per_frame = i128::from(frame_rate.den()) * i128::from(self.timescale);
        let units =
            i128::from(frames).saturating_mul(units_per_frame) / i128::from(frame_rate.num());
        let units = i64::try_from(units).unwrap_or(TIME_MAX).min(TIME_MAX);
        let ends = self.first_frame + units;
        if ends < self.heard.end {
            self.heard.end = ends;
            self.leave_out_unheard_end();
            if let Some(last) = self.kept().last()
                && !self.is_trimmed_by_samples()
            {
                self.heard.end = last.ends();
            }
        }
        self.is_heard().then_some(self)
    }

    fn is_heard(&self) -> bool {
        !self.heard.is_empty() && (self.stream.is_err() || !self.kept.is_empty())
    }

    /// Where sound begins before the frames, leaves that out, except for what decoders must have heard.
    fn begin_with_the_first_frame(&mut self) {
        if self.first_frame <= self.heard.start {
            return;
        }
        let packets = &self.packets;
        if self.is_trimmed_by_samples() {
            let pre_roll = i64::from(self.timescale) * PRE_ROLL_MS / 1000;
            let needed = self.first_frame - pre_roll;
            self.heard.start = self.first_frame;
            self.kept.start = packets.partition_point(|packet| packet.ends() <= needed);
        } else {
            let delay = self.heard.start - packets.first().map_or(0, |packet| packet.starts);
            let is_early = |packet: &Packet| packet.starts + delay < self.first_frame;
            self.kept.start = packets.partition_point(is_early);
            let first = packets.get(self.kept.start);
            self.heard.start = first.map_or(self.heard.end, |packet| packet.starts + delay);
        }
    }

    fn leave_out_unheard_end(&mut self) {
        let Some(kept) = self.packets.get(self.kept.clone()) else {
            return;
        };
        let count = kept.partition_point(|packet| packet.starts < self.heard.end);
        self.kept.end = self.kept.start + count;
    }

    /// Whether files can say which samples of a packet are heard. Of Vorbis, how many there are is not known.
    fn is_trimmed_by_samples(&self) -> bool {
        !matches!(self.stream, Ok(SoundConfig::Vorbis(_)))
    }

    pub(crate) fn config(&self) -> Option<&SoundConfig> {
        self.stream.as_ref().ok()
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn kept(&self) -> &[Packet] {
        self.packets.get(self.kept.clone()).unwrap_or_default()
    }

    /// Units of its clock per second.
    pub(crate) fn timescale(&self) -> u32 {
        self.timescale
    }

    /// From the first frame to the first sound, in units.
    pub(crate) fn delay(&self) -> i64 {
        self.heard.start - self.first_frame
    }

    /// From the start of the first packet to what is heard of it, in units: what decoders drop.
    pub(crate) fn skip(&self) -> i64 {
        let first = self.kept().first().map_or(0, |packet| packet.starts);
        (self.heard.start - first).max(0)
    }

    /// For how long it is heard, in units.
    pub(crate) fn heard_for(&self) -> i64 {
        self.heard.end - self.heard.start
    }

    /// From the first frame to the start of a packet, in units; below 0 where part of it is not heard.
    pub(crate) fn starts(&self, packet: &Packet) -> i64 {
        packet.starts - self.first_frame
    }

    /// What of the last packet is not heard, in units.
    pub(crate) fn padding(&self) -> i64 {
        let ends = self.kept().last().map_or(0, Packet::ends);
        (ends - self.heard.end).max(0)
    }

    /// Whether an MP4 file can hold it.
    pub(crate) fn fits_mp4(&self) -> bool {
        match &self.stream {
            Ok(SoundConfig::Vorbis(_)) | Err(_) => false,
            Ok(SoundConfig::Opus(_)) => self.is_continuous && self.skip_ticks().is_some(),
            Ok(_) => self.is_continuous,
        }
    }

    /// Whether a WebM file can hold it.
    pub(crate) fn fits_webm(&self) -> bool {
        match &self.stream {
            Ok(SoundConfig::Vorbis(_)) => true,
            Ok(SoundConfig::Opus(_)) => self.skip_ticks().is_some(),
            _ => false,
        }
    }

    /// What a decoder of Opus drops at the start, in ticks of 1/48,000 s, where its head can say so.
    pub(crate) fn skip_ticks(&self) -> Option<u16> {
        let ticks = rescale(self.skip(), self.timescale, opus::TICK_RATE);
        u16::try_from(ticks).ok()
    }
}

/// `units` of a clock of `from` per second on one of `to`, rounded.
pub(crate) fn rescale(units: i64, from: u32, to: u32) -> i64 {
    let from = i128::from(from.max(1));
    let scaled = (i128::from(units) * i128::from(to) * 2 + from).div_euclid(2 * from);
    i64::try_from(scaled).unwrap_or(if units < 0 { i64::MIN } else { i64::MAX })
}

fn check_clock(parts: &SoundParts) -> Result<(), MediaError> {
    let refused = |why| Err(MediaError::corrupt("the audio track", why));
    at_most(
        Quantity::AudioPackets,
        parts.packets.len() as u64,
        PACKETS_MAX,
    )?;
    if parts.timescale == 0 {
        return refused("has a timescale of 0");
    }
    let places = [parts.first_frame, parts.heard.start, parts.heard.end];
    let packets = parts
        .packets
        .first()
        .into_iter()
        .chain(parts.packets.last());
    let places = places
        .into_iter()
        .chain(packets.map(|packet| packet.starts));
    if places.into_iter().any(|place| place.abs() > TIME_MAX) {
        return refused("has impossible times");
    }
    if !parts.packets.is_sorted_by_key(|packet| packet.starts) {
        return refused("has packets that begin before the last one");
    }
    Ok(())
}
