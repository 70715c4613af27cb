//! What the rest of the machine is doing, from samples of the kernel's counters.

use crate::limits::{BUSY_CORES_MIN, BUSY_SAMPLES, IDLE_CORES_MAX, IDLE_SAMPLES};
use mote_api::Load;
use std::collections::BTreeMap;
use std::time::Instant;

/// One look at the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Time all cores spent on work since the machine started, in seconds.
    pub busy_seconds: f64,
    /// Time each of our processes spent on work, in seconds, by pid.
    pub ours_seconds: BTreeMap<i32, f64>,
}

/// Whether others want the cores, with hysteresis.
#[derive(Clone, Debug)]
pub struct LoadMonitor {
    load: Load,
    last: Option<Sample>,
    in_a_row: u32,
}

impl Default for LoadMonitor {
    fn default() -> Self {
        Self {
            load: Load::Idle,
            last: None,
            in_a_row: 0,
        }
    }
}

impl LoadMonitor {
    /// The judgement so far.
    pub fn load(&self) -> Load {
        self.load
    }

    /// Whether there is a sample to compare the next one with.
    pub fn is_watching(&self) -> bool {
        self.last.is_some()
    }

    /// Forgets the last sample, because time passed in which nobody looked; the judgement stays.
    pub fn interrupt(&mut self) {
        self.last = None;
        self.in_a_row = 0;
    }

    /// Takes a sample; answers the new judgement when it changed.
    pub fn observe(&mut self, sample: Sample) -> Option<Load> {
        let cores = self
            .last
            .as_ref()
            .and_then(|last| others_cores(last, &sample));
        self.last = Some(sample);
        self.judge(cores?)
    }

    fn judge(&mut self, others_cores: f64) -> Option<Load> {
        let (against, samples, other) = match self.load {
            Load::Idle => (others_cores >= BUSY_CORES_MIN, BUSY_SAMPLES, Load::Busy),
            Load::Busy => (others_cores < IDLE_CORES_MAX, IDLE_SAMPLES, Load::Idle),
        };
        self.in_a_row = if against { self.in_a_row + 1 } else { 0 };
        if self.in_a_row < samples {
            return None;
        }
        (self.load, self.in_a_row) = (other, 0);
        Some(other)
    }
}

/// Cores that processes other than ours kept busy between two samples. A process of ours that
/// began in between counts with all it used; one that ended counts as another's.
fn others_cores(last: &Sample, sample: &Sample) -> Option<f64> {
    let seconds = sample.at.checked_duration_since(last.at)?.as_secs_f64();
    if seconds <= 0.0 {
        return None;
    }
    let ours: f64 = sample
        .ours_seconds
        .iter()
        .map(|(pid, used)| (used - last.ours_seconds.get(pid).unwrap_or(&0.0)).max(0.0))
        .sum();
    Some(((sample.busy_seconds - last.busy_seconds - ours) / seconds).max(0.0))
}
