//! [`TextJob`]: one answer in the making.

use super::detokenizer::Detokenizer;
use super::lane::{Lane, PREFILL_CHUNK_TOKENS};
use super::model::TextModel;
use super::pool::{Kept, KvPool};
use super::request::{TOKENS_DEFAULT, TextPrompt, TextRequest};
use super::sampler::Sampler;
use super::stop::{Filtered, StopFilter};
use crate::PipelineError;
use crate::cancel::CancelFlag;
use mote_api::{Canceller, RunError, StatePlace};
use std::sync::Arc;
use std::time::Instant;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said so.
    EndOfAnswer,
    /// A stop string came.
    StopString,
    /// The request's limit is reached, or [`TOKENS_DEFAULT`].
    TokensMax,
    /// Prompt and answer fill the context.
    ContextFull,
}

/// What one step of a text job gave. The answer's text is that of all its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        /// Text that became certain with it; whole characters only, often empty.
        text: String,
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
    started: bool,
    stats: TextStats,
}

/// The answer as far as it goes.
struct Answer {
    prompt_tokens: usize,
    tokens_max: usize,
    /// Why the answer ends at `tokens_max`.
    at_max: Finish,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stop: StopFilter,
    finished: Option<Finish>,
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
        let mut tokens = model.encode(&request.prompt)?;
        let resume = check_resume(&request, model.spec().vocab)?;
        let mut answer = Answer::new(model, request, &tokens)?;
        for (index, &id) in resume.iter().enumerate() {
            if answer.finished.is_some() {
                let field = format!("resume_token_ids[{index}]");
                return Err(PipelineError::invalid(
                    field,
                    "comes after the answer's end",
                ));
            }
            answer.accept(model, &mut tokens, id)?;
        }
        let kept = cache.take(model, &tokens, answer.prompt_tokens)?;
        let computed = kept.tokens.len();
        let stats = TextStats {
            prompt_tokens: answer.prompt_tokens as u64,
            cached_tokens: computed as u64,
            generated_tokens: (tokens.len() - answer.prompt_tokens) as u64,
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
        let id = self.answer.sampler.choose(&mut self.logits, index as u64);
        if id.is_err() {
            self.prompt_logits.clear();
        }
        let id = id?;
        let text = self.answer.accept(&self.model, &mut self.tokens, id)?;
        let grown = self.tokens.len() - self.answer.prompt_tokens;
        self.stats.generated_tokens = grown as u64;
        Ok(match self.answer.finished {
            Some(reason) if grown == index && text.is_empty() => TextStep::Finished { reason },
            _ => TextStep::Token {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                id,
                text,
            },
        })
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
    let resume = &request.resume_token_ids;
    match resume.iter().position(|&id| id as usize >= vocab) {
        Some(index) => Err(PipelineError::invalid(
            format!("resume_token_ids[{index}]"),
            format!("{} is not below {vocab}", resume[index]),
        )),
        None => Ok(resume.clone()),
    }
}

impl Answer {
    fn new(model: &TextModel, request: TextRequest, prompt: &[u32]) -> Result<Self, PipelineError> {
        let room = model.spec().context_tokens - prompt.len();
        let asked = request.tokens_max.unwrap_or(TOKENS_DEFAULT);
        let mut sampler = Sampler::new(request.sampling, request.seed, model.spec().vocab);
        prompt.iter().for_each(|&id| sampler.observe(id));
        let detokenizer = match request.prompt {
            TextPrompt::Plain(_) => Detokenizer::after(model.tokenizer(), prompt)?,
            TextPrompt::Messages(_) => Detokenizer::new(),
        };
        Ok(Self {
            prompt_tokens: prompt.len(),
            tokens_max: asked.min(room),
            at_max: if asked <= room {
                Finish::TokensMax
            } else {
                Finish::ContextFull
            },
            sampler,
            detokenizer,
            stop: StopFilter::new(request.stop),
            finished: None,
        })
    }

    /// Takes the next token of the answer and appends it to `tokens`, unless it is an end token;
    /// gives the text that became certain.
    fn accept(
        &mut self,
        model: &TextModel,
        tokens: &mut Vec<u32>,
        id: u32,
    ) -> Result<String, PipelineError> {
        if model.spec().eos_token_ids.contains(&id) {
            return self.finish(model, Finish::EndOfAnswer);
        }
        tokens.push(id);
        self.sampler.observe(id);
        let piece = self.detokenizer.push(model.tokenizer(), id)?;
        match self.stop.push(&piece) {
            Filtered::Stop(text) => {
                self.finished = Some(Finish::StopString);
                Ok(text)
            }
            Filtered::Pass(text) if tokens.len() - self.prompt_tokens >= self.tokens_max => {
                Ok(text + &self.finish(model, self.at_max)?)
            }
            Filtered::Pass(text) => Ok(text),
        }
    }

    /// Ends the answer; gives the text that was held back.
    fn finish(&mut self, model: &TextModel, reason: Finish) -> Result<String, PipelineError> {
        let rest = self.detokenizer.finish(model.tokenizer())?;
        let (reason, text) = match self.stop.push(&rest) {
            Filtered::Stop(text) => (Finish::StopString, text),
            Filtered::Pass(text) => (reason, text + &self.stop.finish()),
        };
        self.finished = Some(reason);
        Ok(text)
    }
}
