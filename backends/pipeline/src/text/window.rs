//! [`Window`]: what the model is to see of prompt and answer.

use super::bank::PREFILL_CHUNK_TOKENS;

/// Prompt and answer, or what is left of them when they outgrew the context.
///
/// A window that slides keeps its beginning, which tokens attend to whatever it says (attention sinks:
/// Xiao et al. 2024) and where instructions are, and the later half of a context; what lies between is
/// left out, and what comes behind it is computed anew, since keys know their positions.
pub(super) struct Window {
    tokens: Vec<u32>,
    context_tokens: usize,
    slides: bool,
    /// Those that are computed in chunks; what follows is computed token by token.
    chunked: usize,
    /// How many were left out so far.
    dropped: usize,
    /// Whether that happened to the answer, not just to the prompt.
    has_slid: bool,
}

impl Window {
    /// A prompt, of which the middle is left out if it is too long and the window slides.
    pub fn new(prompt: Vec<u32>, context_tokens: usize, slides: bool) -> Self {
        let mut window = Self {
            chunked: prompt.len(),
            tokens: prompt,
            context_tokens,
            slides,
            dropped: 0,
            has_slid: false,
        };
        if window.tokens.len() >= context_tokens && slides {
            window.slide();
        }
        window
    }

    /// All of it.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that were left out.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// The prompt, or what the answer goes on from since the window slid.
    pub fn chunked(&self) -> usize {
        self.chunked
    }

    /// Whether its beginning is that of prompt and answer no longer.
    pub fn has_slid(&self) -> bool {
        self.has_slid
    }

    /// Tokens that there is room for.
    pub fn room(&self) -> usize {
        self.context_tokens - self.tokens.len().min(self.context_tokens)
    }

    /// Adds a token of the answer. Tells how much of the beginning stays as it was when the window slides
    /// for it.
    pub fn push(&mut self, id: u32) -> Option<usize> {
        self.tokens.push(id);
        if self.tokens.len() <= self.context_tokens || !self.slides {
            return None;
        }
        self.has_slid = true;
        Some(self.slide())
    }

    fn slide(&mut self) -> usize {
        let kept = PREFILL_CHUNK_TOKENS.min(self.context_tokens / 4);
        let recent = self.context_tokens / 2;
        let gap = kept..self.tokens.len() - recent;
        self.dropped += gap.len();
        self.tokens.drain(gap);
        self.chunked = self.tokens.len();
        kept
    }
}
