//! Why a request failed: a stable enum with fields.

use super::receipt::Rejected;
use serde::Serialize;

/// Why a request failed. The texts are for people; programs match the variants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "snake_case", tag = "status")]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Status {
    #[error("there is no model {model:?}{}", similar_text(similar))]
    ModelNotFound { model: String, similar: Vec<String> },
    #[error("nothing here can run this model{}", rejected_text(rejected))]
    NoBackend { rejected: Vec<Rejected> },
    #[error("busy; try again in {retry_after_ms} ms")]
    Busy { retry_after_ms: u64 },
    #[error("{what}: {need_bytes} bytes are needed, {have_bytes} are left")]
    OverBudget {
        what: String,
        need_bytes: u64,
        have_bytes: u64,
    },
    #[error("the deadline of {deadline_ms} ms has passed")]
    DeadlineExceeded { deadline_ms: u64 },
    #[error("the worker died ({})", death_text(*signal, *exit_code))]
    WorkerDied { signal: i32, exit_code: i32 },
    #[error("{field}: {why}")]
    Invalid { field: String, why: String },
    #[error("cancelled")]
    Cancelled,
    #[error("{what}: {have} is over the limit of {limit}")]
    LimitExceeded { what: String, have: u64, limit: u64 },
    #[error("{what} is not supported by this version")]
    Unsupported { what: String },
    #[error("model file {file} is not in order: {why}")]
    ModelCorrupt { file: String, why: String },
    #[error("{} has {prompt_tokens} tokens, the model's context holds {context_tokens}", overflow_text(*text))]
    ContextOverflow {
        prompt_tokens: u64,
        context_tokens: u64,
        /// Which of the texts to be embedded; `None` for a prompt.
        text: Option<u32>,
    },
    #[error("revoked: {why}")]
    Revoked { why: String },
    #[error("{operation} failed: {cause}")]
    ComputeFailed { operation: String, cause: String },
    #[error("internal error: {operation}: {cause}")]
    Internal { operation: String, cause: String },
    #[error("the daemon is shutting down")]
    ShuttingDown,
    #[error("this daemon speaks wire versions {version_min} to {version_max}")]
    VersionUnsupported { version_min: u32, version_max: u32 },
    #[error("the stream is lost with {provider}: {cause}; {}", next_text(next))]
    StreamLost {
        provider: String,
        code: String,
        cause: String,
        next: String,
    },
}

impl Status {
    /// `Invalid` for a field.
    pub fn invalid(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Invalid {
            field: field.into(),
            why: why.to_string(),
        }
    }

    /// The stable name of the kind, as in the schema.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ModelNotFound { .. } => "model_not_found",
            Self::NoBackend { .. } => "no_backend",
            Self::Busy { .. } => "busy",
            Self::OverBudget { .. } => "over_budget",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::WorkerDied { .. } => "worker_died",
            Self::Invalid { .. } => "invalid",
            Self::Cancelled => "cancelled",
            Self::LimitExceeded { .. } => "limit_exceeded",
            Self::Unsupported { .. } => "unsupported",
            Self::ModelCorrupt { .. } => "model_corrupt",
            Self::ContextOverflow { .. } => "context_overflow",
            Self::Revoked { .. } => "revoked",
            Self::ComputeFailed { .. } => "compute_failed",
            Self::Internal { .. } => "internal",
            Self::ShuttingDown => "shutting_down",
            Self::VersionUnsupported { .. } => "version_unsupported",
            Self::StreamLost { .. } => "stream_lost",
        }
    }
}

fn overflow_text(text: Option<u32>) -> String {
    text.map_or_else(
        || "the prompt".to_owned(),
        |index| format!("texts[{index}]"),
    )
}

fn similar_text(similar: &[String]) -> String {
    match similar {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}

fn rejected_text(rejected: &[Rejected]) -> String {
    rejected.iter().fold(String::new(), |text, one| {
        let place = if one.provider.is_empty() {
            &one.flavour
        } else {
            &one.provider
        };
        format!("{text}; {place}: {}", one.reason.message)
    })
}

fn next_text(next: &str) -> String {
    match next {
        "" => "nothing else here can run it".to_owned(),
        provider => format!("opened anew, it runs on {provider}"),
    }
}

fn death_text(signal: i32, exit_code: i32) -> String {
    if signal == 0 {
        format!("exit code {exit_code}")
    } else {
        format!("signal {signal}")
    }
}
