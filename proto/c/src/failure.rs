//! Why a call failed, before C sees it.

use crate::codes::*;
use mote_client::{ClientError, Status};
use serde_json::{Map, Value};
use std::any::Any;
use std::error::Error;
use std::ffi::CStr;
use std::fmt::Display;

/// A failed call: its number, its text with all causes, and the status's fields.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) message: String,
    pub(crate) fields: Map<String, Value>,
}

impl Failure {
    /// An argument that does not hold.
    pub(crate) fn invalid(field: impl Display, why: impl Display) -> Self {
        Status::invalid(field.to_string(), why).into()
    }

    /// An argument that must not be NULL.
    pub(crate) fn null(field: impl Display) -> Self {
        Self::invalid(field, "is NULL")
    }

    /// A stream that was closed already.
    pub(crate) fn closed() -> Self {
        ClientError::Closed.into()
    }

    /// A panic of this library, which ends here.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::internal("the client library", text.unwrap_or("panicked"))
    }

    /// Something that must not happen.
    pub(crate) fn internal(operation: &str, cause: impl Display) -> Self {
        Self::from(Status::Internal {
            operation: operation.into(),
            cause: cause.to_string(),
        })
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        ClientError::Refused(status).into()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        let (code, fields) = match &error {
            ClientError::Refused(status) => (status_number(status), status_fields(status)),
            ClientError::Connect { path, cause } => {
                let mut fields = system_fields(cause);
                fields.insert("path".into(), path.to_string_lossy().into());
                (MOTE_ERROR_CANNOT_CONNECT, fields)
            }
            ClientError::Closed => (MOTE_ERROR_CONNECTION_CLOSED, Map::new()),
            ClientError::Connection(_) => (MOTE_ERROR_CONNECTION_FAILED, Map::new()),
            ClientError::Protocol(_) => (MOTE_ERROR_PROTOCOL, Map::new()),
            ClientError::Encode(_) => (MOTE_ERROR_CANNOT_SEND, Map::new()),
            ClientError::Memory { bytes, cause } => {
                let mut fields = system_fields(cause);
                fields.insert("need_bytes".into(), (*bytes).into());
                (MOTE_ERROR_NO_MEMORY, fields)
            }
            ClientError::OutOfRange {
                offset,
                bytes,
                have_bytes,
            } => {
                let fields = [
                    ("offset", offset),
                    ("need_bytes", bytes),
                    ("have_bytes", have_bytes),
                ];
                let fields = fields.map(|(name, &value)| (name.to_owned(), value.into()));
                (MOTE_ERROR_OUT_OF_RANGE, Map::from_iter(fields))
            }
        };
        Self {
            code,
            message,
            fields,
        }
    }
}

fn status_fields(status: &Status) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(mut fields)) => {
            fields.remove("status");
            fields
        }
        _ => Map::new(),
    }
}

fn system_fields(cause: &std::io::Error) -> Map<String, Value> {
    let errno = cause.raw_os_error();
    Map::from_iter(errno.map(|errno| ("errno".to_owned(), errno.into())))
}

fn status_number(status: &Status) -> i32 {
    match status {
        Status::ModelNotFound { .. } => MOTE_ERROR_MODEL_NOT_FOUND,
        Status::NoBackend { .. } => MOTE_ERROR_NO_BACKEND,
        Status::Busy { .. } => MOTE_ERROR_BUSY,
        Status::OverBudget { .. } => MOTE_ERROR_OVER_BUDGET,
        Status::DeadlineExceeded { .. } => MOTE_ERROR_DEADLINE_EXCEEDED,
        Status::WorkerDied { .. } => MOTE_ERROR_WORKER_DIED,
        Status::Invalid { .. } => MOTE_ERROR_INVALID,
        Status::Cancelled => MOTE_ERROR_CANCELLED,
        Status::LimitExceeded { .. } => MOTE_ERROR_LIMIT_EXCEEDED,
        Status::Unsupported { .. } => MOTE_ERROR_UNSUPPORTED,
        Status::ModelCorrupt { .. } => MOTE_ERROR_MODEL_CORRUPT,
        Status::ContextOverflow { .. } => MOTE_ERROR_CONTEXT_OVERFLOW,
        Status::Revoked { .. } => MOTE_ERROR_REVOKED,
        Status::ComputeFailed { .. } => MOTE_ERROR_COMPUTE_FAILED,
        Status::Internal { .. } => MOTE_ERROR_INTERNAL,
        Status::ShuttingDown => MOTE_ERROR_SHUTTING_DOWN,
        Status::VersionUnsupported { .. } => MOTE_ERROR_VERSION_UNSUPPORTED,
        Status::StreamLost { .. } => MOTE_ERROR_STREAM_LOST,
    }
}

/// The stable name of a status; those of the daemon are the schema's.
pub(crate) fn status_name(code: i32) -> &'static CStr {
    match code {
        MOTE_OK => c"ok",
        MOTE_ERROR_MODEL_NOT_FOUND => c"model_not_found",
        MOTE_ERROR_NO_BACKEND => c"no_backend",
        MOTE_ERROR_BUSY => c"busy",
        MOTE_ERROR_OVER_BUDGET => c"over_budget",
        MOTE_ERROR_DEADLINE_EXCEEDED => c"deadline_exceeded",
        MOTE_ERROR_WORKER_DIED => c"worker_died",
        MOTE_ERROR_INVALID => c"invalid",
        MOTE_ERROR_CANCELLED => c"cancelled",
        MOTE_ERROR_LIMIT_EXCEEDED => c"limit_exceeded",
        MOTE_ERROR_UNSUPPORTED => c"unsupported",
        MOTE_ERROR_MODEL_CORRUPT => c"model_corrupt",
        MOTE_ERROR_CONTEXT_OVERFLOW => c"context_overflow",
        MOTE_ERROR_REVOKED => c"revoked",
        MOTE_ERROR_COMPUTE_FAILED => c"compute_failed",
        MOTE_ERROR_INTERNAL => c"internal",
        MOTE_ERROR_SHUTTING_DOWN => c"shutting_down",
        MOTE_ERROR_VERSION_UNSUPPORTED => c"version_unsupported",
        MOTE_ERROR_STREAM_LOST => c"stream_lost",
        MOTE_ERROR_CANNOT_CONNECT => c"cannot_connect",
        MOTE_ERROR_CONNECTION_CLOSED => c"connection_closed",
        MOTE_ERROR_CONNECTION_FAILED => c"connection_failed",
        MOTE_ERROR_PROTOCOL => c"protocol",
        MOTE_ERROR_CANNOT_SEND => c"cannot_send",
        MOTE_ERROR_NO_MEMORY => c"no_memory",
        MOTE_ERROR_OUT_OF_RANGE => c"out_of_range",
        _ => c"unknown",
    }
}
