//! Cancelling a job whose session is used again by other jobs, or that uses several.

use crate::PipelineError;
use mote_api::{Cancel, Canceller, RunError, RunReport, Session};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How often a run is begun anew because a canceller of an earlier job hit it.
const STALE_CANCELS_MAX: usize = 4;

/// Whether one job was cancelled.
///
/// A session's own canceller stops "the run in progress, or else the next one", so a cancel that
/// comes late would hit whichever job uses the session next. Here each job has a flag of its own:
/// a run that ends early without it was hit by a stale cancel and is begun anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct CancelFlag(Arc<AtomicBool>);

struct FlagAndSession {
    flag: CancelFlag,
    session: Canceller,
}

impl Cancel for FlagAndSession {
    fn cancel(&self) {
        self.flag.0.store(true, Ordering::Release);
        self.session.cancel();
    }
}

impl CancelFlag {
    /// The handle that cancels this job on `session`.
    pub fn canceller(&self, session: &dyn Session) -> Canceller {
        Canceller::new(FlagAndSession {
            flag: self.clone(),
            session: session.canceller(),
        })
    }

    /// Whether this job was cancelled.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Runs `session` for several jobs, whichever of them are cancelled meanwhile. Runs must be
    /// repeatable.
    pub fn run_for(flags: &[&Self], session: &mut dyn Session) -> Result<RunReport, PipelineError> {
        // Each of them may be cancelled once, beside what is stale.
        for _ in 0..STALE_CANCELS_MAX + flags.len() {
            match session.run() {
                Err(RunError::Cancelled) => {}
                other => return other.map_err(PipelineError::from),
            }
        }
        Err(PipelineError::Cancelled)
    }

    /// Runs `session` unless this job was cancelled. Runs must be repeatable.
    pub fn run(&self, session: &mut dyn Session) -> Result<RunReport, PipelineError> {
        for _ in 0..STALE_CANCELS_MAX {
            if self.is_set() {
                return Err(PipelineError::Cancelled);
            }
            match session.run() {
                Err(RunError::Cancelled) if !self.is_set() => {}
                other => return other.map_err(PipelineError::from),
            }
        }
        Err(PipelineError::Cancelled)
    }
}

/// Cancels a run of whichever of several sessions is in progress, or else the next one of any.
///
/// The handle is there before any session is, and one call stops one run.
#[derive(Clone, Default)]
pub(crate) struct StepCancel {
    asked: Arc<AtomicBool>,
    running: Arc<Mutex<Option<Canceller>>>,
}

impl Cancel for StepCancel {
    fn cancel(&self) {
        self.asked.store(true, Ordering::Release);
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = running.as_ref() {
            session.cancel();
        }
    }
}

impl StepCancel {
    /// The handle.
    pub fn canceller(&self) -> Canceller {
        Canceller::new(self.clone())
    }

    /// Runs `session` unless that is cancelled. Runs must be repeatable: one that ends early though
    /// nobody asked was hit by a cancel of an earlier one, and is begun anew.
    pub fn run(&self, session: &mut dyn Session) -> Result<RunReport, PipelineError> {
        self.set_running(Some(session.canceller()));
        let result = self.run_until_asked(session);
        self.set_running(None);
        result
    }

    fn run_until_asked(&self, session: &mut dyn Session) -> Result<RunReport, PipelineError> {
        for _ in 0..STALE_CANCELS_MAX {
            if self.asked.swap(false, Ordering::AcqRel) {
                return Err(PipelineError::Cancelled);
            }
            match session.run() {
                Err(RunError::Cancelled) if !self.asked.swap(false, Ordering::AcqRel) => {}
                other => return other.map_err(PipelineError::from),
            }
        }
        Err(PipelineError::Cancelled)
    }

    fn set_running(&self, session: Option<Canceller>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }
}
