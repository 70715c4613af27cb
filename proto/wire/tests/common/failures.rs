//! One of each failure, as golden frames have them.

use super::golden::rejected;
use mote_wire::types::*;

/// Each with the name of its frame.
pub fn failures() -> Vec<(&'static str, Status)> {
    let text = String::from;
    vec![
        (
            "reply_failed_model_not_found",
            Status::ModelNotFound {
                model: text("chta"),
                similar: vec![text("chat"), text("char")],
            },
        ),
        (
            "reply_failed_no_backend",
            Status::NoBackend {
                rejected: rejected(),
            },
        ),
        (
            "reply_failed_busy",
            Status::Busy {
                retry_after_ms: 250,
            },
        ),
        (
            "reply_failed_over_budget",
            Status::OverBudget {
                what: text("ram"),
                need_bytes: 2 << 30,
                have_bytes: 1 << 30,
            },
        ),
        (
            "reply_failed_deadline_exceeded",
            Status::DeadlineExceeded { deadline_ms: 2_500 },
        ),
        (
            "reply_failed_worker_died",
            Status::WorkerDied {
                signal: 9,
                exit_code: -1,
            },
        ),
        (
            "reply_failed_stream_lost",
            Status::StreamLost {
                provider: text("QNNExecutionProvider"),
                code: text("device_lost"),
                cause: text("its device was lost: error 0x3ec"),
                next: text("CPUExecutionProvider"),
            },
        ),
        (
            "reply_failed_invalid",
            Status::Invalid {
                field: text("inputs[0].shape"),
                why: text("its type and shape take 8 bytes, its data has 9"),
            },
        ),
        ("reply_failed_cancelled", Status::Cancelled),
        (
            "reply_failed_limit_exceeded",
            Status::LimitExceeded {
                what: text("inputs"),
                have: 257,
                limit: 256,
            },
        ),
        (
            "reply_failed_unsupported",
            Status::Unsupported {
                what: text("verb 60"),
            },
        ),
        (
            "reply_failed_model_corrupt",
            Status::ModelCorrupt {
                file: text("model.onnx"),
                why: text("its digest is another"),
            },
        ),
        (
            "reply_failed_context_overflow",
            Status::ContextOverflow {
                prompt_tokens: 9_000,
                context_tokens: 8_192,
                text: None,
            },
        ),
        (
            "reply_failed_context_overflow_text",
            Status::ContextOverflow {
                prompt_tokens: 9_000,
                context_tokens: 512,
                text: Some(3),
            },
        ),
        (
            "reply_failed_revoked",
            Status::Revoked {
                why: text("the model was unloaded"),
            },
        ),
        (
            "reply_failed_compute_failed",
            Status::ComputeFailed {
                operation: text("run"),
                cause: text("out of memory"),
            },
        ),
        (
            "reply_failed_internal",
            Status::Internal {
                operation: text("start a worker"),
                cause: text("no such file"),
            },
        ),
        ("reply_failed_shutting_down", Status::ShuttingDown),
        (
            "reply_failed_version_unsupported",
            Status::VersionUnsupported {
                version_min: 1,
                version_max: 1,
            },
        ),
    ]
}
