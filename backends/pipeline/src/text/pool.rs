//! Caches of finished jobs.

use super::lane::Lane;
use super::model::TextModel;
use crate::PipelineError;
use std::sync::Arc;

/// Finished conversations a [`KvPool`] keeps at most.
pub const POOL_ENTRIES_MAX: usize = 8;

/// Key and value caches of finished jobs, for new jobs that begin with the same tokens.
///
/// A job takes the cache with the longest common beginning, unless that would throw away most of
/// a conversation while there is room for one more. A full pool gives the best one it has, or the
/// one that was used the longest ago.
pub struct KvPool {
    entries_max: usize,
    /// Least recently used first.
    entries: Vec<Entry>,
}

struct Entry {
    model: Arc<TextModel>,
    lane: Lane,
    /// Tokens that the cache holds.
    tokens: Vec<u32>,
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
        self.entries.iter().map(|entry| entry.tokens.len()).sum()
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// A lane for a job that begins with `tokens`, of which the first `prompt_tokens` are the
    /// prompt, and how many of them its cache holds already. The last token is always left to be
    /// computed, since its logits are needed; of a prompt the last two, so that they are computed
    /// together as they are without a cache.
    pub(crate) fn take(
        &mut self,
        model: &Arc<TextModel>,
        tokens: &[u32],
        prompt_tokens: usize,
    ) -> Result<(Lane, usize), PipelineError> {
        let Some(position) = self.best(model, tokens) else {
            return Ok((model.lane()?, 0));
        };
        let entry = self.entries.remove(position);
        let common = common(&entry.tokens, tokens).min(tokens.len() - 1);
        let cached = match common >= prompt_tokens {
            true => common,
            false => common.min(prompt_tokens.saturating_sub(2)),
        };
        Ok((entry.lane, cached))
    }

    fn best(&self, model: &Arc<TextModel>, tokens: &[u32]) -> Option<usize> {
        let usable = || {
            let entries = self.entries.iter().enumerate();
            entries.filter(|(_, entry)| Arc::ptr_eq(&entry.model, model))
        };
        let (position, entry) = usable().max_by_key(|(_, e)| common(&e.tokens, tokens))?;
        if common(&entry.tokens, tokens) * 2 >= entry.tokens.len() {
            return Some(position);
        }
        let full = self.entries.len() >= self.entries_max;
        usable().next().map(|(oldest, _)| oldest).filter(|_| full)
    }

    /// Takes back a lane whose cache holds `tokens`.
    pub(crate) fn put(&mut self, model: Arc<TextModel>, lane: Lane, tokens: Vec<u32>) {
        if self.entries_max == 0 {
            return;
        }
        if self.entries.len() >= self.entries_max {
            self.entries.remove(0);
        }
        self.entries.push(Entry {
            model,
            lane,
            tokens,
        });
    }
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
