//! Text generation.

mod request;

pub use request::{
    ChatTurn, MESSAGES_MAX, PROMPT_BYTES_MAX, STOP_BYTES_MAX, STOP_STRINGS_MAX, Sampling,
    TOKENS_DEFAULT, TextPrompt, TextRequest,
};

use crate::PipelineError;
use crate::cancel::CancelFlag;
use mote_api::{Canceller, Model, Session, TextSpec};
use std::path::Path;
use std::sync::Arc;

/// Prompt tokens computed in one step at most.
pub const PREFILL_CHUNK_TOKENS: usize = 128;
/// Finished conversations a [`KvPool`] keeps at most.
pub const POOL_ENTRIES_MAX: usize = 8;

/// A text model with its tokenizer and chat template.
pub struct TextModel {
    model: Arc<dyn Model>,
    spec: TextSpec,
}

impl TextModel {
    /// Reads tokenizer and template from `folder` and checks that `model` is what `spec` says.
    ///
    /// # Errors
    /// Names the file or the tensor that does not fit.
    pub fn open(
        folder: &Path,
        spec: &TextSpec,
        model: Arc<dyn Model>,
    ) -> Result<Self, PipelineError> {
        let _ = folder;
        Ok(Self {
            model,
            spec: spec.clone(),
        })
    }

    /// What the manifest says.
    pub fn spec(&self) -> &TextSpec {
        &self.spec
    }

    /// Bytes of the key and value cache of one conversation that fills the context.
    pub fn kv_bytes(&self) -> u64 {
        0
    }
}

/// Key and value caches of finished jobs, for new jobs that begin with the same tokens.
pub struct KvPool {
    entries_max: usize,
}

impl KvPool {
    /// A pool that keeps `entries_max` conversations, at most [`POOL_ENTRIES_MAX`]; 0 keeps none.
    pub fn new(entries_max: usize) -> Self {
        Self {
            entries_max: entries_max.min(POOL_ENTRIES_MAX),
        }
    }

    /// Conversations kept.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.entries_max = self.entries_max.min(POOL_ENTRIES_MAX);
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said so.
    EndOfAnswer,
    /// A stop string came.
    StopString,
    /// The request's limit is reached.
    TokensMax,
    /// Prompt and answer fill the context.
    ContextFull,
}

/// What one step of a text job gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextStep {
    /// A chunk of the prompt was computed.
    Prefill {
        /// Tokens of the prompt that are in the cache.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token of the answer.
    Token {
        /// Position in the answer, from 0.
        index: u32,
        /// Token.
        id: u32,
        /// Text that became certain with it; whole characters only, often empty.
        text: String,
    },
    /// The answer is complete.
    Finished {
        /// Why.
        reason: Finish,
        /// Text that was held back and belongs to the answer after all.
        tail: String,
    },
}

/// Figures of a text job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextStats {
    /// Tokens of the prompt, those of an interrupted answer not included.
    pub prompt_tokens: u64,
    /// Tokens that were found in a cache and not computed again.
    pub cached_tokens: u64,
    /// Tokens of the answer, those of an interrupted answer included; an end token is not counted.
    pub generated_tokens: u64,
    /// Wall time of prefill steps.
    pub prefill_us: u64,
    /// Wall time of decode steps.
    pub decode_us: u64,
    /// Time inside the library.
    pub compute_us: u64,
    /// Runs of the model.
    pub steps: u64,
    /// Bytes the library copied because a tensor could not be bound in place.
    pub bytes_copied: u64,
}

/// One answer in the making.
pub struct TextJob {
    session: Box<dyn Session>,
    cancel: CancelFlag,
    stats: TextStats,
}

impl TextJob {
    /// Renders and tokenizes the prompt and takes the best cache from the pool. Computes nothing.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`], [`PipelineError::ContextOverflow`], or what failed.
    pub fn start(
        model: &Arc<TextModel>,
        cache: &mut KvPool,
        request: TextRequest,
    ) -> Result<Self, PipelineError> {
        request.check()?;
        let _ = cache.len();
        Ok(Self {
            session: model.model.session()?,
            cancel: CancelFlag::default(),
            stats: TextStats::default(),
        })
    }

    /// Does one step: one run of the model at most. After [`TextStep::Finished`] it gives that
    /// again.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`], or what failed; the job can then only be finished.
    pub fn step(&mut self) -> Result<TextStep, PipelineError> {
        self.cancel.run(self.session.as_mut())?;
        Ok(TextStep::Finished {
            reason: Finish::EndOfAnswer,
            tail: String::new(),
        })
    }

    /// Stops the job from another thread.
    pub fn canceller(&self) -> Canceller {
        self.cancel.canceller(self.session.as_ref())
    }

    /// Figures so far.
    pub fn stats(&self) -> TextStats {
        self.stats
    }

    /// Gives cache and session back to the pool; right also after an error.
    pub fn finish(self, cache: &mut KvPool) {
        cache.clear();
    }
}
