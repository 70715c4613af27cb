//! A bounded way out of the broker: frames that wait for a socket's peer to read them.
//!
//! Frames are queued while an event is handled and leave together when it is done, by the one who
//! handled it. A task of its own waits only for a socket that has no room.

use crate::limits::FRAMES_AT_ONCE_MAX;
use mote_wire::{AsyncSender, Frame, WireError};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What may wait.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Frames.
    pub frames_max: usize,
    /// Bytes in them.
    pub bytes_max: usize,
}

/// The peer does not read: its socket is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frames pile up unread")]
pub struct Overflow;

/// A way out. Clones share it.
#[derive(Clone, Debug)]
pub struct WayOut(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: Mutex<Queue>,
    bounds: Bounds,
    /// There is something to wait for: room, or the end.
    wake: Notify,
}

#[derive(Debug)]
struct Queue {
    sender: AsyncSender,
    waiting: VecDeque<Frame>,
    waiting_bytes: usize,
    /// The sender holds frames that the socket had no room for.
    is_held_up: bool,
    /// Nothing is to be added.
    is_closing: bool,
    /// The peer is gone.
    has_failed: bool,
}

impl WayOut {
    /// A way out over `sender`, and the task that ends when it is closed or its peer is gone.
    pub fn open(sender: AsyncSender, bounds: Bounds) -> (Self, JoinHandle<()>) {
        let queue = Queue {
            sender,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            is_held_up: false,
            is_closing: false,
            has_failed: false,
        };
        let way = Self(Arc::new(Inner {
            queue: Mutex::new(queue),
            bounds,
            wake: Notify::new(),
        }));
        let task = tokio::spawn(way.clone().follow());
        (way, task)
    }

    /// Queues a frame for the next [`WayOut::flush`]. Does nothing once the peer is gone: whoever
    /// reads from it is about to say so.
    ///
    /// # Errors
    /// [`Overflow`] when the peer lets too much pile up.
    pub fn push(&self, frame: Frame) -> Result<(), Overflow> {
        let mut queue = self.lock();
        if queue.has_failed || queue.is_closing {
            return Ok(());
        }
        let bytes = queue.waiting_bytes + frame.bytes.len();
        if queue.waiting.len() >= self.0.bounds.frames_max || bytes > self.0.bounds.bytes_max {
            return Err(Overflow);
        }
        queue.waiting_bytes = bytes;
        queue.waiting.push_back(frame);
        Ok(())
    }

    /// Frames that wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Sends what is queued, or has the task do so when there is room.
    pub fn flush(&self) {
        if self.lock().advance() != Progress::Sent {
            self.0.wake.notify_one();
        }
    }

    /// Lets nothing more in; the task ends when everything is sent.
    pub fn close(&self) {
        self.lock().is_closing = true;
        self.0.wake.notify_one();
    }

    /// Closes the socket, whatever is left.
    pub fn abort(&self) {
        self.lock().fail();
        self.0.wake.notify_one();
    }

    async fn follow(self) {
        loop {
            self.0.wake.notified().await;
            if let Err(error) = self.send_on().await {
                log::debug!("a peer does not take a frame: {error}");
                self.lock().fail();
                return;
            }
            let queue = self.lock();
            if queue.has_failed || queue.is_closing {
                queue.sender.close();
                return;
            }
        }
    }

    /// Waits for room until everything is sent.
    async fn send_on(&self) -> Result<(), WireError> {
        if self.lock().advance() != Progress::HeldUp {
            return Ok(());
        }
        let room = self.lock().sender.room()?;
        while self.lock().advance() == Progress::HeldUp {
            room.wait().await?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Sent,
    HeldUp,
    Failed,
}

impl Queue {
    fn advance(&mut self) -> Progress {
        if self.has_failed {
            return Progress::Failed;
        }
        match self.try_send() {
            Ok(is_sent) => {
                self.is_held_up = !is_sent;
                if is_sent {
                    Progress::Sent
                } else {
                    Progress::HeldUp
                }
            }
            Err(error) => {
                log::debug!("a peer does not take a frame: {error}");
                self.fail();
                Progress::Failed
            }
        }
    }

    fn try_send(&mut self) -> Result<bool, WireError> {
        if self.is_held_up && !self.sender.try_flush()? {
            return Ok(false);
        }
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(FRAMES_AT_ONCE_MAX);
            let bytes: usize = self.waiting.range(..count).map(|f| f.bytes.len()).sum();
            self.waiting_bytes -= bytes;
            if !self.sender.try_send_all(self.waiting.drain(..count))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fail(&mut self) {
        self.has_failed = true;
        self.waiting.clear();
        self.waiting_bytes = 0;
        // Wakes whoever reads from the peer, too.
        self.sender.close();
    }
}
