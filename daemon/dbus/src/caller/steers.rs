//! Prompts that a caller set for a clip and has not been told of.

use crate::failure::Failure;
use mote_wire::limits::CLIP_STEERS_MAX;
use mote_wire::types::Status;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many there are. Its caller's task adds to them, its job's task takes them away.
#[derive(Debug, Default)]
pub struct Steers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    has_ended: bool,
    untold: usize,
}

impl Steers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A caller sets another prompt.
    pub fn begin(&self) -> Result<(), Failure> {
        let mut state = self.state();
        if state.has_ended {
            return Err(Status::invalid("job", "it has ended").into());
        }
        if state.untold >= CLIP_STEERS_MAX {
            let what = "prompts that were not told of";
            return Err(Failure::over(what, state.untold + 1, CLIP_STEERS_MAX));
        }
        state.untold += 1;
        Ok(())
    }

    /// It is told what became of one, or that it goes nowhere.
    pub fn told(&self) {
        let mut state = self.state();
        state.untold = state.untold.saturating_sub(1);
    }

    /// The job is over: how many it did not tell of.
    pub fn end(&self) -> usize {
        let mut state = self.state();
        state.has_ended = true;
        std::mem::take(&mut state.untold)
    }
}
