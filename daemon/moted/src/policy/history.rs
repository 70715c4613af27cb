//! What is on record about candidates: crashes, refusals, and how the last load went.

use crate::limits::{BACKOFF_MS_MAX, BACKOFF_MS_MIN, CRASHES_MAX, QUARANTINE_MS, REFUSAL_MS};
use mote_api::{Candidate, Placement, Rejection};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A way to run one state of a model's files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Digest of the model.
    pub digest: String,
    /// The way to run it.
    pub candidate: Candidate,
}

#[derive(Clone, Debug, Default)]
struct Record {
    crashes_in_a_row: u32,
    last_crash: Option<Instant>,
    rejection: Option<(Rejection, Instant)>,
    placement: Option<Placement>,
}

/// The record of all candidates.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: HashMap<Key, Record>,
    /// Whether any of them has crashed: as long as none has, work that goes well is no news.
    has_crashes: bool,
}

impl History {
    /// A worker of this candidate died on its own.
    pub fn crashed(&mut self, key: &Key, now: Instant) {
        let record = self.records.entry(key.clone()).or_default();
        // After the quarantine it gets one chance, not a fresh count.
        record.crashes_in_a_row = record.crashes_in_a_row.saturating_add(1);
        record.last_crash = Some(now);
        self.has_crashes = true;
    }

    /// A job of this candidate was carried out.
    pub fn worked(&mut self, key: impl FnOnce() -> Key) {
        if !self.has_crashes {
            return;
        }
        if let Some(record) = self.records.get_mut(&key()) {
            record.crashes_in_a_row = 0;
        }
    }

    /// The candidate cannot load this model.
    pub fn rejected(&mut self, key: &Key, rejection: Rejection, now: Instant) {
        self.records.entry(key.clone()).or_default().rejection = Some((rejection, now));
    }

    /// The candidate loaded this model.
    pub fn loaded(&mut self, key: &Key, placement: Placement) {
        let record = self.records.entry(key.clone()).or_default();
        record.placement = Some(placement);
        record.rejection = None;
    }

    /// How the model was placed when it was loaded last.
    pub fn placement(&self, key: &Key) -> Option<&Placement> {
        self.records.get(key)?.placement.as_ref()
    }

    /// Crashes since the last job that was carried out.
    pub fn crashes(&self, key: &Key) -> u32 {
        self.records
            .get(key)
            .map_or(0, |record| record.crashes_in_a_row)
    }

    /// Why the candidate is not to be tried now. That it leaves nodes to the CPU counts only
    /// where that is forbidden.
    pub fn verdict(&self, key: &Key, forbid_cpu: bool, now: Instant) -> Option<Rejection> {
        let record = self.records.get(key)?;
        let crashes = record.crashes_in_a_row;
        let since = |then: Instant| now.saturating_duration_since(then);
        let quarantine = Duration::from_millis(QUARANTINE_MS);
        if crashes >= CRASHES_MAX && record.last_crash.is_some_and(|at| since(at) < quarantine) {
            return Some(Rejection::Quarantined { crashes });
        }
        let (rejection, at) = record.rejection.as_ref()?;
        let counts = match rejection {
            // What took nothing is refused whatever was asked for, and would be again.
            Rejection::FellBackToCpu { nodes, cpu_nodes } => forbid_cpu || nodes == cpu_nodes,
            // The file will not get other operators by waiting.
            Rejection::UnsupportedOperators { .. } => true,
            _ => since(*at) < Duration::from_millis(REFUSAL_MS),
        };
        counts.then(|| rejection.clone())
    }

    /// When the candidate may be started next: at once after one crash, then later and later.
    pub fn not_before(&self, key: &Key) -> Option<Instant> {
        let record = self.records.get(key)?;
        let doublings = record.crashes_in_a_row.checked_sub(2)?;
        let pause_ms = BACKOFF_MS_MIN
            .saturating_mul(1 << doublings.min(20))
            .min(BACKOFF_MS_MAX);
        Some(record.last_crash? + Duration::from_millis(pause_ms))
    }

    /// Forgets refusals and quarantines: the machine or the model may have changed.
    pub fn forgive(&mut self) {
        self.has_crashes = false;
        for record in self.records.values_mut() {
            record.rejection = None;
            record.crashes_in_a_row = 0;
        }
    }

    /// Drops all that is on record of models other than these.
    pub fn retain(&mut self, digests: impl Fn(&str) -> bool) {
        self.records.retain(|key, _| digests(&key.digest));
    }
}
