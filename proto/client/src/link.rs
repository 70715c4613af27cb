//! One connection, shared by whoever has a request open on it.
//!
//! No thread of its own reads it. Of the threads that wait for an answer one reads, for all of them;
//! when it has its own answer, the next one reads on. A client with one thread, which is most of
//! them, thus hears its answer without a second thread in between. While nobody waits, answers wait
//! in the daemon, which bounds them by credit.

use crate::error::{ClientError, End, ProtocolError};
use crate::inbox::Inbox;
use crate::pool::Pool;
use mote_wire::types::{Progress, Reply, Request, Status};
use mote_wire::{Connection, Frame, RecvHalf, Refusal, SendHalf, WireError};
use mote_wire::{frame_to_reply, request_to_frame};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A connection and the requests that are open on it.
#[derive(Debug)]
pub(crate) struct Link {
    sender: Mutex<SendHalf>,
    /// Held by the thread that reads.
    receiver: Mutex<RecvHalf>,
    shared: Mutex<Shared>,
    next_id: AtomicU64,
    /// Buffers for inputs that are too large to travel in a frame.
    pub(crate) pool: Pool,
}

#[derive(Debug, Default)]
struct Shared {
    open: HashMap<u64, Inbox>,
    /// Whether a thread reads.
    is_read: bool,
    /// What the daemon said of the connection itself: that comes without a request, before it
    /// closes.
    last_words: Option<Status>,
    end: Option<End>,
}

impl Link {
    /// A link whose requests begin at id `first_id`.
    pub(crate) fn new(connection: Connection, first_id: u64) -> Self {
        let (sender, receiver) = connection.split();
        Self {
            sender: Mutex::new(sender),
            receiver: Mutex::new(receiver),
            shared: Mutex::default(),
            next_id: AtomicU64::new(first_id),
            pool: Pool::default(),
        }
    }

    /// Sends a request, of which `credit` frames of content may be under way at once; its id. Its
    /// answers are kept until [`Link::forget`].
    pub(crate) fn open(&self, request: Request, credit: u32) -> Result<u64, ClientError> {
        let id = self.next_id();
        let frame = request_to_frame(id, request)?;
        {
            let mut shared = lock(&self.shared);
            if let Some(end) = &shared.end {
                return Err(end.clone().into());
            }
            shared.open.insert(id, Inbox::new(credit));
        }
        let sent = lock(&self.sender).send(frame);
        match sent {
            Ok(()) => Ok(id),
            // The daemon has closed; what it said before that is there to be read.
            Err(error) if error.is_gone() => loop {
                if let Err(error) = self.take(id) {
                    self.forget(id);
                    return Err(error);
                }
            },
            Err(error) => {
                self.forget(id);
                Err(error.into())
            }
        }
    }

    /// Sends a request whose answer nobody waits for.
    pub(crate) fn tell(&self, request: Request) -> Result<(), ClientError> {
        let frame = request_to_frame(self.next_id(), request)?;
        Ok(lock(&self.sender).send(frame)?)
    }

    /// Sends a request and waits for its only answer.
    pub(crate) fn ask(&self, request: Request) -> Result<Reply, ClientError> {
        self.ask_with(request, &mut |_| {})
    }

    /// As [`Link::ask`], telling reports on the way.
    pub(crate) fn ask_with(
        &self,
        request: Request,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Reply, ClientError> {
        let id = self.open(request, 0)?;
        let answer = loop {
            match self.take(id) {
                Ok(Reply::Accepted { .. }) => {}
                Ok(Reply::Progress(progress)) => on_progress(progress),
                Ok(Reply::Failed(status)) => break Err(status.into()),
                answer => break answer,
            }
        };
        self.forget(id);
        answer
    }

    /// Waits for an answer to a request.
    pub(crate) fn take(&self, id: u64) -> Result<Reply, ClientError> {
        let mut shared = lock(&self.shared);
        loop {
            let Some(inbox) = shared.open.get_mut(&id) else {
                return Err(ClientError::Closed);
            };
            if let Some(answer) = inbox.take() {
                shared.hand_over();
                return Ok(answer?);
            }
            shared = if shared.is_read {
                self.wait(shared, id)
            } else {
                self.read(shared)
            };
        }
    }

    /// Allows more content of a request; false when it is not wanted any more.
    pub(crate) fn grant(&self, id: u64, frames: u32) -> bool {
        let mut shared = lock(&self.shared);
        let inbox = shared.open.get_mut(&id);
        inbox.is_some_and(|inbox| inbox.grant(frames))
    }

    /// Answers to a request are dropped from here on.
    pub(crate) fn forget(&self, id: u64) {
        lock(&self.shared).open.remove(&id);
    }

    /// Ends the connection: threads that wait for an answer hear of it.
    pub(crate) fn close(&self) {
        lock(&self.shared).finish(End::Closed);
        lock(&self.sender).close();
    }

    /// Waits while another thread reads.
    fn wait<'a>(&self, mut shared: MutexGuard<'a, Shared>, id: u64) -> MutexGuard<'a, Shared> {
        let arrived = Arc::new(Condvar::new());
        if let Some(inbox) = shared.open.get_mut(&id) {
            inbox.waiting = Some(Arc::clone(&arrived));
        }
        let mut shared = arrived.wait(shared).unwrap_or_else(PoisonError::into_inner);
        if let Some(inbox) = shared.open.get_mut(&id) {
            inbox.waiting = None;
        }
        shared
    }

    /// Reads one frame for whom it may concern.
    fn read<'a>(&'a self, mut shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        shared.is_read = true;
        drop(shared);
        let mut receiver = lock(&self.receiver);
        let received = receiver.recv();
        let mut shared = lock(&self.shared);
        shared.is_read = false;
        shared.received(received);
        if shared.end.is_some() {
            receiver.close();
        }
        shared
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl Shared {
    fn received(&mut self, received: Result<Option<Frame>, WireError>) {
        let frame = match received {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.finish(End::Closed),
            Err(error) => return self.finish(error.into()),
        };
        match frame_to_reply(frame) {
            Ok((0, Reply::Failed(status))) => self.last_words = Some(status),
            // Without an inbox it answers what nobody waits for any more.
            Ok((id, reply)) => {
                if let Some(inbox) = self.open.get_mut(&id) {
                    inbox.put(reply);
                }
            }
            Err(refusal) if refusal.fatal => {
                self.finish(End::Protocol(ProtocolError::Answer(refusal)));
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        if matches!(refusal.status, Status::Unsupported { .. }) {
            // What a later version tells on top is not missed.
            log::debug!("an answer of a later version was dropped: {refusal}");
        } else if let Some(inbox) = self.open.get_mut(&refusal.request_id) {
            inbox.end(End::Protocol(ProtocolError::Answer(refusal)));
        }
    }

    fn finish(&mut self, end: End) {
        let end = match (end, self.last_words.take()) {
            (End::Closed, Some(status)) => End::Refused(status),
            (end, _) => end,
        };
        let end = self.end.get_or_insert(end).clone();
        for inbox in self.open.values_mut() {
            inbox.end(end.clone());
        }
    }

    /// Has another thread read on, when this one has what it waited for.
    fn hand_over(&self) {
        if self.is_read {
            return;
        }
        if let Some(next) = self.open.values().find(|inbox| inbox.waiting.is_some()) {
            next.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
