//! Turns tokens into text while they come.

use crate::PipelineError;
use tokenizers::Tokenizer;

/// Tokens decoded together at most; a longer run without one whole character is passed on as the
/// replacement characters it decodes to.
const WINDOW_TOKENS_MAX: usize = 32;
/// Tokens of a plain prompt that an answer is decoded after.
const CONTEXT_TOKENS: usize = 4;
/// An unfinished character has at most three bytes, and decodes to at most one of these for each.
const UNFINISHED_MAX: usize = 3;

/// Decodes a growing list of tokens piece by piece.
///
/// Decoders work on whole lists: a word's leading space or a character's bytes depend on the
/// tokens before. So each token is decoded behind a few that are already out, and only the text
/// that is new and can no longer change is given.
pub(crate) struct Detokenizer {
    /// Tokens of which all text is out, followed by those of which it is not.
    window: Vec<u32>,
    /// How many of the window are out.
    context: usize,
    /// Bytes of the window's text that are out.
    out_bytes: usize,
}

impl Detokenizer {
    /// Text that begins by itself.
    pub fn new() -> Self {
        Self {
            window: Vec::new(),
            context: 0,
            out_bytes: 0,
        }
    }

    /// Text that goes on after `prompt`.
    pub fn after(tokenizer: &Tokenizer, prompt: &[u32]) -> Result<Self, PipelineError> {
        let window = prompt[prompt.len().saturating_sub(CONTEXT_TOKENS)..].to_vec();
        Ok(Self {
            out_bytes: decode(tokenizer, &window)?.len(),
            context: window.len(),
            window,
        })
    }

    /// Takes the next token; gives the text that became certain.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, PipelineError> {
        self.window.push(id);
        let text = decode(tokenizer, &self.window)?;
        let overfull = self.window.len() - self.context >= WINDOW_TOKENS_MAX;
        let certain = match overfull {
            true => text.len(),
            false => text.len() - unfinished_bytes(&text),
        };
        let new = text.get(self.out_bytes..certain).unwrap_or_default();
        // Tokens without text stay in the window: alone they would be no context.
        if overfull || (certain == text.len() && !new.is_empty()) {
            self.window.drain(..self.context);
            self.context = self.window.len();
            self.out_bytes = decode(tokenizer, &self.window)?.len();
        } else {
            self.out_bytes = self.out_bytes.max(certain);
        }
        Ok(new.to_owned())
    }

    /// The text of what is left, when no more tokens come.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, PipelineError> {
        let text = decode(tokenizer, &self.window)?;
        let rest = text.get(self.out_bytes..).unwrap_or_default().to_owned();
        *self = Self::new();
        Ok(rest)
    }
}

fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String, PipelineError> {
    tokenizer
        .decode(ids, true)
        .map_err(PipelineError::Detokenize)
}

/// Bytes at the end that the next token may still turn into another character.
fn unfinished_bytes(text: &str) -> usize {
    let replacements = text.chars().rev().take(UNFINISHED_MAX);
    let count = replacements
        .take_while(|&c| c == char::REPLACEMENT_CHARACTER)
        .count();
    count * char::REPLACEMENT_CHARACTER.len_utf8()
}
