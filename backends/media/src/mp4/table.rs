//! Where the samples of a track lie, and for how long each is presented.

use super::write::BoxWriter;

/// Samples that share a chunk offset, at most.
const SAMPLES_PER_CHUNK_MAX: u32 = 32;

/// What a file being written has to tell of a track's samples: 4 bytes for each, 16 for each chunk of up to 32.
#[derive(Default)]
pub(super) struct SampleTable {
    bytes: Vec<u32>,
    /// Runs of samples of the same duration, in the track's units.
    durations: Vec<Run>,
    chunks: Vec<Chunk>,
    /// From 1, as the file counts them.
    key_samples: Vec<u32>,
}

struct Run {
    count: u32,
    value: u32,
}

/// Samples back to back.
struct Chunk {
    position: u64,
    samples: u32,
}

impl SampleTable {
    /// Notes a sample. `goes_on` says that it lies right behind the last one.
    pub(super) fn push(&mut self, position: u64, bytes: u32, duration: u32, goes_on: bool) {
        self.bytes.push(bytes);
        match self.durations.last_mut() {
            Some(run) if run.value == duration => run.count += 1,
            _ => self.durations.push(Run {
                count: 1,
                value: duration,
            }),
        }
        match self.chunks.last_mut() {
            Some(chunk) if goes_on && chunk.samples < SAMPLES_PER_CHUNK_MAX => chunk.samples += 1,
            _ => self.chunks.push(Chunk {
                position,
                samples: 1,
            }),
        }
    }

    /// The last sample can be decoded without those before it.
    pub(super) fn mark_key(&mut self) {
        self.key_samples.push(self.bytes.len() as u32);
    }

    pub(super) fn samples(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// In the track's units.
    pub(super) fn duration(&self) -> u64 {
        let of_run = |run: &Run| u64::from(run.count) * u64::from(run.value);
        self.durations.iter().map(of_run).sum()
    }

    /// Writes the tables behind `stsd`. Without key samples all are.
    pub(super) fn write(&self, w: &mut BoxWriter) {
        w.full_box(b"stts", 0, 0, |w| {
            w.u32(self.durations.len() as u32);
            for run in &self.durations {
                w.u32s(&[run.count, run.value]);
            }
        });
        if !self.key_samples.is_empty() {
            w.full_box(b"stss", 0, 0, |w| {
                w.u32(self.key_samples.len() as u32);
                w.u32s(&self.key_samples);
            });
        }
        w.full_box(b"stsc", 0, 0, |w| self.write_chunk_runs(w));
        w.full_box(b"stsz", 0, 0, |w| {
            w.u32s(&[0, self.bytes.len() as u32]);
            w.u32s(&self.bytes);
        });
        let chunks = self.chunks.len() as u32;
        let last = self.chunks.last().map_or(0, |chunk| chunk.position);
        if last > u32::MAX.into() {
            w.full_box(b"co64", 0, 0, |w| {
                w.u32(chunks);
                self.chunks.iter().for_each(|chunk| w.u64(chunk.position));
            });
        } else {
            w.full_box(b"stco", 0, 0, |w| {
                w.u32(chunks);
                self.chunks
                    .iter()
                    .for_each(|chunk| w.u32(chunk.position as u32));
            });
        }
    }

    /// First chunk, samples in each and description of every run of chunks that hold as many.
    fn write_chunk_runs(&self, w: &mut BoxWriter) {
        let starts_run =
            |at: usize| at == 0 || self.chunks[at - 1].samples != self.chunks[at].samples;
        let runs = || (0..self.chunks.len()).filter(|&at| starts_run(at));
        w.u32(runs().count() as u32);
        for at in runs() {
            w.u32s(&[at as u32 + 1, self.chunks[at].samples, 1]);
        }
    }
}
