//! Answers of one request that have come and are not taken yet.
//!
//! Whoever reads the connection never waits for whom an answer is meant for: content is bounded by
//! the credit that was granted, and of reports on the way only the latest of a kind is kept.

use crate::error::{End, ProtocolError};
use mote_wire::limits::CLIP_STEERS_MAX;
use mote_wire::types::Reply;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar};

/// Places in the queue, reports and the last answer that may wait beyond the content.
const REPORTS_MAX: usize = 16;

/// Answers of one request.
#[derive(Debug)]
pub(crate) struct Inbox {
    answers: VecDeque<Reply>,
    /// Answers that an honest daemon can have under way at once.
    length_max: usize,
    /// Content the daemon may still send.
    credit: u32,
    /// Whether the last answer has come.
    is_closed: bool,
    end: Option<End>,
    /// Whom the thread waits for that waits for an answer while another one reads.
    pub(crate) waiting: Option<Arc<Condvar>>,
}

impl Inbox {
    /// An inbox of a request that allows `credit` frames of content at once.
    pub(crate) fn new(credit: u32) -> Self {
        Self {
            answers: VecDeque::new(),
            // A report may stand beside each frame of content, and no clip has more prompts to be told of.
            length_max: 2 * credit as usize + REPORTS_MAX + CLIP_STEERS_MAX,
            credit,
            is_closed: false,
            end: None,
            waiting: None,
        }
    }

    /// Puts an answer in.
    pub(crate) fn put(&mut self, answer: Reply) {
        if self.is_closed || self.end.is_some() {
            return;
        }
        if answer.costs_credit() {
            match self.credit.checked_sub(1) {
                Some(left) => self.credit = left,
                None => return self.end(End::Protocol(ProtocolError::CreditExceeded)),
            }
        }
        self.is_closed = answer.closes();
        let is_full = self.answers.len() >= self.length_max;
        match (self.answers.back_mut(), &answer) {
            (Some(last @ Reply::Progress(_)), Reply::Progress(_))
            | (Some(last @ Reply::Accepted { .. }), Reply::Accepted { .. }) => *last = answer,
            _ if is_full => return self.end(End::Protocol(ProtocolError::CreditExceeded)),
            _ => self.answers.push_back(answer),
        }
        self.wake();
    }

    /// No more answers come.
    pub(crate) fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.wake();
    }

    /// The next answer, or why there will be none; `None` while neither has come.
    pub(crate) fn take(&mut self) -> Option<Result<Reply, End>> {
        match self.answers.pop_front() {
            Some(answer) => Some(Ok(answer)),
            None => self.end.clone().map(Err),
        }
    }

    /// Allows more content, unless the last answer is here already.
    pub(crate) fn grant(&mut self, frames: u32) -> bool {
        let wanted = !self.is_closed && self.end.is_none();
        if wanted {
            self.credit += frames;
        }
        wanted
    }

    /// Wakes the thread that waits.
    pub(crate) fn wake(&self) {
        if let Some(waiting) = &self.waiting {
            waiting.notify_one();
        }
    }
}
