//! Why there is no schedule, or no next step of it.

use super::SchedulerKind;

/// An error of a scheduler or its configuration; a variant names what was refused.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum SchedulerError {
    /// The configuration is larger than such a file may be.
    #[error("a scheduler configuration of {bytes} bytes is more than {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// The configuration is no JSON object.
    #[error("cannot parse the scheduler configuration")]
    Malformed(#[source] serde_json::Error),
    /// No method of ours goes by this name.
    #[error("scheduler {class:?} is not supported")]
    Class { class: String },
    /// No method like ours has such an option, so what it does to the numbers is unknown.
    #[error("scheduler option {option:?} is unknown")]
    UnknownOption { option: String },
    /// An option is not of its type, or out of its range.
    #[error("scheduler option {option} {why}")]
    Option {
        option: &'static str,
        why: &'static str,
    },
    /// The method has this option, but its numbers cannot be matched with this value.
    #[error("{kind} is not supported with {option} as configured: {why}")]
    Unsupported {
        kind: SchedulerKind,
        option: &'static str,
        why: &'static str,
    },
    /// The model was trained for another family of methods.
    #[error("a model made for {made_for} cannot be sampled with {kind}")]
    Family {
        kind: SchedulerKind,
        made_for: String,
    },
    /// What the caller wants of the schedule is not possible.
    #[error("{field} {why}")]
    Timing { field: &'static str, why: String },
    /// The method divides by zero at this step, as configured.
    #[error("step {index} of {kind} has no finite result as configured")]
    Undefined { kind: SchedulerKind, index: usize },
    /// There is no such step.
    #[error("step {index} of a schedule of {steps} steps")]
    NoSuchStep { index: usize, steps: usize },
    /// The method keeps earlier outputs, so its steps have an order.
    #[error("step {index} was asked for where {expected} is next")]
    OutOfOrder { index: usize, expected: usize },
    /// Sample, output and history must have the same number of values.
    #[error("{what} has {got} values, not {expected}")]
    Length {
        what: &'static str,
        got: usize,
        expected: usize,
    },
    /// A checkpoint's history is not what the method keeps at that step.
    #[error("step {index} goes on from {expected} tensors, not {got}")]
    History {
        index: usize,
        expected: usize,
        got: usize,
    },
}

impl SchedulerError {
    pub(super) fn timing(field: &'static str, why: impl Into<String>) -> Self {
        Self::Timing {
            field,
            why: why.into(),
        }
    }
}
