//! The edit list (`elst`): which part of the track's media is shown.

use super::boxes::{Boxes, Fields};
use super::samples::Sample;
use crate::{MediaError, Unsupported};

/// The part of the media timeline that is shown, in the track's units.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    from: i64,
    /// Exclusive.
    until: i64,
}

impl Shown {
    const ALL: Self = Self {
        from: i64::MIN,
        until: i64::MAX,
    };

    /// Whether any part of the frame is shown.
    pub(super) fn includes(&self, sample: &Sample) -> bool {
        let end = sample.shown_at + i64::from(sample.duration.max(1));
        end > self.from && sample.shown_at < self.until
    }
}

/// Reads what is shown of a track; `movie_timescale` and `media_timescale` are units per second.
///
/// Empty edits (which delay the track) do not matter without sound. One piece at normal speed is understood, more are
/// refused.
pub(super) fn read_edits(
    track: &[u8],
    movie_timescale: u32,
    media_timescale: u32,
) -> Result<Shown, MediaError> {
    let Some(edits) = Boxes::find(track, b"edts")? else {
        return Ok(Shown::ALL);
    };
    let Some(list) = Boxes::find(edits, b"elst")? else {
        return Ok(Shown::ALL);
    };
    let mut fields = Fields::of("elst", list);
    let version = fields.version()?;
    let count = fields.u32()?;
    let mut shown = None;
    for _ in 0..count {
        let duration = fields.u32_or_u64(version)?;
        let from = if version == 1 {
            fields.u64()? as i64
        } else {
            fields.i32()?.into()
        };
        let rate = fields.u32()?;
        if from == -1 {
            continue;
        }
        if rate != 0x1_0000 || shown.is_some() {
            return Err(MediaError::NotSupported(Unsupported::EditList));
        }
        let media_units = (u128::from(duration) * u128::from(media_timescale))
            .div_ceil(movie_timescale.max(1).into());
        let until = match i64::try_from(media_units) {
            Ok(1..) => from.saturating_add(media_units as i64),
            _ => i64::MAX,
        };
        shown = Some(Shown { from, until });
    }
    Ok(shown.unwrap_or(Shown::ALL))
}
