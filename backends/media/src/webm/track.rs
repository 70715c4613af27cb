//! The first video track of a segment.

use super::elements::{self as id, Elements};
use crate::colour::ColourCode;
use crate::error::FourCc;
use crate::limits::at_most;
use crate::video::TrackCodec;
use crate::{MediaError, Quantity, Rational, Unsupported};

/// Tracks a segment may have.
const TRACKS_MAX: u64 = 64;
/// `TrackType` of pictures.
const VIDEO_TRACK: u64 = 1;
/// `Range` of samples that use all of 0 to 255.
const FULL_RANGE: u64 = 2;
/// `DisplayUnit` of a size that is only a ratio, and of one in pixels.
const RATIO_UNITS: [u64; 2] = [0, 3];

/// What the container knows of a track.
pub(super) struct Track {
    pub(super) number: u64,
    pub(super) codec: TrackCodec,
    /// Nanoseconds for which each frame is shown.
    pub(super) frame_ns: Option<u64>,
    pub(super) colour: Option<ColourCode>,
    pub(super) pixel_aspect: Option<Rational>,
}

/// Reads the first video track of `tracks`, the content of that element.
pub(super) fn read_track(tracks: &[u8]) -> Result<Track, MediaError> {
    let mut count = 0;
    for inner in Elements::inside(tracks) {
        let (name, entry) = inner?;
        if name != id::TRACK_ENTRY {
            continue;
        }
        count += 1;
        at_most(Quantity::Tracks, count, TRACKS_MAX)?;
        if Elements::unsigned(entry, id::TRACK_TYPE)? == Some(VIDEO_TRACK) {
            return read_entry(entry);
        }
    }
    Err(MediaError::NotSupported(Unsupported::NoVideoTrack))
}

fn read_entry(entry: &[u8]) -> Result<Track, MediaError> {
    check_codec(Elements::find(entry, id::CODEC_ID)?.unwrap_or_default())?;
    if Elements::find(entry, id::CONTENT_ENCODINGS)?.is_some() {
        return Err(MediaError::NotSupported(Unsupported::WebmEncoding));
    }
    let number = Elements::unsigned(entry, id::TRACK_NUMBER)?;
    let video = Elements::find(entry, id::VIDEO)?.unwrap_or_default();
    let config = Elements::find(entry, id::CODEC_PRIVATE)?.unwrap_or_default();
    Ok(Track {
        number: number.ok_or(MediaError::corrupt("a WebM track", "has no number"))?,
        codec: TrackCodec::Av1(config.to_vec()),
        frame_ns: Elements::unsigned(entry, id::DEFAULT_DURATION)?.filter(|&ns| ns > 0),
        colour: colour(video)?,
        pixel_aspect: pixel_aspect(video)?,
    })
}

fn check_codec(name: &[u8]) -> Result<(), MediaError> {
    let code = match name {
        b"V_AV1" => return Ok(()),
        b"V_VP8" => b"vp08",
        b"V_VP9" => b"vp09",
        b"V_MPEG4/ISO/AVC" => b"avc1",
        b"V_MPEGH/ISO/HEVC" => b"hvc1",
        _ => return Err(MediaError::NotSupported(Unsupported::WebmCodec)),
    };
    Err(MediaError::NotSupported(Unsupported::Codec(FourCc(*code))))
}

/// What the track says of its samples; None where it names no matrix.
fn colour(video: &[u8]) -> Result<Option<ColourCode>, MediaError> {
    let Some(colour) = Elements::find(video, id::COLOUR)? else {
        return Ok(None);
    };
    let range = Elements::unsigned(colour, id::RANGE)?;
    let matrix = Elements::unsigned(colour, id::MATRIX_COEFFICIENTS)?;
    Ok(matrix.map(|matrix| ColourCode {
        matrix: u16::try_from(matrix).unwrap_or(u16::MAX),
        full_range: range == Some(FULL_RANGE),
    }))
}

/// From the displayed and the coded size.
fn pixel_aspect(video: &[u8]) -> Result<Option<Rational>, MediaError> {
    let number = |name| Elements::unsigned(video, name);
    let (Some(width), Some(height)) = (number(id::PIXEL_WIDTH)?, number(id::PIXEL_HEIGHT)?) else {
        return Ok(None);
    };
    let unit = number(id::DISPLAY_UNIT)?.unwrap_or(0);
    let display = (number(id::DISPLAY_WIDTH)?, number(id::DISPLAY_HEIGHT)?);
    let (Some(display_width), Some(display_height)) = display else {
        return Ok(None);
    };
    if !RATIO_UNITS.contains(&unit) {
        return Ok(None);
    }
    let terms = display_width
        .checked_mul(height)
        .zip(display_height.checked_mul(width));
    Ok(terms.and_then(|(num, den)| Rational::new(num, den)))
}
