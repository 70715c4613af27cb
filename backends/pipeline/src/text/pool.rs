//! Which row of which bank a job gets, and what is kept for the next ones.

use super::bank::{Bank, PREFILL_CHUNK_TOKENS, Row};
use super::lane::{Lane, lock};
use super::model::TextModel;
use crate::PipelineError;
use mote_api::RunError;
use std::sync::{Arc, Mutex};

/// Finished conversations a [`KvPool`] keeps at most.
pub const POOL_ENTRIES_MAX: usize = 8;

/// Key and value caches of running and of finished jobs.
///
/// A job begins with what is in common with any conversation that is here, of a finished job or of one
/// that goes on: if need be it is copied, which is far quicker than computing it. For
/// a prompt that is exactly that of a cache, nothing is computed: the logits after it are kept too.
///
/// **What is in common.** Kernels may round a token differently with the tokens it is computed with. So
/// of a prompt only whole chunks are taken over, which every prompt that begins so computes in the same
/// runs. Where a conversation goes on, that would leave out the answers; those are taken over, too,
/// unless the job is to be deterministic.
///
/// What is kept gives way, the oldest first, when a job needs its row, its memory, or the device's.
pub struct KvPool {
    entries_max: usize,
    rows_max: usize,
    bytes_max: u64,
    banks: Vec<Arc<Mutex<Bank>>>,
    /// Jobs so far.
    clock: u64,
}

/// What a job needs of a cache.
pub(crate) struct Need<'a> {
    pub model: &'a Arc<TextModel>,
    /// Prompt, and answer that is resumed.
    pub tokens: &'a [u32],
    pub prompt_tokens: usize,
    /// Tokens that there must be room for.
    pub reserved_tokens: usize,
    pub deterministic: bool,
}

/// A row.
#[derive(Clone)]
struct Place {
    bank: Arc<Mutex<Bank>>,
    row: usize,
}

/// A row whose conversation begins like a job's.
struct Found {
    place: Place,
    /// Tokens that can be taken over.
    tokens: usize,
    /// Whether the row is free, and has little else that would be lost.
    is_own: bool,
}

impl KvPool {
    /// A pool that keeps `entries_max` finished conversations, at most [`POOL_ENTRIES_MAX`]; 0 keeps none.
    /// Each job computes alone.
    pub fn new(entries_max: usize) -> Self {
        Self {
            entries_max: entries_max.min(POOL_ENTRIES_MAX),
            rows_max: 1,
            bytes_max: u64::MAX,
            banks: Vec::new(),
            clock: 0,
        }
    }

    /// Lets up to `rows_max` jobs compute in one run, at most [`super::ROWS_MAX`], where the model takes
    /// that.
    pub fn with_rows(self, rows_max: usize) -> Self {
        Self { rows_max, ..self }
    }

    /// Bounds what all conversations together may fill, running ones with the tokens that they may come
    /// to have.
    pub fn with_bytes(self, bytes_max: u64) -> Self {
        Self { bytes_max, ..self }
    }

