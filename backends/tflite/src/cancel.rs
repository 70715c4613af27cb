//! Stops a run from another thread.
#![allow(unsafe_code, reason = "the door for cancelling")]

use crate::sys::{self, Api};
use mote_api::Cancel;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A cancel that stays until a run has seen it, and the interpreter to interrupt.
#[derive(Default)]
pub(crate) struct CancelState {
    asked: AtomicBool,
    target: Mutex<Option<Target>>,
}

struct Target {
    raw: NonNull<sys::Interpreter>,
    cancel: unsafe extern "C" fn(*const sys::Interpreter) -> sys::Status,
}

// SAFETY: the pointer is used for `TfLiteInterpreterCancel` alone, which the header allows from
// any thread.
unsafe impl Send for Target {}

impl CancelState {
    /// Uses the cancel up.
    pub fn take(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }

    /// Names the interpreter that runs from now on.
    pub fn aim(&self, api: &Api, raw: NonNull<sys::Interpreter>) {
        let target = api.cancel.map(|cancel| Target { raw, cancel });
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Forgets this interpreter, which is about to be deleted; another one stays named.
    pub fn forget(&self, raw: NonNull<sys::Interpreter>) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        target.take_if(|target| target.raw == raw);
    }
}

/// The way to a session's cancel from another thread.
pub(crate) struct CancelHandle(pub Arc<CancelState>);

impl Cancel for CancelHandle {
    fn cancel(&self) {
        let target = self.0.target.lock();
        let target = target.unwrap_or_else(PoisonError::into_inner);
        self.0.asked.store(true, Ordering::Release);
        if let Some(target) = &*target {
            // SAFETY: an interpreter is forgotten under this lock before it is deleted. Outside of
            // a run the library ignores the call.
            unsafe { (target.cancel)(target.raw.as_ptr()) };
        }
    }
}
