//! The sample table (`stbl`): where each coded frame lies and when it is shown.

use super::boxes::{Boxes, Fields};
use crate::limits::at_most;
use crate::{Limits, MediaError, Quantity, Unsupported};

/// One coded frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Position in the file, in bytes.
    pub(super) position: u64,
    /// Size in bytes, within the limit and the file.
    pub(super) bytes: u32,
    /// Time to the next sample in decoding order, in the track's units.
    pub(super) duration: u32,
    /// Composition time: when the frame is shown, in the track's units.
    pub(super) shown_at: i64,
}

impl Sample {
    /// Whether all of it lies in a file of this size.
    pub(super) fn is_in(&self, file_bytes: u64) -> bool {
        let end = self.position.checked_add(self.bytes.into());
        end.is_some_and(|end| end <= file_bytes)
    }
}

/// How many samples a track may have, and of which size in bytes.
pub(super) struct SampleBounds {
    pub(super) count: (Quantity, u64),
    pub(super) bytes: (Quantity, u32),
}

impl SampleBounds {
    /// Of frames.
    pub(super) fn of_frames(limits: &Limits) -> Self {
        Self {
            count: (Quantity::Frames, limits.frames_max),
            bytes: (Quantity::SampleBytes, limits.sample_bytes_max),
        }
    }
}

/// Reads the samples of a track in decoding order. They may lie behind the file's end.
pub(super) fn read_samples(table: &[u8], bounds: &SampleBounds) -> Result<Vec<Sample>, MediaError> {
    let mut samples = sizes(Boxes::require(table, b"stsz")?, bounds)?;
    set_times(&mut samples, table)?;
    set_positions(&mut samples, table)?;
    Ok(samples)
}

/// `stsz`: one size for all, or one each.
fn sizes(payload: &[u8], bounds: &SampleBounds) -> Result<Vec<Sample>, MediaError> {
    let mut fields = Fields::of("stsz", payload);
    fields.version()?;
    let common = fields.u32()?;
    let count = fields.clone().u32()?;
    at_most(bounds.count.0, count.into(), bounds.count.1)?;
    let sample = |bytes: u32| {
        at_most(bounds.bytes.0, bytes.into(), bounds.bytes.1.into())?;
        Ok(Sample {
            position: 0,
            bytes,
            duration: 0,
            shown_at: 0,
        })
    };
    if common != 0 {
        let sample = sample(common)?;
        return Ok(vec![sample; count as usize]);
    }
    fields
        .table::<4>()?
        .iter()
        .map(|entry| sample(u32::from_be_bytes(*entry)))
        .collect()
}

/// `stts` and `ctts`: durations, and the offsets from decoding to composition time, both in runs.
fn set_times(samples: &mut [Sample], table: &[u8]) -> Result<(), MediaError> {
    let mut durations = runs("stts", Boxes::require(table, b"stts")?)?;
    let mut offsets = match Boxes::find(table, b"ctts")? {
        Some(payload) => Some(runs("ctts", payload)?),
        None => None,
    };
    let mut decoded_at = 0_i64;
    for sample in samples {
        sample.duration = durations
            .next()
            .ok_or(MediaError::corrupt("stts", "covers too few samples"))?;
        // Version 0 calls the offset unsigned, but writers store negative ones all the same.
        let offset = match &mut offsets {
            Some(offsets) => offsets
                .next()
                .ok_or(MediaError::corrupt("ctts", "covers too few samples"))?
                as i32,
            None => 0,
        };
        sample.shown_at = decoded_at + i64::from(offset);
        decoded_at += i64::from(sample.duration);
    }
    Ok(())
}

/// The values of a table of (count, value) entries, each repeated by its count.
fn runs<'a>(
    what: &'static str,
    payload: &'a [u8],
) -> Result<impl Iterator<Item = u32> + use<'a>, MediaError> {
    let mut fields = Fields::of(what, payload);
    fields.version()?;
    let entries = fields.table::<8>()?;
    Ok(entries.iter().flat_map(|&[a, b, c, d, e, f, g, h]| {
        let count = u32::from_be_bytes([a, b, c, d]) as usize;
        std::iter::repeat_n(u32::from_be_bytes([e, f, g, h]), count)
    }))
}

/// `stsc` and `stco` or `co64`: samples lie back to back in chunks.
fn set_positions(samples: &mut [Sample], table: &[u8]) -> Result<(), MediaError> {
    let mut fields = Fields::of("stsc", Boxes::require(table, b"stsc")?);
    fields.version()?;
    let chunk_runs = fields.table::<12>()?;
    let mut left = samples;
    let mut run = 0;
    for (chunk, position) in (1_u32..).zip(chunk_positions(table)?) {
        if left.is_empty() {
            break;
        }
        if chunk_runs
            .get(run + 1)
            .is_some_and(|next| chunk_run(next).0 <= chunk)
        {
            run += 1;
        }
        let (first_chunk, samples_per_chunk, description) = chunk_runs
            .get(run)
            .map(chunk_run)
            .ok_or(MediaError::corrupt("stsc", "has no entries"))?;
        if first_chunk > chunk || samples_per_chunk == 0 {
            return Err(MediaError::corrupt(
                "stsc",
                "leaves a chunk without samples",
            ));
        }
        if description != 1 {
            return Err(MediaError::NotSupported(Unsupported::SampleDescriptions));
        }
        let (here, rest) = left.split_at_mut(left.len().min(samples_per_chunk as usize));
        let mut position = position;
        for sample in here {
            sample.position = position;
            position = position
                .checked_add(sample.bytes.into())
                .ok_or(MediaError::corrupt(
                    "a chunk offset",
                    "lies outside any file",
                ))?;
        }
        left = rest;
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(MediaError::corrupt(
            "the chunk offsets",
            "cover too few samples",
        ))
    }
}

/// First chunk, samples per chunk and sample description of an `stsc` entry.
fn chunk_run(&[a, b, c, d, e, f, g, h, i, j, k, l]: &[u8; 12]) -> (u32, u32, u32) {
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
        u32::from_be_bytes([i, j, k, l]),
    )
}

fn chunk_positions(table: &[u8]) -> Result<impl Iterator<Item = u64>, MediaError> {
    let (short, long): (&[[u8; 4]], &[[u8; 8]]) = match Boxes::find(table, b"stco")? {
        Some(payload) => {
            let mut fields = Fields::of("stco", payload);
            fields.version()?;
            (fields.table()?, &[])
        }
        None => {
            let mut fields = Fields::of("co64", Boxes::require(table, b"co64")?);
            fields.version()?;
            (&[], fields.table()?)
        }
    };
    let short = short
        .iter()
        .map(|entry| u64::from(u32::from_be_bytes(*entry)));
    Ok(short.chain(long.iter().map(|entry| u64::from_be_bytes(*entry))))
}