    /// Finished conversations kept.
    pub fn len(&self) -> usize {
        self.kept().len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens kept, over all finished conversations.
    pub fn tokens(&self) -> usize {
        let tokens = |place: &Place| lock(&place.bank).rows[place.row].tokens.len();
        self.kept().iter().map(tokens).sum()
    }

    /// Bytes that all conversations fill, or may come to fill.
    pub fn bytes(&self) -> u64 {
        let banks = self.banks.iter().map(|bank| {
            let bank = lock(bank);
            let tokens = bank.rows.iter().map(Row::claimed_tokens).sum::<usize>();
            tokens as u64 * bank.graph.token_bytes()
        });
        banks.sum()
    }

    /// Lets go of everything that no job has.
    pub fn clear(&mut self) {
        self.trim(0);
    }

    /// A row for a job, and how many of its tokens need not be computed. The last one is left, since its
    /// logits are needed, unless they are here.
    pub(crate) fn take(&mut self, need: &Need<'_>) -> Result<(Lane, usize), PipelineError> {
        self.banks.retain(|bank| !lock(bank).is_lost());
        self.trim(self.entries_max);
        self.clock += 1;
        let found = self.best(need);
        let place = match &found {
            Some(found) if found.is_own => found.place.clone(),
            _ => self.free_place(need.model, found.as_ref().map(|found| &found.place))?,
        };
        let taken_over = found.map_or(0, |found| bring(&found, &place));
        let lane = Lane::new(&place.bank, place.row);
        lane.lock().let_go(lane.row, taken_over);
        self.reserve(need, &lane)?;
        let mut bank = lane.lock();
        let row = &mut bank.rows[lane.row];
        row.used = self.clock;
        if !row.has_prompt(need.prompt()) {
            row.prompt_logits.clear();
        }
        row.prompt_tokens = need.prompt_tokens;
        drop(bank);
        Ok((lane, taken_over))
    }

    /// Takes back what a job leaves behind.
    pub(crate) fn put(&mut self, lane: Lane, prompt_logits: Vec<f32>) {
        lane.lock().rows[lane.row].prompt_logits = prompt_logits;
        drop(lane);
        self.banks.retain(|bank| !lock(bank).is_lost());
        self.trim(self.entries_max);
    }

    /// The conversation that saves a job the most.
    fn best(&self, need: &Need<'_>) -> Option<Found> {
        let is_full = self.len() >= self.entries_max;
        let mut best: Option<Found> = None;
        for bank in &self.banks {
            let held = lock(bank);
            if !Arc::ptr_eq(&held.graph, need.model.graph()) {
                continue;
            }
            let can_copy = held.rows.len() > 1;
            for (number, row) in held.rows.iter().enumerate() {
                let tokens = row.shared_with(need);
                let is_worth_it = tokens * 2 >= row.tokens.len() || row.has_prompt(need.prompt());
                // What cannot be copied is not given up for a fraction of it while there is room.
                let is_own = !row.is_taken && (is_worth_it || (!can_copy && is_full));
                let is_better = match &best {
                    None => tokens > 0,
                    Some(best) => (tokens, is_own) > (best.tokens, best.is_own),
                };
                if is_better && (is_own || can_copy) {
                    let bank = Arc::clone(bank);
                    best = Some(Found {
                        place: Place { bank, row: number },
                        tokens,
                        is_own,
                    });
                }
            }
        }
        best
    }

    /// A free row: an empty one, or else the one that was used the longest ago, or a new bank's. Prefers
    /// the bank of `near`.
    fn free_place(
        &mut self,
        model: &Arc<TextModel>,
        near: Option<&Place>,
    ) -> Result<Place, PipelineError> {
        let is_near = |bank: &Arc<_>| near.is_some_and(|near| Arc::ptr_eq(&near.bank, bank));
        let is_of_model = |bank: &Arc<_>| Arc::ptr_eq(&lock(bank).graph, model.graph());
        let mut banks: Vec<_> = self.banks.iter().filter(|bank| is_of_model(bank)).collect();
        banks.sort_by_key(|bank| !is_near(bank));
        for bank in banks {
            let is_empty = |row: &Row| !row.is_taken && row.tokens.is_empty();
            let row = lock(bank).rows.iter().position(is_empty);
            if let Some(row) = row {
                let bank = Arc::clone(bank);
                return Ok(Place { bank, row });
            }
        }
        let kept = self.kept();
        let is_full = kept.len() >= self.entries_max;
        // Rows side by side are worth more than what was said long ago.
        let may_go = |place: &Place| is_full || lock(&place.bank).rows.len() > 1;
        let is_other =
            |place: &Place| near.is_none_or(|near| !is_near(&place.bank) || near.row != place.row);
        let oldest = kept
            .into_iter()
            .find(|place| is_of_model(&place.bank) && is_other(place) && may_go(place));
        match oldest {
            Some(place) => {
                lock(&place.bank).clear(place.row);
                Ok(place)
            }
            None => self.new_bank(model),
        }
    }

    /// The first row of a new bank. Where the device has no room for one more, kept ones give way, the
    /// oldest first.
    fn new_bank(&mut self, model: &Arc<TextModel>) -> Result<Place, PipelineError> {
        loop {
            match model.bank(self.rows_max) {
                Err(PipelineError::Run(RunError::DeviceMemory { .. })) if !self.is_empty() => {
                    self.trim(self.len() - 1);
                }
                made => {
                    let bank = Arc::new(Mutex::new(made?));
                    self.banks.push(Arc::clone(&bank));
                    return Ok(Place { bank, row: 0 });
                }
            }
        }
    }

    /// Notes what a job may come to fill. What is kept gives way for it.
    fn reserve(&mut self, need: &Need<'_>, lane: &Lane) -> Result<(), PipelineError> {
        lane.lock().rows[lane.row].reserved_tokens = need.reserved_tokens;
        while self.bytes() > self.bytes_max {
            let Some(count) = self.len().checked_sub(1) else {
                let need_bytes = need.reserved_tokens as u64 * need.model.graph().token_bytes();
                let others_bytes = self.bytes() - need_bytes;
                return Err(PipelineError::CacheFull {
                    need_bytes,
                    have_bytes: self.bytes_max.saturating_sub(others_bytes),
                    bytes_max: self.bytes_max,
                });
            };
            self.trim(count);
        }
        Ok(())
    }

    /// Finished conversations, least recently used first.
    fn kept(&self) -> Vec<Place> {
        let mut kept = Vec::new();
        for bank in &self.banks {
            for (number, row) in lock(bank).rows.iter().enumerate() {
                if !row.is_taken && !row.tokens.is_empty() {
                    let bank = Arc::clone(bank);
                    kept.push((row.used, Place { bank, row: number }));
                }
            }
        }
        kept.sort_by_key(|(used, _)| *used);
        kept.into_iter().map(|(_, place)| place).collect()
    }

    /// Lets go of all but `count` finished conversations, and of single rows that are empty.
    fn trim(&mut self, count: usize) {
        let kept = self.kept();
        for place in &kept[..kept.len().saturating_sub(count)] {
            lock(&place.bank).clear(place.row);
        }
        let is_needed = |bank: &Bank| {
            let is_used = |row: &Row| row.is_taken || !row.tokens.is_empty();
            bank.rows.iter().any(is_used)
        };
        let mut spare = false;
        self.banks.retain(|bank| {
            let bank = lock(bank);
            // One empty bank of rows stays: its session is made.
            let stays = is_needed(&bank) || (bank.rows.len() > 1 && !spare);
            spare |= !is_needed(&bank);
            stays
        });
    }
}

/// Has the row at `place` hold what was found; tells how many tokens that are.
fn bring(found: &Found, place: &Place) -> usize {
    if !Arc::ptr_eq(&found.place.bank, &place.bank) {
        return 0;
    }
    if found.place.row == place.row {
        return found.tokens;
    }
    let mut bank = lock(&place.bank);
    match bank.copy(found.place.row, place.row, found.tokens) {
        Ok(()) => found.tokens,
        Err(error) => {
            log::warn!("a prompt is computed anew: {error}");
            0
        }
    }
}

impl Need<'_> {
    fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_tokens]
    }
}

