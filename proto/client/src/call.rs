//! An open request with more than one answer.

use crate::error::ClientError;
use crate::link::Link;
use mote_wire::limits::CREDIT_MAX;
use mote_wire::types::{Reply, Request, WorkOptions};
use std::sync::Arc;

/// Content that may be under way when the request does not say.
const CREDIT_DEFAULT: u32 = 64;

/// The request's own credit, or else the usual.
pub(crate) fn credit_of(options: &WorkOptions) -> u32 {
    match options.credit {
        0 => CREDIT_DEFAULT,
        credit => credit.min(CREDIT_MAX),
    }
}

/// An open request; dropped before its last answer, it is cancelled.
#[derive(Debug)]
pub(crate) struct Call {
    link: Arc<Link>,
    id: u64,
    /// Content read and not granted anew yet.
    read: u32,
    /// Content read after which more is granted.
    grant_at: u32,
    is_over: bool,
}

impl Call {
    /// Sends `request`, of which `credit` frames of content may be under way at once.
    pub(crate) fn open(
        link: &Arc<Link>,
        request: Request,
        credit: u32,
    ) -> Result<Self, ClientError> {
        let id = link.open(request, credit)?;
        Ok(Self {
            link: Arc::clone(link),
            id,
            read: 0,
            grant_at: credit.div_ceil(2).max(1),
            is_over: false,
        })
    }

    /// Waits for the next answer, `None` after the last one. A refusal is the last one too.
    pub(crate) fn next(&mut self) -> Option<Result<Reply, ClientError>> {
        if self.is_over {
            return None;
        }
        let answer = self.link.take(self.id).and_then(|answer| {
            if answer.costs_credit() {
                self.grant()?;
            }
            Ok(answer)
        });
        Some(match answer {
            Ok(Reply::Failed(status)) => {
                self.is_over = true;
                Err(status.into())
            }
            Ok(answer) => {
                self.is_over = answer.closes();
                Ok(answer)
            }
            Err(error) => {
                self.abandon();
                Err(error)
            }
        })
    }

    /// Ends the request after an answer that has no place in it.
    pub(crate) fn abandon(&mut self) {
        self.link.forget(self.id);
        if !std::mem::replace(&mut self.is_over, true) {
            // A connection that is closed has ended its requests already.
            let _ = self.canceller().cancel();
        }
    }

    pub(crate) fn canceller(&self) -> Canceller {
        Canceller {
            link: Arc::clone(&self.link),
            target: self.id,
        }
    }

    fn grant(&mut self) -> Result<(), ClientError> {
        self.read += 1;
        if self.read < self.grant_at {
            return Ok(());
        }
        let frames = std::mem::take(&mut self.read);
        if !self.link.grant(self.id, frames) {
            return Ok(());
        }
        let granted = self.link.tell(Request::Credit {
            target: self.id,
            frames,
        });
        match granted {
            // What came before the end is still to be read.
            Err(ClientError::Closed) => Ok(()),
            granted => granted,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Cancels one request, from any thread.
#[derive(Clone, Debug)]
pub struct Canceller {
    link: Arc<Link>,
    target: u64,
}

impl Canceller {
    /// Asks the daemon to end the request, which then ends with
    /// [`Status::Cancelled`](crate::Status::Cancelled). Does nothing to one that is over.
    pub fn cancel(&self) -> Result<(), ClientError> {
        self.tell(|target| Request::Cancel { target })
    }

    /// Id of the request.
    pub(crate) fn target(&self) -> u64 {
        self.target
    }

    /// Tells the daemon something of the request.
    pub(crate) fn tell(&self, of: impl FnOnce(u64) -> Request) -> Result<(), ClientError> {
        self.link.tell(of(self.target))
    }
}
