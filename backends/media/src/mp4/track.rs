//! The first video track of a movie.

use super::boxes::{Boxes, Fields};
use super::edit::{Shown, read_edits};
use super::samples::{Sample, SampleBounds, read_samples};
use crate::colour::ColourCode;
use crate::limits::at_most;
use crate::video::{TrackCodec, refused_codec};
use crate::{Limits, MediaError, Quantity, Rational, Unsupported};

/// Tracks a movie may have.
const TRACKS_MAX: u64 = 64;
/// Reserved and predefined fields of a visual sample entry, up to its boxes (ISO/IEC 14496-12, 12.1.3).
const VISUAL_SAMPLE_ENTRY_BYTES: usize = 78;

/// What the container knows of a video track.
pub(super) struct Track {
    /// Units per second of the movie's own clock.
    pub(super) movie_timescale: u32,
    pub(super) codec: TrackCodec,
    /// In decoding order.
    pub(super) samples: Vec<Sample>,
    pub(super) shown: Shown,
    /// Units of time per second.
    pub(super) timescale: u32,
    /// Clockwise quarter turns from the coded to the displayed picture.
    pub(super) quarter_turns: u8,
    /// From `colr`; outranks what the stream says.
    pub(super) colour: Option<ColourCode>,
    /// From `pasp`; outranks what the stream says.
    pub(super) pixel_aspect: Option<Rational>,
}

/// Finds and reads the first video track of a movie's index (the payload of `moov`).
pub(super) fn read_track(
    index: &[u8],
    file_bytes: u64,
    limits: &Limits,
) -> Result<Track, MediaError> {
    let mut movie_header = Fields::of("mvhd", Boxes::require(index, b"mvhd")?);
    let movie_timescale = timescale(&mut movie_header)?;
    let track =
        find_track(index, b"vide")?.ok_or(MediaError::NotSupported(Unsupported::NoVideoTrack))?;
    let media = Boxes::require(track, b"mdia")?;
    let timescale = timescale(&mut Fields::of("mdhd", Boxes::require(media, b"mdhd")?))?;
    if timescale == 0 {
        return Err(MediaError::corrupt("mdhd", "has a timescale of 0"));
    }
    let media_info = Boxes::require(media, b"minf")?;
    check_data_is_here(media_info)?;
    let table = Boxes::require(media_info, b"stbl")?;
    let (codec, entry) = sample_entry(Boxes::require(table, b"stsd")?)?;
    let samples = read_samples(table, &SampleBounds::of_frames(limits))?;
    if !samples.iter().all(|sample| sample.is_in(file_bytes)) {
        return Err(MediaError::Truncated { inside: "a sample" });
    }
    if samples.is_empty() && Boxes::find(index, b"mvex")?.is_some() {
        return Err(MediaError::NotSupported(Unsupported::Fragments));
    }
    Ok(Track {
        movie_timescale,
        codec,
        samples,
        shown: read_edits(track, movie_timescale, timescale)?,
        timescale,
        quarter_turns: quarter_turns(Boxes::require(track, b"tkhd")?)?,
        colour: colour(entry)?,
        pixel_aspect: pixel_aspect(entry)?,
    })
}

/// The first track whose handler is `kind`.
fn find_track<'a>(index: &'a [u8], kind: &[u8; 4]) -> Result<Option<&'a [u8]>, MediaError> {
    tracks(index, kind).next().transpose()
}

/// The tracks whose handler is `kind`. After an error there are no more.
pub(super) fn tracks<'a>(
    index: &'a [u8],
    kind: &[u8; 4],
) -> impl Iterator<Item = Result<&'a [u8], MediaError>> {
    let mut count = 0;
    let mut is_over = false;
    Boxes::inside(index).filter_map(move |inner| {
        let track_of = || {
            let (name, track) = inner?;
            if name.0 != *b"trak" {
                return Ok(None);
            }
            count += 1;
            at_most(Quantity::Tracks, count, TRACKS_MAX)?;
            Ok((handler(track)? == Some(*kind)).then_some(track))
        };
        if is_over {
            return None;
        }
        let track = track_of().transpose();
        is_over = matches!(track, Some(Err(_)));
        track
    })
}

fn handler(track: &[u8]) -> Result<Option<[u8; 4]>, MediaError> {
    let Some(media) = Boxes::find(track, b"mdia")? else {
        return Ok(None);
    };
    let Some(handler) = Boxes::find(media, b"hdlr")? else {
        return Ok(None);
    };
    let mut fields = Fields::of("hdlr", handler);
    fields.skip(8)?;
    fields.array().map(Some)
}

