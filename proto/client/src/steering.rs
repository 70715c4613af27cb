//! What is said to work on a clip while it goes on.

use crate::call::Canceller;
use crate::error::ClientError;
use mote_wire::limits::CLIP_STEERS_MAX;
use mote_wire::types::{Request, Status, SteerClip, Steered};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The field that refusals are about, as in the daemon's own.
const TARGET: &str = "target_request_id";
/// Of a prompt that reached the daemon after the clip had ended.
const ENDED_FIRST: &str = "the clip had ended when the prompt came";

/// Prompts of one clip that its reader is to be told of.
#[derive(Debug)]
pub(crate) struct Steers(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Whether the work makes a clip of words.
    is_generated: bool,
    has_ended: bool,
    /// Prompts that were sent and not told of.
    untold: usize,
}

impl Steers {
    /// Those of the work that a request is for.
    pub(crate) fn of(request: &Request) -> Self {
        Self(Mutex::new(State {
            is_generated: matches!(request, Request::GenerateClip(_)),
            has_ended: false,
            untold: 0,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another prompt is about to be sent.
    fn begin(&self) -> Result<(), Status> {
        let mut state = self.state();
        if !state.is_generated {
            return Err(Status::invalid(TARGET, "it generates no clip"));
        }
        if state.has_ended {
            return Err(Status::invalid(TARGET, "it has ended"));
        }
        if state.untold >= CLIP_STEERS_MAX {
            return Err(Status::LimitExceeded {
                what: "prompts that were not told of".into(),
                have: state.untold as u64 + 1,
                limit: CLIP_STEERS_MAX as u64,
            });
        }
        state.untold += 1;
        Ok(())
    }

    /// The daemon tells of one; false when none was sent, or another clip is meant.
    pub(crate) fn told(&self) -> bool {
        let mut state = self.state();
        let left = state.untold.checked_sub(1);
        state.untold = left.unwrap_or_default();
        left.is_some()
    }

    /// The work is over: what is still to be told.
    pub(crate) fn end(&self) -> impl Iterator<Item = Steered> + use<> {
        let mut state = self.state();
        state.has_ended = true;
        let untold = std::mem::take(&mut state.untold);
        std::iter::repeat_with(|| Steered::not_taken(ENDED_FIRST)).take(untold)
    }
}

/// Steers work on a clip; clones steer the same.
#[derive(Clone, Debug)]
pub struct ClipSteering {
    call: Canceller,
    steers: Arc<Steers>,
}

impl ClipSteering {
    pub(crate) fn new(call: Canceller, steers: Arc<Steers>) -> Self {
        Self { call, steers }
    }

    /// Halts the work at its next step; it keeps its memory, and the device is others' meanwhile. All work on clips
    /// can be halted; what is over hears nothing.
    pub fn pause(&self) -> Result<(), ClientError> {
        self.set_paused(true)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<(), ClientError> {
        self.set_paused(false)
    }

    /// Another prompt for the shots that have not begun; the first begins with the work. Nothing waits for the
    /// daemon's answer: [`ClipEvent::Steered`](crate::ClipEvent::Steered) tells from which shot on it counts, or why
    /// it does not, once for each prompt, in their order and before the last event of the work.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with [`Status::Invalid`] when the work makes no clip of words, or its end was read,
    /// and for a prompt that holds a NUL; with [`Status::LimitExceeded`] for one that is longer than daemons take, or
    /// when there are 32 whose events were not read. Otherwise as the connection has it.
    pub fn set_prompt(&self, prompt: impl Into<String>) -> Result<(), ClientError> {
        let (target, prompt) = (self.call.target(), prompt.into());
        let steer = SteerClip { target, prompt };
        steer.check()?;
        self.steers.begin()?;
        let sent = self.call.tell(|_| Request::SteerClip(steer));
        if sent.is_err() {
            self.steers.told();
        }
        sent
    }

    fn set_paused(&self, paused: bool) -> Result<(), ClientError> {
        self.call.tell(|target| Request::Pause { target, paused })
    }
}
