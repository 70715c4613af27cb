//! [`EmbeddingJob`]: some texts on their way.

use super::model::{EmbeddingModel, EmbeddingRequest, Tokens};
use super::{batch, compute, vector};
use crate::PipelineError;
use crate::cancel::CancelFlag;
use crate::tensor::{IdleSession, SessionPool};
use mote_api::{Canceller, Tensor};
use std::collections::VecDeque;
use std::sync::Arc;

/// What one step of a job gave.
#[derive(Debug)]
pub enum EmbeddingStep {
    /// Some texts were computed; more are to come.
    Computed {
        /// Texts that are done.
        done: usize,
        /// Texts in all.
        total: usize,
    },
    /// The last texts were computed.
    Finished(Embeddings),
}

/// The vectors of all texts.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// f32 `[texts, dimensions]`, in the order of the texts.
    pub vectors: Tensor,
    /// Tokens of each text that were computed, those of its prefix and special ones included.
    pub tokens: Vec<u32>,
    /// Places of the texts that were cut, ascending.
    pub truncated: Vec<u32>,
}

/// Figures of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmbeddingStats {
    /// Texts of the request.
    pub texts: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Runs of the model.
    pub steps: u64,
    /// Time inside the library.
    pub compute_us: u64,
    /// Bytes copied to and from the library.
    pub bytes_copied: u64,
}

/// Embeds the texts of one request. A step is one run.
pub struct EmbeddingJob {
    model: Arc<EmbeddingModel>,
    used: IdleSession,
    cancel: CancelFlag,
    texts: Vec<Tokens>,
    batches: VecDeque<Vec<usize>>,
    dimensions: usize,
    /// `dimensions` elements for each text.
    values: Vec<f32>,
    done: usize,
    stats: EmbeddingStats,
}

impl EmbeddingJob {
    /// Checks the request, tokenizes its texts and takes a session. Nothing is computed.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`], [`PipelineError::TextTooLong`], or what failed.
    pub fn start(
        model: &Arc<EmbeddingModel>,
        pool: &mut SessionPool,
        request: &EmbeddingRequest,
    ) -> Result<Self, PipelineError> {
        if request.texts.is_empty() {
            return Err(PipelineError::invalid("texts", "there are none"));
        }
        let all = model.spec().dimensions;
        let dimensions = request.dimensions.unwrap_or(all);
        if !(1..=all).contains(&dimensions) {
            let why = format!("{dimensions} is not from 1 to {all}");
            return Err(PipelineError::invalid("dimensions", why));
        }
        let texts = model.encode(request)?;
        let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
        let tokens: usize = lengths.iter().sum();
        Ok(Self {
            used: pool.take(model.model())?,
            model: Arc::clone(model),
            cancel: CancelFlag::default(),
            batches: batch::plan(&lengths, model.graph()),
            dimensions,
            values: vec![0.0; texts.len() * dimensions],
            done: 0,
            stats: EmbeddingStats {
                texts: texts.len() as u64,
                tokens: tokens as u64,
                ..EmbeddingStats::default()
            },
            texts,
        })
    }

    /// Computes the next texts. After [`EmbeddingStep::Finished`] there are none.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`], or what failed; the job is over then.
    pub fn step(&mut self) -> Result<EmbeddingStep, PipelineError> {
        if let Some(batch) = self.batches.pop_front() {
            self.compute(&batch)?;
        }
        let total = self.texts.len();
        if self.done < total {
            let done = self.done;
            return Ok(EmbeddingStep::Computed { done, total });
        }
        let texts = || self.texts.iter();
        let cut = texts().enumerate().filter(|(_, text)| text.is_cut);
        Ok(EmbeddingStep::Finished(Embeddings {
            vectors: Tensor::from_slice(&[total, self.dimensions], &self.values)?,
            tokens: texts().map(|text| text.ids.len() as u32).collect(),
            truncated: cut.map(|(index, _)| index as u32).collect(),
        }))
    }

    fn compute(&mut self, batch: &[usize]) -> Result<(), PipelineError> {
        let texts: Vec<&[u32]> = batch.iter().map(|&at| &self.texts[at].ids[..]).collect();
        let (graph, spec) = (self.model.graph(), self.model.spec());
        let session = self.used.session.as_mut();
        let (vectors, report) = compute(session, (graph, spec), &self.cancel, &texts)?;
        for (&at, vector) in batch.iter().zip(vectors) {
            let vector = vector::finish(vector, self.dimensions, spec.normalise)?;
            let from = at * self.dimensions;
            self.values[from..from + self.dimensions].copy_from_slice(&vector);
        }
        self.done += batch.len();
        self.stats.steps += 1;
        self.stats.compute_us += report.compute_us;
        self.stats.bytes_copied += report.bytes_copied;
        Ok(())
    }

    /// Figures so far.
    pub fn stats(&self) -> EmbeddingStats {
        self.stats
    }

    /// Stops the job from another thread. Without effect on later jobs that use the same session.
    pub fn canceller(&self) -> Canceller {
        self.cancel.canceller(self.used.session.as_ref())
    }

    /// Gives the session back; right also after an error.
    pub fn finish(self, pool: &mut SessionPool) {
        pool.put(self.used);
    }
}
