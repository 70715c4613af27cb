//! Caches of finished jobs.

use super::lane::Lane;
use super::model::TextModel;
use crate::PipelineError;
use mote_api::RunError;
use std::sync::Arc;

/// Finished conversations a [`KvPool`] keeps at most.
pub const POOL_ENTRIES_MAX: usize = 8;

/// Common tokens that are worth taking a cache for. Fewer, such as a model's own system prompt,
/// save little time, and computing them anew keeps answers the same whatever came before.
const REUSED_TOKENS_MIN: usize = 32;

/// Key and value caches of finished jobs, for new jobs that begin with the same tokens.
///
/// A job takes the cache with the longest common beginning, unless that would throw away most of
/// a conversation while there is room for one more. A full pool gives the best one it has, or the
/// one that was used the longest ago; one whose device is full lets go of that. For a prompt that is exactly that of the cache, nothing is
/// computed: the logits after it are kept too.
pub struct KvPool {
    entries_max: usize,
    /// Least recently used first.
    entries: Vec<Entry>,
}

struct Entry {
    model: Arc<TextModel>,
    kept: Kept,
}

/// What a job leaves behind, and what a job begins with.
pub(crate) struct Kept {
    pub lane: Lane,
    /// Tokens that the cache holds.
    pub tokens: Vec<u32>,
    /// How many of them were the prompt.
    pub prompt_tokens: usize,
    /// Logits after the prompt; empty when they were not computed.
    pub prompt_logits: Vec<f32>,
}

impl KvPool {
    /// A pool that keeps `entries_max` conversations, at most [`POOL_ENTRIES_MAX`]; 0 keeps none.
    pub fn new(entries_max: usize) -> Self {
        Self {
            entries_max: entries_max.min(POOL_ENTRIES_MAX),
            entries: Vec::new(),
        }
    }

    /// Conversations kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tokens kept, over all conversations.
    pub fn tokens(&self) -> usize {
        self.entries.iter().map(|e| e.kept.tokens.len()).sum()
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// A cache for a job whose prompt is the first `prompt_tokens` of `tokens`, cut to what holds
    /// for that job. The last token is left to be computed, since its logits are needed; of a
    /// prompt the last two, so that they are computed together as they are without a cache.
    pub(crate) fn take(
        &mut self,
        model: &Arc<TextModel>,
        tokens: &[u32],
        prompt_tokens: usize,
    ) -> Result<Kept, PipelineError> {
        let Some(position) = self.best(model, tokens, prompt_tokens) else {
            return Ok(Kept {
                lane: self.new_lane(model)?,
                tokens: Vec::new(),
                prompt_tokens,
                prompt_logits: Vec::new(),
            });
        };
        let mut kept = self.entries.remove(position).kept;
        let same_prompt = kept.has_prompt(&tokens[..prompt_tokens]);
        let common = kept.common(tokens, prompt_tokens);
        let limit = if tokens.len() > prompt_tokens && common >= prompt_tokens {
            tokens.len() - 1
        } else if same_prompt {
            prompt_tokens
        } else {
            prompt_tokens.saturating_sub(2)
        };
        kept.tokens.truncate(common.min(limit));
        kept.prompt_tokens = prompt_tokens;
        if !same_prompt {
            kept.prompt_logits.clear();
        }
        Ok(kept)
    }

    /// A lane with an empty cache. Where the device has no room for one more, kept ones give way, the
    /// oldest first.
    fn new_lane(&mut self, model: &TextModel) -> Result<Lane, PipelineError> {
        loop {
            match model.lane() {
                Err(PipelineError::Run(RunError::DeviceMemory { .. }))
                    if !self.entries.is_empty() =>
                {
                    self.entries.remove(0);
                }
                lane => return lane,
            }
        }
    }

    fn best(&self, model: &Arc<TextModel>, tokens: &[u32], prompt_tokens: usize) -> Option<usize> {
        let usable = || {
            let entries = self.entries.iter().enumerate();
            let usable = entries.filter(|(_, entry)| Arc::ptr_eq(&entry.model, model));
            usable.map(|(position, entry)| (position, &entry.kept))
        };
        let common = |kept: &Kept| kept.common(tokens, prompt_tokens);
        let (position, kept) = usable().max_by_key(|(_, kept)| common(kept))?;
        let most_of_it = common(kept) * 2 >= kept.tokens.len();
        if most_of_it || kept.has_prompt(&tokens[..prompt_tokens]) {
            return Some(position);
        }
        let full = self.entries.len() >= self.entries_max;
        usable().next().map(|(oldest, _)| oldest).filter(|_| full)
    }

    /// Takes what a job leaves behind.
    pub(crate) fn put(&mut self, model: Arc<TextModel>, kept: Kept) {
        if self.entries_max == 0 {
            return;
        }
        if self.entries.len() >= self.entries_max {
            self.entries.remove(0);
        }
        self.entries.push(Entry { model, kept });
    }
}

impl Kept {
    /// Whether the logits after just this prompt are here.
    fn has_prompt(&self, prompt: &[u32]) -> bool {
        !self.prompt_logits.is_empty()
            && self.prompt_tokens == prompt.len()
            && self.tokens.starts_with(prompt)
    }

    /// Common tokens at the beginning, if they are worth using.
    fn common(&self, tokens: &[u32], prompt_tokens: usize) -> usize {
        let pairs = self.tokens.iter().zip(tokens);
        let common = pairs.take_while(|(a, b)| a == b).count();
        if common >= REUSED_TOKENS_MIN || self.has_prompt(&tokens[..prompt_tokens]) {
            common
        } else {
            0
        }
    }
}
