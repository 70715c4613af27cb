//! [`Answer`]: what is said so far, and whether it goes on.

use super::constraint::Grammar;
use super::detokenizer::Detokenizer;
use super::model::TextModel;
use super::reasoning::{Reasoner, Split};
use super::request::{TOKENS_DEFAULT, TextPrompt, TextRequest};
use super::sampler::Sampler;
use super::stop::{Filtered, StopFilter};
use crate::PipelineError;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said so, or its constraint is complete.
    EndOfAnswer,
    /// A stop string came.
    StopString,
    /// The request's limit is reached, or [`TOKENS_DEFAULT`].
    TokensMax,
    /// Prompt and answer fill the context.
    ContextFull,
}

/// The answer as far as it goes.
pub(crate) struct Answer {
    pub prompt_tokens: usize,
    pub tokens_max: usize,
    /// Tokens so far, an end token not counted.
    pub generated: usize,
    /// Why the answer ends at `tokens_max`.
    at_max: Finish,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stop: StopFilter,
    grammar: Option<Grammar>,
    reasoner: Option<Reasoner>,
    pub finished: Option<Finish>,
}

/// Text that became certain with a token.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub text: String,
    pub reasoning: String,
    pub is_reasoning: bool,
}

impl Said {
    pub fn is_silent(&self) -> bool {
        self.text.is_empty() && self.reasoning.is_empty()
    }
}

impl Answer {
    /// An answer to `prompt`, whose text ends with `prompt_tail`.
    pub fn new(
        model: &TextModel,
        request: TextRequest,
        prompt: &[u32],
        prompt_tail: &str,
    ) -> Result<Self, PipelineError> {
        let room = match request.slide_context {
            true => usize::MAX,
            false => model.spec().context_tokens - prompt.len(),
        };
        let asked = request.tokens_max.unwrap_or(TOKENS_DEFAULT);
        let sampler = Sampler::new(request.sampling, request.seed, model.spec().vocab);
        let mut sampler = sampler.biased(request.logit_bias);
        prompt.iter().for_each(|&id| sampler.observe(id));
        let grammar = request.constraint.as_ref();
        let grammar = grammar.map(|constraint| model.grammars()?.begin(constraint));
        let grammar = grammar.transpose()?;
        let reasoner = request.reasoning.map(|asked| {
            let (tokenizer, constrained) = (model.tokenizer(), grammar.is_some());
            Reasoner::new(tokenizer, model.spec(), asked, prompt_tail, constrained)
        });
        let detokenizer = match request.prompt {
            TextPrompt::Plain(_) => Detokenizer::after(model.tokenizer(), prompt)?,
            TextPrompt::Messages(_) => Detokenizer::new(),
        };
        Ok(Self {
            prompt_tokens: prompt.len(),
            tokens_max: asked.min(room),
            generated: 0,
            at_max: if asked <= room {
                Finish::TokensMax
            } else {
                Finish::ContextFull
            },
            sampler,
            detokenizer,
            stop: StopFilter::new(request.stop),
            grammar,
            reasoner,
            finished: None,
        })
    }

    /// Chooses the next token, which is number `index` of the answer. `logits` are changed.
    pub fn choose(
        &mut self,
        model: &TextModel,
        logits: &mut [f32],
        index: u64,
    ) -> Result<u32, PipelineError> {
        let reasoner = self.reasoner.as_ref();
        if let Some(id) = reasoner.and_then(Reasoner::next_forced) {
            return Ok(id);
        }
        match &mut self.grammar {
            // The answer that must have a form is still to come.
            Some(_) if reasoner.is_some_and(Reasoner::is_inside) => {
                for &id in &model.spec().eos_token_ids {
                    if let Some(logit) = logits.get_mut(id as usize) {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
            Some(grammar) => grammar.mask(logits, reasoner.and_then(Reasoner::opening))?,
            None => {}
        }
        self.sampler.choose(logits, index)
    }

    /// Tokens of the answer that are reasoning.
    pub fn reasoning_tokens(&self) -> u64 {
        let tokens = self.reasoner.as_ref().map_or(0, Reasoner::tokens);
        tokens as u64
    }

    /// Takes the next token of the answer; gives the text that became certain. An end token is not
    /// counted.
    pub fn accept(&mut self, model: &TextModel, id: u32) -> Result<Said, PipelineError> {
        if model.spec().eos_token_ids.contains(&id) {
            return self.finish(model, Finish::EndOfAnswer);
        }
        if let Some(grammar) = &mut self.grammar
            && self.reasoner.as_ref().is_none_or(|it| it.is_answer(id))
        {
            grammar.accept(id)?;
        }
        self.generated += 1;
        self.sampler.observe(id);
        let piece = self.detokenizer.push(model.tokenizer(), id)?;
        let (split, is_reasoning) = match &mut self.reasoner {
            Some(reasoner) => reasoner.push(id, piece),
            None => (Split::answer(piece), false),
        };
        let (mut said, stopped) = self.pass(split, is_reasoning);
        let complete = self.grammar.as_ref().is_some_and(Grammar::is_complete);
        let full = self.generated >= self.tokens_max;
        let reason = match (stopped, complete, full) {
            (true, ..) => {
                self.finished = Some(Finish::StopString);
                return Ok(said);
            }
            (_, true, _) => Finish::EndOfAnswer,
            (_, _, true) => self.at_max,
            _ => return Ok(said),
        };
        let rest = self.finish(model, reason)?;
        said.text += &rest.text;
        said.reasoning += &rest.reasoning;
        Ok(said)
    }

    /// Lets text through the stop strings; tells whether one came.
    fn pass(&mut self, split: Split, is_reasoning: bool) -> (Said, bool) {
        let (text, stopped) = match self.stop.push(&split.answer) {
            Filtered::Stop(text) => (text, true),
            Filtered::Pass(text) => (text, false),
        };
        let said = Said {
            text,
            reasoning: split.reasoning,
            is_reasoning,
        };
        (said, stopped)
    }

    /// Ends the answer; gives the text that was held back.
    fn finish(&mut self, model: &TextModel, reason: Finish) -> Result<Said, PipelineError> {
        let rest = self.detokenizer.finish(model.tokenizer())?;
        let split = match &mut self.reasoner {
            Some(reasoner) => reasoner.finish(&rest),
            None => Split::answer(rest),
        };
        let (mut said, stopped) = self.pass(split, false);
        self.finished = Some(match stopped {
            true => Finish::StopString,
            false => reason,
        });
        if !stopped {
            said.text += &self.stop.finish();
        }
        Ok(said)
    }
}
