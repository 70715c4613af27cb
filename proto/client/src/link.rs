//! One connection, shared by whoever has a request open on it.

use crate::error::{ClientError, End, ProtocolError};
use crate::inbox::Inbox;
use crate::pool::Pool;
use mote_wire::types::{Reply, Request, Status};
use mote_wire::{RecvHalf, Refusal, SendHalf, frame_to_reply, request_to_frame};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A connection's sending half and the requests that are open on it.
#[derive(Debug)]
pub(crate) struct Link {
    sender: Mutex<SendHalf>,
    routes: Mutex<Routes>,
    next_id: AtomicU64,
    /// Buffers for inputs that are too large to travel in a frame.
    pub(crate) pool: Pool,
}

#[derive(Debug, Default)]
struct Routes {
    open: HashMap<u64, Arc<Inbox>>,
    end: Option<End>,
}

impl Link {
    /// A link whose requests begin at id `first_id`.
    pub(crate) fn new(sender: SendHalf, first_id: u64) -> Self {
        Self {
            sender: Mutex::new(sender),
            routes: Mutex::default(),
            next_id: AtomicU64::new(first_id),
            pool: Pool::default(),
        }
    }

    /// Sends a request whose answers go to `inbox`; its id.
    pub(crate) fn open(&self, request: Request, inbox: &Arc<Inbox>) -> Result<u64, ClientError> {
        let id = self.next_id();
        let frame = request_to_frame(id, request)?;
        {
            let mut routes = self.routes();
            if let Some(end) = &routes.end {
                return Err(end.clone().into());
            }
            routes.open.insert(id, Arc::clone(inbox));
        }
        let sent = self.sender().send(frame);
        if let Err(error) = sent {
            self.forget(id);
            return Err(error.into());
        }
        Ok(id)
    }

    /// Sends a request whose answer nobody waits for.
    pub(crate) fn tell(&self, request: Request) -> Result<(), ClientError> {
        let frame = request_to_frame(self.next_id(), request)?;
        Ok(self.sender().send(frame)?)
    }

    /// Sends a request and waits for its only answer.
    pub(crate) fn ask(&self, request: Request) -> Result<Reply, ClientError> {
        self.ask_with(request, &mut |_| {})
    }

    /// As [`Link::ask`], telling reports on the way.
    pub(crate) fn ask_with(
        &self,
        request: Request,
        on_progress: &mut dyn FnMut(mote_wire::types::Progress),
    ) -> Result<Reply, ClientError> {
        let inbox = Arc::new(Inbox::new(0));
        self.open(request, &inbox)?;
        loop {
            match inbox.take()? {
                Reply::Accepted { .. } => {}
                Reply::Progress(progress) => on_progress(progress),
                Reply::Failed(status) => return Err(status.into()),
                answer => return Ok(answer),
            }
        }
    }

    /// Answers to a request are dropped from here on.
    pub(crate) fn forget(&self, id: u64) {
        self.routes().open.remove(&id);
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        self.end(End::Closed);
        self.sender().close();
    }

    /// Hands out answers until the connection ends.
    pub(crate) fn read(&self, mut receiver: RecvHalf) {
        // What the daemon says of the connection itself comes without a request, before it closes.
        let mut last_words = None;
        let end = loop {
            let frame = match receiver.recv() {
                Ok(Some(frame)) => frame,
                Ok(None) => break End::Closed,
                Err(error) => break error.into(),
            };
            match frame_to_reply(frame) {
                Ok((0, Reply::Failed(status))) => last_words = Some(status),
                Ok((id, reply)) => self.deliver(id, reply),
                Err(refusal) if refusal.fatal => {
                    break End::Protocol(ProtocolError::Answer(refusal));
                }
                Err(refusal) => self.refuse(refusal),
            }
        };
        self.end(match (end, last_words) {
            (End::Closed, Some(status)) => End::Refused(status),
            (end, _) => end,
        });
        receiver.close();
    }

    fn deliver(&self, id: u64, reply: Reply) {
        let inbox = {
            let mut routes = self.routes();
            if reply.closes() {
                routes.open.remove(&id)
            } else {
                routes.open.get(&id).cloned()
            }
        };
        // Without an inbox it answers what nobody waits for any more.
        if let Some(inbox) = inbox
            && let Err(error) = inbox.put(reply)
        {
            self.forget(id);
            inbox.end(End::Protocol(error));
        }
    }

    fn refuse(&self, refusal: Refusal) {
        if matches!(refusal.status, Status::Unsupported { .. }) {
            // What a later version tells on top is not missed.
            log::debug!("an answer of a later version was dropped: {refusal}");
            return;
        }
        let inbox = self.routes().open.remove(&refusal.request_id);
        if let Some(inbox) = inbox {
            inbox.end(End::Protocol(ProtocolError::Answer(refusal)));
        }
    }

    fn end(&self, end: End) {
        let mut routes = self.routes();
        let end = routes.end.get_or_insert(end).clone();
        for (_, inbox) in routes.open.drain() {
            inbox.end(end.clone());
        }
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn sender(&self) -> MutexGuard<'_, SendHalf> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
