//! Answers that have come and are not read yet.
//!
//! The reader of the connection never waits for the reader of an inbox: content is bounded by the
//! credit that was granted, and of reports on the way only the latest of a kind is kept.

use crate::error::{ClientError, End, ProtocolError};
use mote_wire::types::Reply;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Places in the queue, reports and the last answer that may wait beyond the content.
const REPORTS_MAX: usize = 16;

/// Answers of one request.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    /// Answers that an honest daemon can have under way at once.
    length_max: usize,
}

#[derive(Debug)]
struct State {
    answers: VecDeque<Reply>,
    /// Content the daemon may still send.
    credit: u32,
    /// Whether the last answer has come.
    closed: bool,
    end: Option<End>,
}

impl Inbox {
    /// An inbox of a request that allows `credit` frames of content at once.
    pub(crate) fn new(credit: u32) -> Self {
        Self {
            state: Mutex::new(State {
                answers: VecDeque::new(),
                credit,
                closed: false,
                end: None,
            }),
            arrived: Condvar::new(),
            // A report may stand beside each frame of content.
            length_max: 2 * credit as usize + REPORTS_MAX,
        }
    }

    /// Puts an answer in.
    pub(crate) fn put(&self, answer: Reply) -> Result<(), ProtocolError> {
        let mut state = self.lock();
        if answer.costs_credit() {
            let left = state.credit.checked_sub(1);
            state.credit = left.ok_or(ProtocolError::CreditExceeded)?;
        }
        state.closed |= answer.closes();
        let is_full = state.answers.len() >= self.length_max;
        match (state.answers.back_mut(), &answer) {
            (Some(last @ Reply::Progress(_)), Reply::Progress(_))
            | (Some(last @ Reply::Accepted { .. }), Reply::Accepted { .. }) => *last = answer,
            _ if is_full => return Err(ProtocolError::CreditExceeded),
            _ => state.answers.push_back(answer),
        }
        self.arrived.notify_one();
        Ok(())
    }

    /// No more answers come.
    pub(crate) fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.arrived.notify_one();
    }

    /// Waits for an answer.
    pub(crate) fn take(&self) -> Result<Reply, ClientError> {
        let mut state = self.lock();
        loop {
            if let Some(answer) = state.answers.pop_front() {
                return Ok(answer);
            }
            if let Some(end) = &state.end {
                return Err(end.clone().into());
            }
            state = self
                .arrived
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Allows more content, unless the last answer is here already.
    pub(crate) fn grant(&self, frames: u32) -> bool {
        let mut state = self.lock();
        let wanted = !state.closed && state.end.is_none();
        if wanted {
            state.credit += frames;
        }
        wanted
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
