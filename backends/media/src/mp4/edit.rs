//! The edit list (`elst`): which part of the track's media is shown.

use std::ops::Range;

use super::boxes::{Boxes, Fields};
use super::samples::Sample;
use crate::{MediaError, Unsupported};

const NS_PER_SECOND: u32 = 1_000_000_000;

/// The part of the media timeline that is shown, in the track's units.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// `i64::MIN` for all.
    from: i64,
    /// Exclusive.
    until: i64,
    /// Units of the movie's clock before it is shown.
    delay: u64,
}

impl Shown {
    const ALL: Self = Self {
        from: i64::MIN,
        until: i64::MAX,
        delay: 0,
    };

    /// The part of `media` (a track's own, from 0) that is shown.
    pub(super) fn part_of(&self, media: Range<i64>) -> Range<i64> {
        self.from.max(media.start)..self.until.min(media.end)
    }

    /// When a place on the media timeline is shown, in nanoseconds; clamped to what is possible. Empty edits delay it.
    pub(super) fn presented_ns(&self, at: i64, media_timescale: u32, movie_timescale: u32) -> i128 {
        let from = if self.from == i64::MIN { 0 } else { self.from };
        let units = i128::from(at) - i128::from(from);
        let second = i128::from(NS_PER_SECOND);
        let half = i128::from(media_timescale) / 2;
        let media_ns = (units * second + half).div_euclid(media_timescale.max(1).into());
        let delay_ns = i128::from(self.delay) * second / i128::from(movie_timescale.max(1));
        media_ns + delay_ns
    }

    /// Whether any part of the frame is shown.
    pub(super) fn includes(&self, sample: &Sample) -> bool {
        let end = sample.shown_at + i64::from(sample.duration.max(1));
        end > self.from && sample.shown_at < self.until
    }
}

/// Reads what is shown of a track; `movie_timescale` and `media_timescale` are units per second.
///
/// Empty edits before the piece that is shown delay the track. One piece at normal speed is understood, more are refused.
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
    let mut delay = 0_u64;
    for _ in 0..count {
        let duration = fields.u32_or_u64(version)?;
        let from = if version == 1 {
            fields.u64()? as i64
        } else {
            fields.i32()?.into()
        };
        let rate = fields.u32()?;
        if from == -1 {
            if shown.is_none() {
                delay = delay.saturating_add(duration);
            }
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
        shown = Some(Shown { from, until, delay });
    }
    Ok(shown.unwrap_or(Shown::ALL))
}