/// Units per second from `mvhd` or `mdhd`, which begin alike.
pub(super) fn timescale(fields: &mut Fields<'_>) -> Result<u32, MediaError> {
    let version = fields.version()?;
    let times_bytes = if version == 1 { 16 } else { 8 };
    fields.skip(times_bytes)?;
    fields.u32()
}

/// `dref` must say that the media lies in this file (flag 1 of its entry), where it says anything.
pub(super) fn check_data_is_here(media_info: &[u8]) -> Result<(), MediaError> {
    let Some(data_info) = Boxes::find(media_info, b"dinf")? else {
        return Ok(());
    };
    let Some(references) = Boxes::find(data_info, b"dref")? else {
        return Ok(());
    };
    let mut fields = Fields::of("dref", references);
    fields.skip(8)?;
    match Boxes::inside(fields.rest()).next().transpose()? {
        Some((_, [_, _, _, flags, ..])) if flags & 1 == 0 => {
            Err(MediaError::NotSupported(Unsupported::ExternalData))
        }
        _ => Ok(()),
    }
}

/// The first sample entry: its codec, and the boxes inside.
fn sample_entry(descriptions: &[u8]) -> Result<(TrackCodec, &[u8]), MediaError> {
    let mut fields = Fields::of("stsd", descriptions);
    fields.skip(8)?;
    let first = Boxes::inside(fields.rest()).next();
    let (name, entry) = first
        .transpose()?
        .ok_or(MediaError::corrupt("stsd", "has no entries"))?;
    if !matches!(&name.0, b"avc1" | b"avc3" | b"av01") {
        return Err(refused_codec(&name.0));
    }
    let mut fields = Fields::of("a sample entry", entry);
    fields.skip(VISUAL_SAMPLE_ENTRY_BYTES)?;
    let inside = fields.rest();
    let codec = if name.0 == *b"av01" {
        TrackCodec::Av1(Boxes::require(inside, b"av1C")?.to_vec())
    } else {
        TrackCodec::H264(Boxes::require(inside, b"avcC")?.to_vec())
    };
    Ok((codec, inside))
}

/// The rotation in the display matrix of `tkhd` (16.16 fixed point, ISO/IEC 14496-12, 8.3.2). Offsets do not matter, as
/// the track is shown alone.
fn quarter_turns(header: &[u8]) -> Result<u8, MediaError> {
    const ONE: i32 = 0x1_0000;
    let mut fields = Fields::of("tkhd", header);
    let version = fields.version()?;
    let before_matrix = if version == 1 { 48 } else { 36 };
    fields.skip(before_matrix)?;
    let (a, b) = (fields.i32()?, fields.i32()?);
    fields.skip(4)?;
    let (c, d) = (fields.i32()?, fields.i32()?);
    match (a, b, c, d) {
        (ONE, 0, 0, ONE) => Ok(0),
        (0, ONE, c, 0) if c == -ONE => Ok(1),
        (a, 0, 0, d) if a == -ONE && d == -ONE => Ok(2),
        (0, b, ONE, 0) if b == -ONE => Ok(3),
        _ => Err(MediaError::NotSupported(Unsupported::DisplayMatrix)),
    }
}

/// `colr` of type `nclx` (ISO) or `nclc` (QuickTime, which has no range flag and means limited range).
fn colour(entry: &[u8]) -> Result<Option<ColourCode>, MediaError> {
    let Some(payload) = Boxes::find(entry, b"colr")? else {
        return Ok(None);
    };
    let mut fields = Fields::of("colr", payload);
    let kind: [u8; 4] = fields.array()?;
    if kind != *b"nclx" && kind != *b"nclc" {
        return Ok(None);
    }
    fields.skip(4)?;
    let matrix = fields.u16()?;
    let full_range = kind == *b"nclx" && fields.u8()? & 0x80 != 0;
    Ok(Some(ColourCode { matrix, full_range }))
}

fn pixel_aspect(entry: &[u8]) -> Result<Option<Rational>, MediaError> {
    let Some(payload) = Boxes::find(entry, b"pasp")? else {
        return Ok(None);
    };
    let mut fields = Fields::of("pasp", payload);
    Ok(Rational::new(fields.u32()?.into(), fields.u32()?.into()))
}
