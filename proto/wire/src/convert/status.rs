//! Statuses.

use super::receipt;
use crate::pb;
use crate::pb::status::Kind;
use crate::types::Status;

/// A status of a later version, of which only the text is understood, becomes
/// [`Status::Internal`]: a failure must not be lost because its kind is new.
pub(super) fn parse(status: pb::Status) -> Status {
    let Some(kind) = status.kind else {
        return Status::Internal {
            operation: "a failure of a later version".into(),
            cause: status.message,
        };
    };
    match kind {
        Kind::ModelNotFound(pb::ModelNotFound { model, similar }) => {
            Status::ModelNotFound { model, similar }
        }
        Kind::NoBackend(pb::NoBackend { rejected }) => Status::NoBackend {
            rejected: receipt::parse_rejected(rejected),
        },
        Kind::Busy(pb::Busy { retry_after_ms }) => Status::Busy { retry_after_ms },
        Kind::OverBudget(pb::OverBudget {
            what,
            need_bytes,
            have_bytes,
        }) => Status::OverBudget {
            what,
            need_bytes,
            have_bytes,
        },
        Kind::DeadlineExceeded(pb::DeadlineExceeded { deadline_ms }) => {
            Status::DeadlineExceeded { deadline_ms }
        }
        Kind::WorkerDied(pb::WorkerDied { signal, exit_code }) => {
            Status::WorkerDied { signal, exit_code }
        }
        Kind::Invalid(pb::Invalid { field, why }) => Status::Invalid { field, why },
        Kind::Cancelled(pb::Cancelled {}) => Status::Cancelled,
        Kind::LimitExceeded(pb::LimitExceeded { what, have, limit }) => {
            Status::LimitExceeded { what, have, limit }
        }
        Kind::Unsupported(pb::Unsupported { what }) => Status::Unsupported { what },
        Kind::ModelCorrupt(pb::ModelCorrupt { file, why }) => Status::ModelCorrupt { file, why },
        Kind::ContextOverflow(pb::ContextOverflow {
            prompt_tokens,
            context_tokens,
            text,
        }) => Status::ContextOverflow {
            prompt_tokens,
            context_tokens,
            text,
        },
        Kind::Revoked(pb::Revoked { why }) => Status::Revoked { why },
        Kind::ComputeFailed(pb::ComputeFailed { operation, cause }) => {
            Status::ComputeFailed { operation, cause }
        }
        Kind::Internal(pb::Internal { operation, cause }) => Status::Internal { operation, cause },
        Kind::ShuttingDown(pb::ShuttingDown {}) => Status::ShuttingDown,
        Kind::VersionUnsupported(pb::VersionUnsupported {
            version_min,
            version_max,
        }) => Status::VersionUnsupported {
            version_min,
            version_max,
        },
        Kind::StreamLost(pb::StreamLost {
            provider,
            code,
            cause,
            next,
        }) => Status::StreamLost {
            provider,
            code,
            cause,
            next,
        },
    }
}

pub(super) fn write(status: Status) -> pb::Status {
    let message = status.to_string();
    pb::Status {
        message,
        kind: Some(write_kind(status)),
    }
}

fn write_kind(status: Status) -> Kind {
    match status {
        Status::ModelNotFound { model, similar } => {
            Kind::ModelNotFound(pb::ModelNotFound { model, similar })
        }
        Status::NoBackend { rejected } => Kind::NoBackend(pb::NoBackend {
            rejected: receipt::write_rejected(rejected),
        }),
        Status::Busy { retry_after_ms } => Kind::Busy(pb::Busy { retry_after_ms }),
        Status::OverBudget {
            what,
            need_bytes,
            have_bytes,
        } => Kind::OverBudget(pb::OverBudget {
            what,
            need_bytes,
            have_bytes,
        }),
        Status::DeadlineExceeded { deadline_ms } => {
            Kind::DeadlineExceeded(pb::DeadlineExceeded { deadline_ms })
        }
        Status::WorkerDied { signal, exit_code } => {
            Kind::WorkerDied(pb::WorkerDied { signal, exit_code })
        }
        Status::Invalid { field, why } => Kind::Invalid(pb::Invalid { field, why }),
        Status::Cancelled => Kind::Cancelled(pb::Cancelled {}),
        Status::LimitExceeded { what, have, limit } => {
            Kind::LimitExceeded(pb::LimitExceeded { what, have, limit })
        }
        Status::Unsupported { what } => Kind::Unsupported(pb::Unsupported { what }),
        Status::ModelCorrupt { file, why } => Kind::ModelCorrupt(pb::ModelCorrupt { file, why }),
        Status::ContextOverflow {
            prompt_tokens,
            context_tokens,
            text,
        } => Kind::ContextOverflow(pb::ContextOverflow {
            prompt_tokens,
            context_tokens,
            text,
        }),
        Status::Revoked { why } => Kind::Revoked(pb::Revoked { why }),
        Status::ComputeFailed { operation, cause } => {
            Kind::ComputeFailed(pb::ComputeFailed { operation, cause })
        }
        Status::Internal { operation, cause } => Kind::Internal(pb::Internal { operation, cause }),
        Status::ShuttingDown => Kind::ShuttingDown(pb::ShuttingDown {}),
        Status::VersionUnsupported {
            version_min,
            version_max,
        } => Kind::VersionUnsupported(pb::VersionUnsupported {
            version_min,
            version_max,
        }),
        Status::StreamLost {
            provider,
            code,
            cause,
            next,
        } => Kind::StreamLost(pb::StreamLost {
            provider,
            code,
            cause,
            next,
        }),
    }
}
