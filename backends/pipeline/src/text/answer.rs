//! [`Answer`]: what is said so far, and whether it goes on.

use super::constraint::Grammar;
use super::detokenizer::Detokenizer;
use super::model::TextModel;
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
    tokens_max: usize,
    /// Why the answer ends at `tokens_max`.
    at_max: Finish,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stop: StopFilter,
    grammar: Option<Grammar>,
    pub finished: Option<Finish>,
}

impl Answer {
    pub fn new(model: &TextModel, request: TextRequest, prompt: &[u32]) -> Result<Self, PipelineError> {
        let room = model.spec().context_tokens - prompt.len();
        let asked = request.tokens_max.unwrap_or(TOKENS_DEFAULT);
        let sampler = Sampler::new(request.sampling, request.seed, model.spec().vocab);
        let mut sampler = sampler.biased(request.logit_bias);
        prompt.iter().for_each(|&id| sampler.observe(id));
        let grammar = request.constraint.as_ref();
        let grammar = grammar.map(|constraint| model.grammars()?.begin(constraint));
        let grammar = grammar.transpose()?;
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
            grammar,
            finished: None,
        })
    }

    /// Chooses the next token, which is number `index` of the answer. `logits` are changed.
    pub fn choose(&mut self, logits: &mut [f32], index: u64) -> Result<u32, PipelineError> {
        if let Some(grammar) = &mut self.grammar {
            grammar.mask(logits, None)?;
        }
        self.sampler.choose(logits, index)
    }

    /// Takes the next token of the answer and appends it to `tokens`, unless it is an end token;
    /// gives the text that became certain.
    pub fn accept(
        &mut self,
        model: &TextModel,
        tokens: &mut Vec<u32>,
        id: u32,
    ) -> Result<String, PipelineError> {
        if model.spec().eos_token_ids.contains(&id) {
            return self.finish(model, Finish::EndOfAnswer);
        }
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(id)?;
        }
        tokens.push(id);
        self.sampler.observe(id);
        let piece = self.detokenizer.push(model.tokenizer(), id)?;
        match self.stop.push(&piece) {
            Filtered::Stop(text) => {
                self.finished = Some(Finish::StopString);
                Ok(text)
            }
            Filtered::Pass(text) if self.grammar.as_ref().is_some_and(Grammar::is_complete) => {
                Ok(text + &self.finish(model, Finish::EndOfAnswer)?)
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
