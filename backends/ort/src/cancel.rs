//! Stopping a run from another thread: one call stops one run, the one in progress or else the
//! next one.

use mote_api::{Cancel, Canceller, RunError};
use ort::logging::LogLevel;
use ort::session::RunOptions;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Flags {
    running: bool,
    requested: bool,
}

/// What a session and its cancellers share. The library's own terminate flag is only touched
/// while `flags` is locked, so that a request can neither be lost between two runs nor hit two.
pub(crate) struct CancelState {
    options: RunOptions,
    flags: Mutex<Flags>,
}

impl CancelState {
    pub(crate) fn new() -> Result<Arc<Self>, ort::Error> {
        let mut options = RunOptions::new()?;
        // Messages of a failing run can quote input values (an index out of range); the error
        // itself goes to the caller, so nothing is lost by keeping them out of the log.
        options.set_log_level(LogLevel::Fatal)?;
        Ok(Arc::new(Self {
            options,
            flags: Mutex::default(),
        }))
    }

    pub(crate) fn options(&self) -> &RunOptions {
        &self.options
    }

    pub(crate) fn canceller(self: &Arc<Self>) -> Canceller {
        Canceller::new(Handle(Arc::clone(self)))
    }

    /// Marks a run as in progress.
    pub(crate) fn begin(&self) -> Result<(), RunError> {
        let mut flags = self.lock();
        if std::mem::take(&mut flags.requested) {
            return Err(RunError::Cancelled);
        }
        flags.running = true;
        Ok(())
    }

    /// Marks the run as ended; whether it was cancelled.
    pub(crate) fn end(&self) -> bool {
        let mut flags = self.lock();
        flags.running = false;
        let cancelled = std::mem::take(&mut flags.requested);
        if cancelled && let Err(error) = self.options.unterminate() {
            log::error!("cannot clear the terminate flag: {error}");
        }
        cancelled
    }

    fn lock(&self) -> MutexGuard<'_, Flags> {
        self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Handle(Arc<CancelState>);

impl Cancel for Handle {
    fn cancel(&self) {
        let mut flags = self.0.lock();
        flags.requested = true;
        if flags.running
            && let Err(error) = self.0.options.terminate()
        {
            log::error!("cannot set the terminate flag: {error}");
        }
    }
}
