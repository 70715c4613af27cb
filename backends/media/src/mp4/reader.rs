//! Frames of an MP4 file, decoded one by one and put into display order.

use std::collections::BTreeMap;

use super::boxes::read_index;
use super::samples::Sample;
use super::track::{Track, read_track};
use crate::colour::{Planes, YuvToRgb};
use crate::file::Source;
use crate::frame::{ClipFormat, ClipInfo, Frame, FrameReader, Rational};
use crate::h264::H264Decoder;
use crate::limits::at_most;
use crate::{Limits, MediaError, Quantity};

/// Frames that may wait for one that is shown earlier; the largest decoded picture buffer of H.264 (A.3.1).
const REORDERED_FRAMES_MAX: u64 = 16;

/// Reads the first H.264 track of an MP4 or QuickTime file.
pub(crate) struct Mp4Reader {
    source: Source,
    info: ClipInfo,
    decoder: H264Decoder,
    to_rgb: YuvToRgb,
    quarter_turns: u8,
    /// In decoding order.
    samples: Vec<PlannedSample>,
    /// Index into `samples` of the next one to decode.
    next_sample: usize,
    /// Display position of the next frame to hand out.
    next_shown: u32,
    waiting: BTreeMap<u32, Planes>,
    sample_buffer: Vec<u8>,
}

struct PlannedSample {
    position: u64,
    bytes: u32,
    /// Position among the shown frames. None for a frame that only others refer to.
    shown: Option<u32>,
}

impl Mp4Reader {
    pub(crate) fn open(source: Source, limits: &Limits) -> Result<Self, MediaError> {
        let index = read_index(&source, limits)?;
        let track = read_track(&index, source.bytes(), limits)?;
        drop(index);
        let decoder = H264Decoder::new(&track.decoder_config, limits)?;
        let params = decoder.parameters();
        let colour = track.colour.or(params.colour);
        let to_rgb = YuvToRgb::new(colour, params.height)?;
        let shown = display_order(&track);
        let (frame_rate, frame_rate_varies) = frame_rate(&track, &shown)?;
        let turned = track.quarter_turns % 2 == 1;
        let pixel_aspect = track
            .pixel_aspect
            .or(params.pixel_aspect)
            .unwrap_or(Rational::ONE);
        let info = ClipInfo {
            width: if turned { params.height } else { params.width },
            height: if turned { params.width } else { params.height },
            frame_count: Some(shown.len() as u64),
            frame_rate,
            frame_rate_varies,
            pixel_aspect: if turned {
                pixel_aspect.inverse()
            } else {
                pixel_aspect
            },
            format: ClipFormat::Mp4H264 {
                profile_idc: params.profile_idc,
            },
        };
        Ok(Self {
            source,
            info,
            decoder,
            to_rgb,
            quarter_turns: track.quarter_turns,
            samples: plan(&track.samples, &shown),
            next_sample: 0,
            next_shown: 0,
            waiting: BTreeMap::new(),
            sample_buffer: Vec::new(),
        })
    }

    /// Decodes the next sample and keeps its frame if it is shown.
    fn decode_next(&mut self) -> Result<(), MediaError> {
        let sample = &self.samples[self.next_sample];
        self.sample_buffer.resize(sample.bytes as usize, 0);
        self.source
            .read_at(&mut self.sample_buffer, sample.position, "a sample")?;
        let planes = self
            .decoder
            .decode(&self.sample_buffer, self.next_sample as u64)?;
        self.next_sample += 1;
        if let Some(position) = sample.shown {
            self.waiting.insert(position, planes);
            at_most(
                Quantity::ReorderedFrames,
                self.waiting.len() as u64 - 1,
                REORDERED_FRAMES_MAX,
            )?;
        }
        Ok(())
    }
}

impl FrameReader for Mp4Reader {
    fn info(&self) -> &ClipInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, MediaError> {
        loop {
            if let Some(planes) = self.waiting.remove(&self.next_shown) {
                self.next_shown += 1;
                return Ok(Some(
                    self.to_rgb.convert(&planes).rotated(self.quarter_turns),
                ));
            }
            if self.next_sample == self.samples.len() {
                return Ok(None);
            }
            self.decode_next()?;
        }
    }
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
fn plan(samples: &[Sample], shown: &[u32]) -> Vec<PlannedSample> {
    let needed = shown.iter().max().map_or(0, |&last| last as usize + 1);
    let mut planned: Vec<PlannedSample> = samples[..needed]
        .iter()
        .map(|sample| PlannedSample {
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
