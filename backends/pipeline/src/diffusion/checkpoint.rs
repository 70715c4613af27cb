//! What a job needs to go on elsewhere, as bytes: latents and the scheduler's history, no pictures and
//! no weights.

use super::plan::{CHECKPOINT_BYTES_MAX, HISTORY_MAX, Planned};
use crate::PipelineError;
use mote_api::Digest;

/// Begins every checkpoint, with the version of what follows.
const MAGIC: [u8; 8] = *b"motegen1";

/// Where a job is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Checkpoint {
    /// Prompts of all segments, as far as they were changed.
    pub prompts: Vec<Option<String>>,
    /// Latents of the segments that are done.
    pub finished: Vec<Vec<f32>>,
    /// The segment under way, after its first step.
    pub under_way: Option<UnderWay>,
}

/// A segment between two steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct UnderWay {
    /// Steps taken.
    pub step: usize,
    pub sample: Vec<f32>,
    pub history: Vec<Vec<f32>>,
}

impl Checkpoint {
    /// As bytes. `digest`: of the request and the model.
    pub fn write(&self, digest: &Digest) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(digest.to_string().as_bytes());
        let number = |bytes: &mut Vec<u8>, value: usize| {
            bytes.extend((value as u64).to_le_bytes());
        };
        number(&mut bytes, self.prompts.len());
        for prompt in &self.prompts {
            let text = prompt.as_ref();
            number(&mut bytes, text.map_or(0, |text| text.len() + 1));
            bytes.extend(text.map_or(&b""[..], |text| text.as_bytes()));
        }
        let values = |bytes: &mut Vec<u8>, values: &[f32]| {
            number(bytes, values.len());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        };
        number(&mut bytes, self.finished.len());
        self.finished.iter().for_each(|it| values(&mut bytes, it));
        number(&mut bytes, usize::from(self.under_way.is_some()));
        if let Some(under_way) = &self.under_way {
            number(&mut bytes, under_way.step);
            values(&mut bytes, &under_way.sample);
            number(&mut bytes, under_way.history.len());
            under_way
                .history
                .iter()
                .for_each(|it| values(&mut bytes, it));
        }
        bytes
    }

    /// From bytes; every length is what the plan says, so that no more memory is taken than for the
    /// job itself.
    ///
    /// # Errors
    /// [`PipelineError::Checkpoint`] when they are of another request, model or version, or damaged.
    pub fn read(bytes: &[u8], digest: &Digest, planned: &Planned) -> Result<Self, PipelineError> {
        if bytes.len() as u64 > CHECKPOINT_BYTES_MAX {
            return Err(PipelineError::checkpoint("is too large"));
        }
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(PipelineError::checkpoint("is of another version, or none"));
        }
        let expected = digest.to_string();
        if reader.take(expected.len())? != expected.as_bytes() {
            return Err(PipelineError::checkpoint("is of another request or model"));
        }
        let segments = planned.segments.len();
        let mut prompts = Vec::new();
        for _ in 0..reader.count(segments)? {
            let length = reader.number()?;
            let text = length
                .checked_sub(1)
                .map(|length| reader.take(length))
                .transpose()?;
            let text = text
                .map(|text| String::from_utf8(text.to_vec()))
                .transpose();
            prompts.push(text.map_err(|_| PipelineError::checkpoint("is damaged"))?);
        }
        let mut finished = Vec::new();
        for plan in &planned.segments[..reader.count(segments)?] {
            finished.push(reader.values(plan.kept_elements())?);
        }
        let under_way = match reader.count(1)? {
            0 => None,
            _ => {
                let Some(plan) = planned.segments.get(finished.len()) else {
                    return Err(PipelineError::checkpoint("is damaged"));
                };
                let elements = plan.sample_elements();
                let step = reader.count(plan.steps.saturating_sub(1))?;
                let sample = reader.values(elements)?;
                let history = (0..reader.count(HISTORY_MAX)?).map(|_| reader.values(elements));
                let history = history.collect::<Result<_, _>>()?;
                Some(UnderWay {
                    step,
                    sample,
                    history,
                })
            }
        };
        if !reader.0.is_empty() {
            return Err(PipelineError::checkpoint("is damaged"));
        }
        Ok(Self {
            prompts,
            finished,
            under_way,
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], PipelineError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| PipelineError::checkpoint("is damaged"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<usize, PipelineError> {
        let mut number = [0; 8];
        number.copy_from_slice(self.take(8)?);
        usize::try_from(u64::from_le_bytes(number))
            .map_err(|_| PipelineError::checkpoint("is damaged"))
    }

    /// A number that is no more than `most`.
    fn count(&mut self, most: usize) -> Result<usize, PipelineError> {
        let count = self.number()?;
        if count > most {
            return Err(PipelineError::checkpoint("is damaged"));
        }
        Ok(count)
    }

    /// Numbers, of which there must be `elements`.
    fn values(&mut self, elements: usize) -> Result<Vec<f32>, PipelineError> {
        if self.number()? != elements {
            return Err(PipelineError::checkpoint("is not of these sizes"));
        }
        let bytes = self.take(elements.saturating_mul(size_of::<f32>()))?;
        let values = bytes.as_chunks().0.iter();
        Ok(values.map(|&value| f32::from_le_bytes(value)).collect())
    }
}
