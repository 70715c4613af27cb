//! From the index of an MP4 file to a track that can be decoded.

use super::boxes::read_index;
use super::samples::Sample;
use super::sound::{Movie, read_sound};
use super::track::{Track, read_track};
use crate::file::Source;
use crate::frame::{ClipFormat, Rational};
use crate::video::{CodedFrame, VideoReader, VideoTrack};
use crate::{Limits, MediaError};

/// Opens the first video track of an MP4 or QuickTime file.
pub(crate) fn open(source: Source, limits: &Limits) -> Result<VideoReader, MediaError> {
    let index = read_index(&source, limits)?;
    let track = read_track(&index, source.bytes(), limits)?;
    let shown = display_order(&track);
    let sound = shown.first().and_then(|&first| {
        let first_at = track.samples[first as usize].shown_at;
        let movie = Movie {
            timescale: track.movie_timescale,
            first_frame_ns: track.shown.presented_ns(
                first_at,
                track.timescale,
                track.movie_timescale,
            ),
        };
        read_sound(&index, &source, movie)
    });
    drop(index);
    let (frame_rate, frame_rate_varies) = frame_rate(&track, &shown)?;
    let frames = plan(&track.samples, &shown);
    let track = VideoTrack {
        codec: track.codec,
        frames,
        frames_shown: shown.len() as u64,
        frame_rate,
        frame_rate_varies,
        quarter_turns: track.quarter_turns,
        colour: track.colour,
        pixel_aspect: track.pixel_aspect,
        av1_format: ClipFormat::Mp4Av1,
        sound,
    };
    VideoReader::open(source, track, limits)
}

/// Indices of the shown samples in display order; ties keep the decoding order.
fn display_order(track: &Track) -> Vec<u32> {
    let samples = &track.samples;
    let mut order: Vec<u32> = (0_u32..)
        .zip(samples)
        .filter(|(_, sample)| track.shown.includes(sample))
        .map(|(at, _)| at)
        .collect();
    order.sort_by_key(|&at| samples[at as usize].shown_at);
    order
}

/// Samples up to the last that is shown or that a shown one may refer to.
fn plan(samples: &[Sample], shown: &[u32]) -> Vec<CodedFrame> {
    let needed = shown.iter().max().map_or(0, |&last| last as usize + 1);
    let mut planned: Vec<CodedFrame> = samples[..needed]
        .iter()
        .map(|sample| CodedFrame {
            position: sample.position,
            bytes: sample.bytes,
            shown: None,
        })
        .collect();
    for (position, &at) in (0_u32..).zip(shown) {
        planned[at as usize].shown = Some(position);
    }
    planned
}

/// The average rate of the shown frames, and whether their spacing varies.
fn frame_rate(track: &Track, shown: &[u32]) -> Result<(Rational, bool), MediaError> {
    let (&[first, ..], &[.., last]) = (shown, shown) else {
        return Err(MediaError::NoFrames);
    };
    let shown_at = |at: u32| track.samples[at as usize].shown_at;
    let last_duration = i64::from(track.samples[last as usize].duration);
    let mut steps = shown
        .windows(2)
        .map(|pair| shown_at(pair[1]) - shown_at(pair[0]));
    let step = steps.next().unwrap_or(last_duration);
    let varies = steps.any(|other| other != step);
    let (frames, units) = if varies {
        (
            shown.len() as u64,
            shown_at(last) - shown_at(first) + last_duration,
        )
    } else {
        (1, step)
    };
    let units = u64::try_from(units).unwrap_or(0);
    let rate = Rational::new(frames * u64::from(track.timescale), units);
    Ok((
        rate.ok_or(MediaError::corrupt(
            "the video track",
            "shows its frames for no time",
        ))?,
        varies,
    ))
}
