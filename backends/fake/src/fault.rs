//! Faults: when they strike, and how a run waits.

use crate::script::Script;
use mote_api::{BackendError, Cancel, RunError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A cancel that stays until a run has seen it.
#[derive(Debug, Default)]
pub(crate) struct CancelFlag {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl CancelFlag {
    fn lock(&self) -> MutexGuard<'_, bool> {
        // A bool is whole whatever panicked while the lock was held.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; `None` waits for the cancel alone.
    ///
    /// # Errors
    /// [`RunError::Cancelled`], which uses the cancel up.
    pub fn wait(&self, duration: Option<Duration>) -> Result<(), RunError> {
        let end = duration.map(|duration| Instant::now() + duration);
        let mut asked = self.lock();
        loop {
            if std::mem::take(&mut *asked) {
                return Err(RunError::Cancelled);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            asked = match left {
                Some(Duration::ZERO) => return Ok(()),
                Some(left) => {
                    let woken = self.changed.wait_timeout(asked, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let woken = self.changed.wait(asked);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// The way to a session's flag from another thread.
pub(crate) struct CancelHandle(pub Arc<CancelFlag>);

impl Cancel for CancelHandle {
    fn cancel(&self) {
        *self.0.lock() = true;
        self.0.changed.notify_all();
    }
}

/// The faults of a script on one provider.
#[derive(Debug)]
pub(crate) struct Faults<'a> {
    script: &'a Script,
    provider: &'a str,
}

impl<'a> Faults<'a> {
    pub fn new(script: &'a Script, provider: &'a str) -> Self {
        Self { script, provider }
    }

    /// Whether a fault that is due strikes; leaves the marker behind.
    pub fn strikes(&self) -> bool {
        let here = self.script.fault_provider.as_deref();
        if here.is_some_and(|provider| provider != self.provider) {
            return false;
        }
        match &self.script.fault_marker {
            // `create_new` lets exactly one of several processes be struck.
            Some(marker) => std::fs::File::create_new(marker).is_ok(),
            None => true,
        }
    }

    /// Spends `step_ms` and strikes what is due at `run`.
    pub fn during_run(&self, run: u64, cancel: &CancelFlag) -> Result<(), RunError> {
        let due = |at: Option<u64>| at == Some(run) && self.strikes();
        if due(self.script.crash_at_run) {
            std::process::abort();
        }
        if due(self.script.hang_at_run) {
            if !self.script.ignore_cancel {
                return cancel.wait(None);
            }
            loop {
                std::thread::park();
            }
        }
        let step = Duration::from_millis(self.script.step_ms);
        if self.script.ignore_cancel {
            std::thread::sleep(step);
        } else {
            cancel.wait(Some(step))?;
        }
        let text =
            |what: &str| BackendError::new("run", format!("{what} in run {run} as scripted"));
        if due(self.script.lose_device_at_run) {
            return Err(RunError::DeviceLost {
                device: self.provider.into(),
                cause: text("lost device"),
            });
        }
        if due(self.script.fail_at_run) {
            return Err(RunError::Compute(text("failed")));
        }
        Ok(())
    }
}
