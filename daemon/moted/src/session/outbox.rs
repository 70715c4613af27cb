//! Frames that wait for a client to read them.

use crate::limits::{PROGRESS_QUEUE_FRAMES_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_FRAMES_MAX};
use mote_wire::Frame;
use mote_wire::codec::reply_to_frame;
use mote_wire::types::{Reply, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// The client does not read what it asked for: its connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("answers pile up unread")]
pub struct Overflow;

/// The way into the queue of a connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: mpsc::Sender<Frame>,
    bytes: Arc<AtomicUsize>,
}

/// Counts bytes out of the queue.
#[derive(Debug)]
pub struct Counter(Arc<AtomicUsize>);

impl Counter {
    /// A frame has left the queue.
    pub fn taken(&self, frame: &Frame) {
        self.0.fetch_sub(frame.bytes.len(), Ordering::Relaxed);
    }
}

impl Outbox {
    /// An empty queue.
    pub fn new() -> (Self, mpsc::Receiver<Frame>) {
        let (queue, receiver) = mpsc::channel(SESSION_QUEUE_FRAMES_MAX);
        (
            Self {
                queue,
                bytes: Arc::default(),
            },
            receiver,
        )
    }

    /// For the one who takes frames out.
    pub fn counter(&self) -> Counter {
        Counter(Arc::clone(&self.bytes))
    }

    /// Queues an answer. Progress is left out when the client lags: the next one says more.
    ///
    /// # Errors
    /// [`Overflow`] when the client lets too much pile up.
    pub fn send(&self, request: u64, reply: Reply) -> Result<(), Overflow> {
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        if matches!(reply, Reply::Progress(_)) && waiting > PROGRESS_QUEUE_FRAMES_MAX {
            return Ok(());
        }
        let closes = reply.closes();
        let frame = reply_to_frame(request, reply).or_else(|error| {
            log::error!("an answer cannot be encoded: {error}");
            if !closes {
                return Err(Overflow);
            }
            let (operation, cause) = ("encode an answer".into(), error.to_string());
            let failed = Reply::Failed(Status::Internal { operation, cause });
            reply_to_frame(request, failed).map_err(|_| Overflow)
        })?;
        let bytes = frame.bytes.len();
        if self.bytes.load(Ordering::Relaxed) + bytes > SESSION_QUEUE_BYTES_MAX {
            return Err(Overflow);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        match self.queue.try_send(frame) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Overflow),
            // The writer has gone because the client has; the reader is about to say so.
            Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_wire::types::{Preview, Progress, Stage};

    fn preview(bytes: usize) -> Reply {
        Reply::Preview(Preview {
            frame_index: 0,
            width: 1,
            height: 1,
            png: vec![0; bytes],
        })
    }

    #[test]
    fn a_client_that_does_not_read_is_found_out_by_bytes() {
        let (outbox, mut queue) = Outbox::new();
        let bytes = 1 << 20;
        let sent = (0..1_000)
            .take_while(|_| outbox.send(1, preview(bytes)).is_ok())
            .count();
        assert!(
            (50..=SESSION_QUEUE_BYTES_MAX / bytes).contains(&sent),
            "{sent}"
        );
        let counter = outbox.counter();
        counter.taken(&queue.try_recv().expect("queued"));
        assert_eq!(outbox.send(1, preview(bytes)), Ok(()));
        assert_eq!(outbox.send(1, preview(bytes)), Err(Overflow));
    }

    #[test]
    fn a_client_that_does_not_read_is_found_out_by_frames() {
        let (outbox, _queue) = Outbox::new();
        let sent = (0..1_000_000)
            .take_while(|_| outbox.send(1, Reply::Ok).is_ok())
            .count();
        assert_eq!(sent, SESSION_QUEUE_FRAMES_MAX);
    }

    #[test]
    fn progress_never_piles_up() {
        let (outbox, mut queue) = Outbox::new();
        let progress = Progress {
            stage: Stage::Decode,
            done: 1,
            total: None,
            remaining_ms: None,
        };
        for _ in 0..10_000 {
            assert_eq!(outbox.send(1, Reply::Progress(progress)), Ok(()));
        }
        let queued = std::iter::from_fn(|| queue.try_recv().ok()).count();
        assert_eq!(queued, PROGRESS_QUEUE_FRAMES_MAX + 1);
    }
}
