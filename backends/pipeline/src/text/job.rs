//! [`TextJob`]: one answer in the making.

use super::answer::{Answer, Finish};
use super::lane::{Lane, PREFILL_CHUNK_TOKENS};
use super::logprobs::Logprobs;
use super::model::TextModel;
use super::pool::{Kept, KvPool};
use super::request::TextRequest;
use crate::PipelineError;
use crate::cancel::CancelFlag;
use mote_api::{Canceller, RunError, StatePlace};
use std::sync::Arc;
use std::time::Instant;

/// What one step of a text job gave. The answer's text is that of all its tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum TextStep {
    /// A chunk of the prompt was computed, or a token of a resumed answer; more is to come.
    Prefill {
        /// Tokens that are in the cache.
        done: usize,
        /// Tokens of the prompt, and of the answer that is resumed.
        total: usize,
    },
    /// A token of the answer. An end token is given only when it brings text that was held back
    /// because it might have become a stop string.
    Token {
        /// Position in the answer, from 0.
        index: u32,
        /// Token.
        id: u32,
        /// Text of the answer that became certain with it; whole characters only, often empty.
        text: String,
        /// Text of the reasoning likewise, when the request asks for it apart.
        reasoning: String,
        /// Whether the token is of the reasoning or one of its tags.
        is_reasoning: bool,
        /// How likely it was, when the request asks.
        logprobs: Option<Box<Logprobs>>,
    },
    /// The answer is complete.
    Finished {
        /// Why.
        reason: Finish,
    },
}

/// Figures of a text job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextStats {
    /// Tokens of the prompt, those of a resumed answer not included.
    pub prompt_tokens: u64,
    /// Tokens that were found in a cache and not computed again.
    pub cached_tokens: u64,
    /// Tokens of the answer, those of a resumed answer included; an end token is not counted.
    pub generated_tokens: u64,
    /// Those of them that are reasoning, tags included; 0 when it is not asked for apart.
    pub reasoning_tokens: u64,
    /// Wall time of the steps up to the first token.
    pub prefill_us: u64,
    /// Wall time of the steps after it.
    pub decode_us: u64,
    /// Time inside the library.
    pub compute_us: u64,
    /// Runs of the model.
    pub steps: u64,
    /// Bytes the library copied because a tensor could not be bound in place.
    pub bytes_copied: u64,
}

