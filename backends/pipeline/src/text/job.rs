//! [`TextJob`]: one answer in the making.

use super::answer::{Answer, Finish};
use super::bank::PREFILL_CHUNK_TOKENS;
use super::batch;
use super::draft::draft;
use super::lane::Lane;
use super::logprobs::Logprobs;
use super::model::TextModel;
use super::pool::{KvPool, Need};
use super::request::TextRequest;
use super::window::Window;
use crate::PipelineError;
use crate::cancel::CancelFlag;
use mote_api::{Canceller, RunReport, StatePlace};
use std::collections::VecDeque;
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
    /// Time inside the library; of a run that served several jobs, this one's share.
    pub compute_us: u64,
    /// Runs of the model.
    pub steps: u64,
    /// Those of them that served other jobs, too.
    pub shared_steps: u64,
    /// Tokens drafted to be verified.
    pub drafted_tokens: u64,
    /// Those of them that were chosen, too.
    pub accepted_tokens: u64,
    /// Tokens of prompt and answer that were left out because the context was full.
    pub dropped_tokens: u64,
    /// Bytes the library copied because a tensor could not be bound in place.
    pub bytes_copied: u64,
}

/// One answer in the making; has a row of a cache until [`TextJob::finish`], or until it is dropped.
pub struct TextJob {
    model: Arc<TextModel>,
    pub(super) lane: Lane,
    /// Logits after the prompt, as soon as they are known.
    prompt_logits: Vec<f32>,
    pub(super) cancel: CancelFlag,
    deterministic: bool,
    /// Prompt and answer.
    window: Window,
    /// How many tokens of it the cache holds.
    computed: usize,
    draft_tokens_max: usize,
    /// What may follow the window's last token.
    draft: Vec<u32>,
    /// Steps whose run is done.
    ready: VecDeque<Result<TextStep, PipelineError>>,
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
        let slides = request.slide_context;
        let tools = request.tools.as_deref();
        let (prompt, prompt_tail) = model.encode(&request.prompt, tools, slides)?;
        let resume = check_resume(&request, model.spec().vocab)?;
        let (logprobs, deterministic) = (request.logprobs, request.deterministic);
        let draft_tokens_max = match model.graph().tells_several() {
            true => request.draft_tokens_max,
            false => 0,
        };
        let mut answer = Answer::new(model, request, &prompt, &prompt_tail)?;
        let context_tokens = model.spec().context_tokens;
        let mut window = Window::new(prompt, context_tokens, slides);
        for (index, &id) in resume.iter().enumerate() {
            if answer.finished.is_some() {
                let field = format!("resume_token_ids[{index}]");
                return Err(PipelineError::invalid(
                    field,
                    "comes after the answer's end",
                ));
            }
            let (before, accepted) = (answer.generated, answer.accept(model, id));
            accepted.map_err(|error| not_resumed(index, error))?;
            if answer.generated > before {
                window.push(id);
            }
        }
        let (lane, computed) = cache.take(&Need {
            model,
            tokens: window.tokens(),
            prompt_tokens: window.chunked(),
            reserved_tokens: context_tokens.min(window.chunked().saturating_add(answer.tokens_max)),
            deterministic,
        })?;
        let prompt_logits = lane.lock().rows[lane.row].prompt_logits.clone();
        let stats = TextStats {
            prompt_tokens: answer.prompt_tokens as u64,
            cached_tokens: computed as u64,
            generated_tokens: answer.generated as u64,
            dropped_tokens: window.dropped() as u64,
            reasoning_tokens: answer.reasoning_tokens(),
            ..TextStats::default()
        };
        Ok(Self {
            model: Arc::clone(model),
            lane,
            prompt_logits,
            cancel: CancelFlag::default(),
            deterministic,
            window,
            computed,
            draft_tokens_max,
            draft: Vec::new(),
            ready: VecDeque::new(),
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
        if let Some(step) = self.ready.pop_front() {
            return step;
        }
        if let Some(reason) = self.answer.finished {
            return Ok(TextStep::Finished { reason });
        }
        let start = Instant::now();
        let (was_started, step) = (self.started, self.compute_one());
        self.count_time(was_started, start);
        step
    }

    /// Whether its next step computes one token of the answer, and may do so in one run with others.
    pub fn may_join(&self) -> bool {
        let is_decoding = self.started && self.computed + 1 == self.window.tokens().len();
        is_decoding
            && !self.deterministic
            && self.draft.is_empty()
            && self.ready.is_empty()
            && self.answer.finished.is_none()
            && !self.cancel.is_set()
    }

    /// Does a step of each job, in as few runs as can be: one for all that [may join](Self::may_join) and
    /// have their caches side by side. Gives what [`TextJob::step`] would give, in the jobs' order. What
    /// cancels one of them lets such a run go on, and ends that job at its next step.
    pub fn step_together(jobs: &mut [&mut Self]) -> Vec<Result<TextStep, PipelineError>> {
        batch::step(jobs)
    }

    pub(super) fn count_time(&mut self, was_started: bool, since: Instant) {
        let elapsed_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        match was_started {
            true => self.stats.decode_us += elapsed_us,
            false => self.stats.prefill_us += elapsed_us,
        }
    }

    /// The token that is to be computed next.
    pub(super) fn next_token(&self) -> u32 {
        self.window.tokens()[self.computed]
    }

    fn compute_one(&mut self) -> Result<TextStep, PipelineError> {
        if !self.draft.is_empty() {
            return self.verify();
        }
        if self.computed < self.window.tokens().len() {
            self.run()?;
        } else {
            // The pool knows this very prompt and the logits after it.
            self.logits.clone_from(&self.prompt_logits);
        }
        let total = self.window.tokens().len();
        if self.computed < total {
            return Ok(TextStep::Prefill {
                done: self.computed,
                total,
            });
        }
        self.say()
    }

    /// Chooses the next token by the logits, and says what comes of it.
    pub(super) fn say(&mut self) -> Result<TextStep, PipelineError> {
        self.started = true;
        let index = self.answer.generated;
        let id = self.choose(index as u64);
        if id.is_err() {
            self.prompt_logits.clear();
        }
        let id = id?;
        let said = self.answer.accept(&self.model, id)?;
        let grown = self.answer.generated;
        if grown > index {
            self.go_on(id);
        }
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
        let prompt_tokens = self.window.chunked();
        let end = next_chunk(self.computed, prompt_tokens);
        let ids = &self.window.tokens()[self.computed..end];
        let mut bank = self.lane.lock();
        let report = bank.compute(&self.cancel, self.lane.row, ids, 1)?;
        let is_prompt = end == prompt_tokens && !self.window.has_slid();
        if is_prompt || end == self.window.tokens().len() {
            bank.logits(self.lane.row, 0, &mut self.logits)?;
        }
        if is_prompt {
            let row = &mut bank.rows[self.lane.row];
            row.prompt_is_exact = row.last_run_is_exact;
        }
        drop(bank);
        self.count(end - self.computed, report, 1);
        if is_prompt {
            self.prompt_logits.clone_from(&self.logits);
        }
        Ok(())
    }

    /// Takes a token of the answer into the window, and looks for what may follow it.
    fn go_on(&mut self, id: u32) {
        if let Some(kept) = self.window.push(id) {
            self.computed = kept;
            self.lane.lock().rows[self.lane.row].cut(kept);
            self.prompt_logits.clear();
            self.stats.dropped_tokens = self.window.dropped() as u64;
        }
        let left = self.answer.tokens_max - self.answer.generated;
        let room = self.window.room().min(left.saturating_sub(1));
        self.draft = match self.computed + 1 >= self.window.tokens().len() {
            true => draft(self.window.tokens(), self.draft_tokens_max.min(room)),
            false => Vec::new(),
        };
    }

    /// Computes the last token and what was drafted to follow it in one run, and says all that hold. Gives
    /// the first step; the others are ready.
    fn verify(&mut self) -> Result<TextStep, PipelineError> {
        let drafted = std::mem::take(&mut self.draft);
        let mut ids = vec![self.next_token()];
        ids.extend_from_slice(&drafted);
        let (row, before) = (self.lane.row, self.computed);
        let mut bank = self.lane.lock();
        let report = bank.compute(&self.cancel, row, &ids, ids.len())?;
        drop(bank);
        self.count(1, report, 1);
        self.stats.drafted_tokens += drafted.len() as u64;
        let mut steps = VecDeque::new();
        for (said, id) in drafted.iter().map(Some).chain([None]).enumerate() {
            let back = drafted.len() - said;
            let logits = self.lane.lock().logits(row, back, &mut self.logits);
            let step = logits.and_then(|()| self.say());
            let is_it =
                matches!(&step, Ok(TextStep::Token { id: chosen, .. }) if Some(chosen) == id);
            steps.push_back(step);
            // Where the window slid, nothing of the run counts any more.
            let holds = self.computed == before + said + 1;
            if !is_it || !holds || self.answer.finished.is_some() {
                break;
            }
            self.computed += 1;
            self.stats.accepted_tokens += 1;
        }
        let computed = self.computed.min(before + ids.len());
        self.lane.lock().rows[row].cut(computed);
        let first = steps.pop_front();
        self.ready = steps;
        first.unwrap_or(Err(PipelineError::Cancelled))
    }

    /// Takes the logits of a run that served several jobs and computed one token of each.
    pub(super) fn take(&mut self, report: RunReport, jobs: usize) -> Result<(), PipelineError> {
        self.count(1, report, jobs);
        self.lane.lock().logits(self.lane.row, 0, &mut self.logits)
    }

    fn count(&mut self, tokens: usize, report: RunReport, jobs: usize) {
        self.computed += tokens;
        self.stats.steps += 1;
        self.stats.shared_steps += u64::from(jobs > 1);
        self.stats.compute_us += report.compute_us / jobs as u64;
        self.stats.bytes_copied += report.bytes_copied / jobs as u64;
    }

    /// Stops the job from another thread: the step in progress, or else the next one, ends with
    /// [`PipelineError::Cancelled`]. Without effect on later jobs that use the same session.
    pub fn canceller(&self) -> Canceller {
        self.lane.lock().canceller(&self.cancel)
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
        self.lane.lock().places()
    }

    /// Gives the row back to the pool, with what is in it; right also after an error.
    pub fn finish(self, cache: &mut KvPool) {
        cache.put(self.lane, self.prompt_logits);
    }
}

/// Where the run ends that begins at token `start`: the prompt goes in chunks that end at multiples of
/// [`PREFILL_CHUNK_TOKENS`], whatever was taken over from a cache; an answer goes token by token, also
/// when it is resumed. So each token is computed with the same others every time.
fn next_chunk(start: usize, prompt_tokens: usize) -> usize {
    if start >= prompt_tokens {
        return start + 1;
    }
    let border = (start / PREFILL_CHUNK_TOKENS + 1) * PREFILL_CHUNK_TOKENS;
    border.min(prompt_tokens)
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
