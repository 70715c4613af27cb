//! The first audio track of a movie that can be copied.

use super::boxes::{Boxes, Fields};
use super::edit::read_edits;
use super::samples::{SampleBounds, read_samples};
use super::sound_entry::{SoundEntry, read_sound_entry};
use super::track::{check_data_is_here, timescale, tracks};
use crate::file::Source;
use crate::sound::{
    PACKET_BYTES_MAX, PACKETS_MAX, Packet, SoundConfig, SoundOutline, SoundParts, SoundTrack,
    TIME_MAX,
};
use crate::{MediaError, Quantity};

/// Where the frames stand on the movie's clock.
#[derive(Clone, Copy)]
pub(super) struct Movie {
    /// Units per second.
    pub(super) timescale: u32,
    /// When the first frame is shown, in nanoseconds.
    pub(super) first_frame_ns: i128,
}

/// Finds the sound of a movie's index (the payload of `moov`): the first track that can be copied, or else the first one
/// with sound, with why it cannot. None where there is no sound. Damage to it never stands in the way of the frames.
pub(super) fn read_sound(index: &[u8], source: &Source, movie: Movie) -> Option<SoundTrack> {
    let mut refused = None;
    for track in tracks(index, b"soun") {
        let Ok(track) = track else {
            break;
        };
        match read_track(track, source, movie) {
            Ok(Some(sound)) => return Some(sound),
            Ok(None) => {}
            Err(why) => {
                refused.get_or_insert_with(|| SoundTrack::refused(source, outline(track), why));
            }
        }
    }
    refused
}

fn read_track(
    track: &[u8],
    source: &Source,
    movie: Movie,
) -> Result<Option<SoundTrack>, MediaError> {
    let media = Boxes::require(track, b"mdia")?;
    let units = timescale(&mut Fields::of("mdhd", Boxes::require(media, b"mdhd")?))?;
    let media_info = Boxes::require(media, b"minf")?;
    let table = Boxes::require(media_info, b"stbl")?;
    if is_empty(table)? {
        return Ok(None);
    }
    check_data_is_here(media_info)?;
    let entry = read_sound_entry(Boxes::require(table, b"stsd")?)?;
    let packets = packets(table, source.bytes())?;
    let shown = read_edits(track, movie.timescale, units)?;
    let Some((first, last)) = packets.first().zip(packets.last()) else {
        return Err(MediaError::Truncated {
            inside: "a packet of sound",
        });
    };
    let mut heard = shown.part_of(first.starts..last.ends());
    // What is heard at a place on the clock, less that place: the same everywhere.
    let offset_ns = shown.presented_ns(0, units, movie.timescale);
    let from_first_ns = movie.first_frame_ns - offset_ns;
    let scaled = (from_first_ns * i128::from(units) * 2 + 1_000_000_000).div_euclid(2_000_000_000);
    let first_frame = i64::try_from(scaled).unwrap_or(TIME_MAX + 1);
    if let SoundConfig::Opus(head) = &entry.config {
        // Decoders drop it whatever the edit list says.
        let pre_skip = i64::from(head.pre_skip) * i64::from(units) / 48_000;
        heard.start = heard.start.max(pre_skip);
    }
    let parts = SoundParts {
        config: entry.config,
        sample_rate: entry.sample_rate,
        channels: entry.channels,
        timescale: units,
        packets,
        first_frame,
        heard,
        is_continuous: true,
    };
    SoundTrack::new(source, parts)
}

/// Whether the track has no samples.
fn is_empty(table: &[u8]) -> Result<bool, MediaError> {
    let mut fields = Fields::of("stsz", Boxes::require(table, b"stsz")?);
    fields.skip(8)?;
    Ok(fields.u32()? == 0)
}

/// Packets up to the first one that does not lie in the file.
fn packets(table: &[u8], file_bytes: u64) -> Result<Vec<Packet>, MediaError> {
    let bounds = SampleBounds {
        count: (Quantity::AudioPackets, PACKETS_MAX),
        bytes: (Quantity::AudioPacketBytes, PACKET_BYTES_MAX),
    };
    let samples = read_samples(table, &bounds)?;
    let mut starts = 0;
    let packets = samples
        .into_iter()
        .take_while(|sample| sample.is_in(file_bytes))
        .map(|sample| {
            let packet = Packet {
                position: sample.position,
                bytes: sample.bytes,
                duration: sample.duration,
                starts,
            };
            starts = packet.ends();
            packet
        });
    Ok(packets.collect())
}

/// What can be told of a track that is not copied; zeros where it does not say.
fn outline(track: &[u8]) -> SoundOutline {
    let media = Boxes::find(track, b"mdia").ok().flatten();
    let media = media.unwrap_or_default();
    let (timescale, duration) = clock(media).unwrap_or((1, 0));
    let (sample_rate, channels) = SoundEntry::outline(media);
    SoundOutline {
        sample_rate,
        channels,
        timescale,
        duration,
    }
}

/// Units per second and duration from `mdhd`.
fn clock(media: &[u8]) -> Result<(u32, u64), MediaError> {
    let mut fields = Fields::of("mdhd", Boxes::require(media, b"mdhd")?);
    let version = fields.clone().version()?;
    let units = timescale(&mut fields)?;
    Ok((units, fields.u32_or_u64(version)?))
}