/// One answer in the making; owns a session and its cache until [`TextJob::finish`].
pub struct TextJob {
    model: Arc<TextModel>,
    lane: Lane,
    /// Logits after the prompt, as soon as they are known.
    prompt_logits: Vec<f32>,
    /// Whether the device was lost, and the lane with it.
    lost: bool,
    cancel: CancelFlag,
    /// Prompt and answer.
    tokens: Vec<u32>,
    /// How many of them the cache holds.
    computed: usize,
    answer: Answer,
    logits: Vec<f32>,
    /// Likeliest tokens to tell with each token.
    logprobs: Option<usize>,
    /// The logits as the model gave them, where they are to be told of.
    raw_logits: Vec<f32>,
    started: bool,
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
        let (mut tokens, prompt_tail) = model.encode(&request.prompt, request.tools.as_deref())?;
        let resume = check_resume(&request, model.spec().vocab)?;
        let logprobs = request.logprobs;
        let mut answer = Answer::new(model, request, &tokens, &prompt_tail)?;
        for (index, &id) in resume.iter().enumerate() {
            if answer.finished.is_some() {
                let field = format!("resume_token_ids[{index}]");
                return Err(PipelineError::invalid(
                    field,
                    "comes after the answer's end",
                ));
            }
            let accepted = answer.accept(model, &mut tokens, id);
            accepted.map_err(|error| not_resumed(index, error))?;
        }
        let kept = cache.take(model, &tokens, answer.prompt_tokens)?;
        let computed = kept.tokens.len();
        let stats = TextStats {
            prompt_tokens: answer.prompt_tokens as u64,
            cached_tokens: computed as u64,
            generated_tokens: (tokens.len() - answer.prompt_tokens) as u64,
            reasoning_tokens: answer.reasoning_tokens(),
            ..TextStats::default()
        };
        Ok(Self {
            model: Arc::clone(model),
            lane: kept.lane,
            prompt_logits: kept.prompt_logits,
            lost: false,
            cancel: CancelFlag::default(),
            tokens,
            computed,
            answer,
            logits: Vec::new(),
            logprobs,
            raw_logits: Vec::new(),
            started: false,
            stats,
        })
    }

    /// Does one step: one run of the model at most. After [`TextStep::Finished`] it gives that
    /// again.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`], or what failed; the job can then only be finished.
    pub fn step(&mut self) -> Result<TextStep, PipelineError> {
        if self.cancel.is_set() {
            return Err(PipelineError::Cancelled);
        }
        if let Some(reason) = self.answer.finished {
            return Ok(TextStep::Finished { reason });
        }
        let (start, decoding) = (Instant::now(), self.started);
        let step = self.compute_one();
        let elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        if decoding {
            self.stats.decode_us += elapsed_us;
        } else {
            self.stats.prefill_us += elapsed_us;
        }
        step
    }

    fn compute_one(&mut self) -> Result<TextStep, PipelineError> {
        if self.computed < self.tokens.len() {
            self.run()?;
        } else {
            // The pool knows this very prompt and the logits after it.
            self.logits.clone_from(&self.prompt_logits);
        }
        if self.computed < self.tokens.len() {
            return Ok(TextStep::Prefill {
                done: self.computed,
                total: self.tokens.len(),
            });
        }
        self.started = true;
        let index = self.tokens.len() - self.answer.prompt_tokens;
        let id = self.choose(index as u64);
        if id.is_err() {
            self.prompt_logits.clear();
        }
        let id = id?;
        let said = self.answer.accept(&self.model, &mut self.tokens, id)?;
        let grown = self.tokens.len() - self.answer.prompt_tokens;
        self.stats.generated_tokens = grown as u64;
        self.stats.reasoning_tokens = self.answer.reasoning_tokens();
        Ok(match self.answer.finished {
            Some(reason) if grown == index && said.is_silent() => TextStep::Finished { reason },
            _ => TextStep::Token {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                id,
                text: said.text,
                reasoning: said.reasoning,
                is_reasoning: said.is_reasoning,
                logprobs: self.logprobs_of(id)?,
            },
        })
    }

    /// Token number `index` of the answer, by the logits.
    fn choose(&mut self, index: u64) -> Result<u32, PipelineError> {
        if self.logprobs.is_some() {
            self.raw_logits.clone_from(&self.logits);
        }
        self.answer.choose(&self.model, &mut self.logits, index)
    }

    /// How likely the token was that was just chosen, if that is asked for.
    fn logprobs_of(&self, id: u32) -> Result<Option<Box<Logprobs>>, PipelineError> {
        let tokenizer = self.model.tokenizer();
        self.logprobs
            .map(|top| Logprobs::new(tokenizer, &self.raw_logits, id, top).map(Box::new))
            .transpose()
    }

    /// Runs the model once, and fetches logits where they are needed.
    fn run(&mut self) -> Result<(), PipelineError> {
        let prompt_tokens = self.answer.prompt_tokens;
        let end = next_chunk(self.computed, prompt_tokens);
        let ids = &self.tokens[self.computed..end];
        let report = self.lane.compute(&self.cancel, self.computed, ids);
        self.lost |= matches!(report, Err(PipelineError::Run(RunError::DeviceLost { .. })));
        let report = report?;
        self.computed = end;
        self.stats.steps += 1;
        self.stats.compute_us += report.compute_us;
        self.stats.bytes_copied += report.bytes_copied;
        if end == prompt_tokens || end == self.tokens.len() {
            self.lane.logits(&mut self.logits)?;
        }
        if end == prompt_tokens {
            self.prompt_logits.clone_from(&self.logits);
        }
        Ok(())
    }

    /// Stops the job from another thread: the step in progress, or else the next one, ends with
    /// [`PipelineError::Cancelled`]. Without effect on later jobs that use the same session.
    pub fn canceller(&self) -> Canceller {
        self.cancel.canceller(self.lane.session())
    }

    /// Figures so far.
    pub fn stats(&self) -> TextStats {
        self.stats
    }

    /// Where the key and value cache lies, each place once.
    ///
    /// # Errors
    /// When the session does not know.
    pub fn cache_places(&mut self) -> Result<Vec<StatePlace>, PipelineError> {
        self.lane.cache_places()
    }

    /// Gives cache and session back to the pool; right also after an error.
    pub fn finish(mut self, cache: &mut KvPool) {
        self.tokens.truncate(self.computed);
        let kept = Kept {
            lane: self.lane,
            tokens: self.tokens,
            prompt_tokens: self.answer.prompt_tokens,
            prompt_logits: self.prompt_logits,
        };
        if !self.lost {
            cache.put(self.model, kept);
        }
    }
}

/// Where the run ends that begins at token `start`.
///
/// The prompt goes in chunks. Kernels may round a token that is computed alone differently from one
/// that is computed with others, so a chunk of one is avoided, and a resumed answer is computed as
/// it was the first time: token by token.
fn next_chunk(start: usize, prompt_tokens: usize) -> usize {
    match prompt_tokens.saturating_sub(start) {
        0 => start + 1,
        left if left <= PREFILL_CHUNK_TOKENS => prompt_tokens,
        left if left == PREFILL_CHUNK_TOKENS + 1 => prompt_tokens - 2,
        _ => start + PREFILL_CHUNK_TOKENS,
    }
}

fn check_resume(request: &TextRequest, vocab: usize) -> Result<Vec<u32>, PipelineError> {
    let bias = request.logit_bias.iter().map(|bias| bias.id);
    check_ids("logit_bias", bias, vocab)?;
    let resume = &request.resume_token_ids;
    check_ids("resume_token_ids", resume.iter().copied(), vocab)?;
    Ok(resume.clone())
}

/// Why the answer cannot go on after token number `index` that it is said to have.
fn not_resumed(index: usize, error: PipelineError) -> PipelineError {
    match error {
        PipelineError::Grammar(_) => {
            let field = format!("resume_token_ids[{index}]");
            PipelineError::invalid(field, "does not keep to the constraint")
        }
        other => other,
    }
}

fn check_ids(
    field: &str,
    ids: impl Iterator<Item = u32>,
    vocab: usize,
) -> Result<(), PipelineError> {
    match ids.enumerate().find(|&(_, id)| id as usize >= vocab) {
        Some((index, id)) => Err(PipelineError::invalid(
            format!("{field}[{index}]"),
            format!("{id} is not below {vocab}"),
        )),
        None => Ok(()),
    }
}
