//! Trials: a candidate runs a model's check input once, before anybody relies on it.

use crate::manifest::{BackendKind, Precision};
use crate::plan::{Candidate, Placement, Rejection, shorten};
use crate::samples::Samples;
use serde::{Deserialize, Serialize};

/// What a trial found out about a candidate that may be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What is known of its numbers.
    pub verification: Verification,
    /// Time of one run of the check input, the lower quartile of all; 0 when it was not measured.
    pub run_us: u64,
    /// Runs that were measured.
    pub runs: u32,
    /// Time to load and compile.
    pub load_us: u64,
    /// Processor time of this process per run.
    pub host_cpu_us: u64,
    /// Processor time as a share of the time of a run, in percent, without the time in which threads
    /// waited for a processor. More than 100 for several threads.
    pub host_percent: u32,
    /// Memory by which the process grew per run, once it had settled.
    pub grown_bytes: u64,
    /// What the library placed where.
    pub placement: Placement,
    /// It was clearly slower than another candidate, so that it was not measured to the end.
    #[serde(default)]
    pub stopped_early: bool,
}

/// What is known of a candidate's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Verification {
    /// The others of this file are compared with it.
    Reference,
    /// They are those of the reference.
    Matched {
        /// Largest difference, relative to the output's size.
        error: f64,
        /// Largest difference allowed.
        tolerance: f64,
    },
    /// There was nothing to compare with.
    Unchecked {
        /// Why.
        why: String,
    },
}

impl Verification {
    /// Stable name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Matched { .. } => "matched",
            Self::Unchecked { .. } => "unchecked",
        }
    }
}

impl std::fmt::Display for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reference => f.write_str("reference of the others"),
            Self::Matched { error, tolerance } => {
                write!(f, "off by {error:.1e}, {tolerance:.0e} allowed")
            }
            Self::Unchecked { why } => write!(f, "unchecked: {why}"),
        }
    }
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The candidate may be used.
    Passed(Trial),
    /// It may not.
    Rejected(Rejection),
}

impl Verdict {
    /// The same with no text longer than [`REASON_TEXT_BYTES_MAX`](crate::REASON_TEXT_BYTES_MAX), as it
    /// is kept.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::Rejected(rejection) => Self::Rejected(rejection.bounded()),
            Self::Passed(mut trial) => {
                if let Verification::Unchecked { why } = &mut trial.verification {
                    shorten(why);
                }
                Self::Passed(trial)
            }
        }
    }
}

/// How a candidate is to be tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialTerms {
    /// What to compare with; `None` for the reference itself.
    pub compare: Option<Compare>,
    /// Runs to measure at most.
    pub runs_max: u32,
    /// Time to measure for, beyond the first two runs.
    pub measure_ms: u64,
    /// A candidate that takes longer than this per run need not be measured to the end.
    pub hopeless_us: Option<u64>,
}

/// What a candidate's numbers are compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// With these.
    With(Samples),
    /// With nothing.
    Nothing {
        /// Why.
        why: String,
    },
}

/// Difference allowed between numbers of one precision on two kinds of hardware, relative to the
/// size of the output they belong to, or to a hundredth where that is less. Rounding adds up over layers, so each is some hundred times
/// the rounding of one operation; a provider that computes something else is off by far more.
pub fn tolerance(precision: Precision) -> f64 {
    match precision {
        // Accelerators compute f32 graphs with 10 or 11 bits (TF32, f16).
        Precision::F32 => 1e-2,
        Precision::F16 => 2e-2,
        // 8 bits of mantissa.
        Precision::Bf16 => 6e-2,
        // Activations are quantised, too, and not everywhere in the same steps.
        Precision::Int8 | Precision::Int4 => 1e-1,
        // The file may hold any of these.
        Precision::Native => 5e-2,
    }
}

/// Names by which the backends call their plain path on the CPU.
const REFERENCES: [(BackendKind, &str); 5] = [
    (BackendKind::OnnxRuntime, "CPUExecutionProvider"),
    (BackendKind::Tflite, "TFLITE-CPU"),
    (BackendKind::Tflite, "LITERT-CPU"),
    (BackendKind::Tract, "tract-cpu"),
    (BackendKind::Fake, "fake-cpu"),
];

impl Candidate {
    /// How well it serves as reference for others of the same file, the least being the best;
    /// `None` when it is no plain path on the CPU.
    pub fn reference_rank(&self) -> Option<usize> {
        let is = |(backend, provider): &(BackendKind, &str)| {
            *backend == self.backend && *provider == self.provider
        };
        REFERENCES.iter().position(is)
    }
}
