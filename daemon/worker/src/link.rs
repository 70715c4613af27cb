//! The way back to the broker, shared by the engine and the stream threads.

use mote_wire::types::{JobReply, WorkerEvent};
use mote_wire::{EncodeError, SendHalf, WireError, event_to_frame};
use std::sync::{Arc, Mutex, PoisonError};

/// Sends events to the broker. Clones share the socket.
#[derive(Clone)]
pub struct Link(Arc<Mutex<SendHalf>>);

/// Why an event did not reach the broker.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The event does not fit the wire.
    #[error("cannot encode an event")]
    Encode(#[from] EncodeError),
    /// The socket is gone.
    #[error("cannot send an event")]
    Send(#[from] WireError),
}

impl Link {
    /// Over one half of the broker's socket.
    pub fn new(half: SendHalf) -> Self {
        Self(Arc::new(Mutex::new(half)))
    }

    /// Sends one event.
    pub fn send(&self, event: WorkerEvent) -> Result<(), LinkError> {
        let frame = event_to_frame(event)?;
        // A thread that panicked while it held the lock has not left a torn frame behind that we
        // could mend: the broker will see a broken frame and end this worker.
        let mut half = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(half.send(frame)?)
    }

    /// Sends answers of a job together.
    pub fn replies(&self, job: u64, replies: Vec<JobReply>) -> Result<(), LinkError> {
        let mut frames = Vec::with_capacity(replies.len());
        for reply in replies {
            frames.push(event_to_frame(WorkerEvent::Job { job, reply })?);
        }
        // As in `send`.
        let mut half = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(half.send_all(frames)?)
    }

    /// Sends one answer of a job.
    pub fn reply(&self, job: u64, reply: JobReply) -> Result<(), LinkError> {
        self.send(WorkerEvent::Job { job, reply })
    }
}
