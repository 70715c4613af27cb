//! What is on record of trials: what was found about each way to run each model on this machine.

use super::history::Key;
use super::planner::{Cost, Standing};
use crate::limits::{ACCIDENT_S, HOST_PERCENT_MIN, TRIAL_RECORDS_MAX};
use mote_api::{Candidate, DeviceKind, Digest, Rejection, Trial, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Providers whose drivers keep a processor spinning while the device computes: that says nothing
/// about where they compute. cudaDeviceScheduleAuto of the CUDA runtime is one such.
const SPINNERS: [&str; 3] = [
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "NvTensorRTRTXExecutionProvider",
];

/// What was found about a candidate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Digest of the model.
    pub digest: String,
    /// The way to run it.
    pub candidate: Candidate,
    /// State of the flavour's libraries and options.
    pub stamp: Digest,
    /// What was found.
    pub verdict: Verdict,
    /// When, in seconds since 1970.
    pub tried_at_s: u64,
}

impl Record {
    /// What it is on record as.
    pub fn key(&self) -> Key {
        Key {
            digest: self.digest.clone(),
            candidate: self.candidate.clone(),
        }
    }

    /// The trial, when the candidate may be used.
    pub fn trial(&self) -> Option<&Trial> {
        match &self.verdict {
            Verdict::Passed(trial) => Some(trial),
            Verdict::Rejected(_) => None,
        }
    }

    fn holds(&self, stamp: &Digest, now_s: u64) -> bool {
        let lasts = match &self.verdict {
            Verdict::Passed(_) => true,
            Verdict::Rejected(rejection) => {
                !rejection.may_pass() || now_s.saturating_sub(self.tried_at_s) < ACCIDENT_S
            }
        };
        self.stamp == *stamp && lasts
    }
}

/// All records.
#[derive(Clone, Debug, Default)]
pub struct Trials {
    records: HashMap<Key, Record>,
    /// Could not be tried, through no fault of theirs.
    skipped: HashSet<Key>,
}

impl Trials {
    /// Takes in what was found before; the newest, when there is too much of it.
    pub fn recall(&mut self, mut records: Vec<Record>) {
        records.sort_by_key(|record| std::cmp::Reverse(record.tried_at_s));
        records.truncate(TRIAL_RECORDS_MAX);
        let keyed = records.into_iter().map(|record| (record.key(), record));
        self.records = keyed.collect();
    }

    /// Everything on record, the newest first.
    pub fn all(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self.records.values().cloned().collect();
        records.sort_by(|a, b| {
            let order = b.tried_at_s.cmp(&a.tried_at_s);
            order.then_with(|| a.digest.cmp(&b.digest))
        });
        records
    }

    /// Puts on record what was found; the oldest record makes room.
    pub fn keep(&mut self, record: Record) {
        let key = record.key();
        if self.records.len() >= TRIAL_RECORDS_MAX && !self.records.contains_key(&key) {
            let oldest = self.records.values().min_by_key(|one| one.tried_at_s);
            if let Some(oldest) = oldest.map(Record::key) {
                self.records.remove(&oldest);
            }
        }
        self.skipped.remove(&key);
        self.records.insert(key, record);
    }

    /// Notes that a candidate cannot be tried for now.
    pub fn skip(&mut self, key: Key) {
        self.skipped.insert(key);
    }

    /// Whether a candidate could not be tried.
    pub fn is_skipped(&self, key: &Key) -> bool {
        self.skipped.contains(key)
    }

    /// What is known of a candidate as its libraries are now.
    pub fn find(&self, key: &Key, stamp: &Digest, now_s: u64) -> Option<&Record> {
        let record = self.records.get(key)?;
        record.holds(stamp, now_s).then_some(record)
    }

    /// Whether a candidate need not be tried.
    pub fn is_settled(&self, key: &Key, stamp: &Digest, now_s: u64) -> bool {
        self.skipped.contains(key) || self.find(key, stamp, now_s).is_some()
    }

    /// Forgets all about a model.
    pub fn forget(&mut self, digest: &str) {
        self.records.retain(|key, _| key.digest != digest);
        self.skipped.retain(|key| key.digest != digest);
    }

    /// Forgets what may have been the moment's: the machine or the model may have changed.
    pub fn forgive(&mut self) {
        self.skipped.clear();
        self.records.retain(|_, record| match &record.verdict {
            Verdict::Passed(_) => true,
            Verdict::Rejected(rejection) => !rejection.may_pass(),
        });
    }
}

/// What a trial says about a candidate, beside that of the reference of its file.
pub fn standing(candidate: &Candidate, trial: &Trial, reference: Option<&Trial>) -> Standing {
    let (nodes, own_nodes) = match trial.placement.read_back {
        true => (
            trial.placement.nodes(),
            trial.placement.nodes_on(&candidate.provider),
        ),
        false => (0, 0),
    };
    let measured = (trial.run_us > 0).then_some(Cost {
        run_us: trial.run_us,
        host_cpu_us: trial.host_cpu_us,
    });
    Standing {
        measured,
        nodes,
        own_nodes,
        host_percent: host_percent(candidate, trial, reference).filter(|_| own_nodes == nodes),
        lower_than: None,
    }
}

/// A device of its own that keeps the processor as busy as computing does is none. What little it
/// takes to drive a fast one stays below half of what the processor takes to compute the same.
fn host_percent(candidate: &Candidate, trial: &Trial, reference: Option<&Trial>) -> Option<u32> {
    let claims_device = candidate.device.kind != DeviceKind::Cpu;
    if !claims_device || SPINNERS.contains(&candidate.provider.as_str()) || trial.run_us == 0 {
        return None;
    }
    let of_reference_us = reference.map_or(0, |reference| reference.host_cpu_us);
    let computes =
        trial.host_percent >= HOST_PERCENT_MIN && trial.host_cpu_us >= of_reference_us / 2;
    computes.then_some(trial.host_percent)
}

/// Whether a candidate that failed now is worth a record that outlives the broker.
pub fn is_worth_a_record(candidate: &Candidate, rejection: &Rejection) -> bool {
    candidate.reference_rank().is_none() && rejection.may_pass()
}
