//! Where a model may run, why it may not, and where it did run.

use crate::capability::{Absence, DeviceInfo};
use crate::manifest::{BackendKind, Precision};
use serde::{Deserialize, Serialize};

/// One way to run a model: a variant on a provider of a flavour on a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate {
    /// Name of the manifest's variant.
    pub variant: String,
    /// Inference library.
    pub backend: BackendKind,
    /// Runtime flavour.
    pub flavour: String,
    /// Provider or delegate by its runtime's own name.
    pub provider: String,
    /// Device.
    pub device: DeviceInfo,
    /// Precision of the variant's weights.
    pub precision: Precision,
}

/// Bytes of one text in a reason: what a library says may be of any length.
pub const REASON_TEXT_BYTES_MAX: usize = 2 << 10;
/// Operators that are named.
const OPERATORS_MAX: usize = 64;

/// Cuts a text that is too long.
pub(crate) fn shorten(text: &mut String) {
    const MARK: char = '…';
    if text.len() > REASON_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(REASON_TEXT_BYTES_MAX - MARK.len_utf8()));
        text.push(MARK);
    }
}

/// Why a way to run a model was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Rejection {
    #[error("{absence}")]
    Absent { absence: Absence },
    #[error("the model has no variant for {backend}")]
    NoVariant { backend: BackendKind },
    #[error("it needs {need_bytes} bytes of memory where {have_bytes} are left")]
    OverBudget { need_bytes: u64, have_bytes: u64 },
    #[error("another candidate is preferred")]
    Outranked,
    #[error("the request requires something else")]
    NotRequired,
    #[error("these operators are unknown there: {}", operators.join(", "))]
    UnsupportedOperators { operators: Vec<String> },
    #[error("it left {cpu_nodes} of {nodes} nodes to the CPU")]
    FellBackToCpu { nodes: u32, cpu_nodes: u32 },
    #[error("it failed to load: {why}")]
    LoadFailed { why: String },
    #[error("it crashed {crashes} times in a row")]
    Quarantined { crashes: u32 },
    #[error("it takes {run_us} us per run where the best takes {best_us} us")]
    Slower { run_us: u64, best_us: u64 },
    #[error(
        "it is {precision} where the model's first choice is {first}: {run_us} us per run are less than the best's {best_us} us, but not by enough"
    )]
    LowerPrecision {
        precision: Precision,
        first: Precision,
        run_us: u64,
        best_us: u64,
    },
    #[error("output {output:?} is wrong: off by {error}, {tolerance} allowed")]
    WrongNumbers {
        output: String,
        error: String,
        tolerance: String,
    },
    #[error("it computes on the host: {host_percent} % of its time is processor time")]
    ComputesOnHost { host_percent: u32 },
    #[error(
        "it runs {share_percent} % of the nodes and takes {run_us} us where the CPU takes {best_us} us"
    )]
    SplitLoses {
        share_percent: u32,
        run_us: u64,
        best_us: u64,
    },
    #[error("it died of signal {signal} when it was tried")]
    TrialCrashed { signal: i32 },
    #[error("it did not end within {limit_ms} ms when it was tried")]
    TrialTimedOut { limit_ms: u64 },
    #[error("it failed when it was tried: {why}")]
    TrialFailed { why: String },
    #[error("it keeps {bytes_per_run} bytes more with each run")]
    Leaks { bytes_per_run: u64 },
    #[error("its device was lost: {why}")]
    DeviceLost { why: String },
    #[error("it failed while it computed: {why}")]
    RunFailed { why: String },
    #[error("a step took longer than {limit_ms} ms")]
    StepTimedOut { limit_ms: u64 },
}