impl Row {
    /// Tokens that it fills, or may come to fill.
    fn claimed_tokens(&self) -> usize {
        self.reserved_tokens.max(self.tokens.len())
    }

    /// Whether the logits after just this prompt are here.
    pub(super) fn has_prompt(&self, prompt: &[u32]) -> bool {
        !self.prompt_logits.is_empty()
            && self.prompt_tokens == prompt.len()
            && self.tokens.starts_with(prompt)
    }

    /// Tokens at the beginning that a job can take over.
    fn shared_with(&self, need: &Need<'_>) -> usize {
        let pairs = self.tokens.iter().zip(need.tokens);
        let common = pairs.take_while(|(a, b)| a == b).count();
        let whole_chunks = |tokens: usize| tokens / PREFILL_CHUNK_TOKENS * PREFILL_CHUNK_TOKENS;
        let is_usable = !need.deterministic || self.prompt_is_exact;
        if !self.is_taken && is_usable && self.has_prompt(need.prompt()) {
            let is_resumed = need.tokens.len() > need.prompt_tokens;
            // Its answer was not necessarily computed token by token.
            return match is_resumed && !need.deterministic {
                true => common.min(need.tokens.len() - 1),
                false => need.prompt_tokens,
            };
        }
        let limit = need.prompt_tokens - 1;
        let exact = whole_chunks(common.min(self.exact_tokens).min(limit));
        let all = common.min(limit);
        match !need.deterministic && all >= exact + 2 * PREFILL_CHUNK_TOKENS {
            true => all,
            false => exact,
        }
    }
}
