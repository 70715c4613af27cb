//! Turns panics of the library into errors: it parses and compiles untrusted files.

use mote_api::BackendError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tract_onnx::prelude::TractResult;

/// Runs a library call; its error, or its panic, carries the name `operation`.
///
/// What the call touches may be half-done after a panic: the caller drops it.
pub(crate) fn guard<T>(
    operation: &'static str,
    call: impl FnOnce() -> TractResult<T>,
) -> Result<T, BackendError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        // `{:#}` gives the whole chain of causes in one line.
        Ok(result) => result.map_err(|cause| BackendError::new(operation, format!("{cause:#}"))),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no text");
            Err(BackendError::new(operation, format!("panicked: {text}")))
        }
    }
}