impl Rejection {
    /// The same with no text longer than [`REASON_TEXT_BYTES_MAX`], as it is kept.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::LoadFailed { why }
            | Self::TrialFailed { why }
            | Self::DeviceLost { why }
            | Self::RunFailed { why }
            | Self::Absent {
                absence:
                    Absence::LibraryRejected { why, .. }
                    | Absence::ProbeFailed { why }
                    | Absence::HardwareMissing { also: why, .. },
            } => shorten(why),
            Self::WrongNumbers { output, .. } => shorten(output),
            Self::UnsupportedOperators { operators } => {
                operators.truncate(OPERATORS_MAX);
                operators.iter_mut().for_each(shorten);
            }
            _ => {}
        }
        self
    }

    /// What a user can do about it, where there is something; `provider` is the one rejected.
    pub fn next_step(&self, provider: &str) -> Option<String> {
        match self {
            Self::Absent { absence } => Some(absence.next_step(provider)),
            _ => None,
        }
    }

    /// Whether this way was never open, or not wanted, as things are installed and asked for. What is
    /// left are set-backs: somebody may have counted on it.
    pub fn is_by_design(&self) -> bool {
        match self {
            Self::NoVariant { .. }
            | Self::Outranked
            | Self::Slower { .. }
            | Self::LowerPrecision { .. }
            | Self::NotRequired => true,
            Self::Absent { absence } => matches!(
                absence,
                Absence::NotCompiledIn | Absence::HardwareMissing { .. }
            ),
            _ => false,
        }
    }

    /// Whether a later try may end otherwise though nothing has changed that one could see.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::OverBudget { .. }
                | Self::LoadFailed { .. }
                | Self::Quarantined { .. }
                | Self::TrialCrashed { .. }
                | Self::TrialTimedOut { .. }
                | Self::TrialFailed { .. }
                | Self::DeviceLost { .. }
                | Self::RunFailed { .. }
                | Self::StepTimedOut { .. }
        )
    }
}

/// A way to run that was not taken, with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Runtime flavour, or the backend's name when no flavour of it is known.
    pub flavour: String,
    /// Provider; empty when the whole flavour is meant.
    pub provider: String,
    /// Variant; empty when no variant is meant.
    pub variant: String,
    /// Why.
    pub rejection: Rejection,
}

/// One provider's share of a loaded model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderShare {
    /// The runtime's own name of the provider.
    pub provider: String,
    /// Nodes of the compiled graph that it runs.
    pub nodes: u32,
    /// Groups into which it compiled them, each of which runs as one; as many as nodes where it
    /// compiles none, 0 where nobody told.
    #[serde(default)]
    pub groups: u32,
    /// Time spent in its nodes by one run of the check input, as the runtime's own profile has it;
    /// `None` where there is no profile.
    pub time_us: Option<u64>,
}

/// What the library itself reports about a loaded model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Shares per provider, largest first.
    pub shares: Vec<ProviderShare>,
    /// Whether the shares were read back from the library after the load (`true`), or follow from
    /// how the backend works, because it has one place to run (`false`).
    pub read_back: bool,
}

impl Placement {
    /// That of several graphs that are loaded together.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.read_back &= other.read_back;
        for share in other.shares {
            let known = |one: &&mut ProviderShare| one.provider == share.provider;
            match self.shares.iter_mut().find(known) {
                Some(one) => {
                    one.nodes += share.nodes;
                    one.groups += share.groups;
                }
                None => self.shares.push(share),
            }
        }
        self.shares
            .sort_by_key(|share| std::cmp::Reverse(share.nodes));
        self
    }

    /// Nodes over all providers.
    pub fn nodes(&self) -> u32 {
        self.shares.iter().map(|share| share.nodes).sum()
    }

    /// Nodes of one provider.
    pub fn nodes_on(&self, provider: &str) -> u32 {
        self.shares
            .iter()
            .filter(|s| s.provider == provider)
            .map(|s| s.nodes)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_library_says_is_kept_up_to_a_limit() {
        let failed = |why: &str| Rejection::LoadFailed { why: why.into() };
        assert_eq!(failed("no").bounded(), failed("no"));
        let whole = "é".repeat(REASON_TEXT_BYTES_MAX / 2);
        assert_eq!(failed(&whole).bounded(), failed(&whole));
        let Rejection::LoadFailed { why } = failed(&format!("x{whole}")).bounded() else {
            panic!("another reason")
        };
        assert!(why.len() <= REASON_TEXT_BYTES_MAX && why.starts_with("xé"));
        assert!(why.ends_with("é…"));
        let operators = vec!["o".repeat(REASON_TEXT_BYTES_MAX + 1); 1_000];
        let many = Rejection::UnsupportedOperators { operators };
        let limit = (OPERATORS_MAX + 1) * (REASON_TEXT_BYTES_MAX + 2);
        assert!(many.bounded().to_string().len() <= limit);
    }
}
