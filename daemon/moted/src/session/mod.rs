//! One connection: a task that reads requests and a task that writes answers.

mod outbox;
mod reader;

pub use outbox::{Outbox, Overflow};

use crate::core::Event;
use crate::ids::ConnectionId;
use crate::limits::{FLUSH_LIMIT_MS, FRAMES_AT_ONCE_MAX};
use mote_wire::{AsyncSender, Frame, Link, WireError, async_connection};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A connection as the daemon holds it.
#[derive(Debug)]
pub struct Session {
    /// The user at the other end.
    pub uid: u32,
    outbox: Outbox,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// What the kernel says about the peer.
#[derive(Clone, Copy, Debug)]
pub struct Credentials {
    /// Its user.
    pub uid: u32,
    /// Its process when it connected.
    pub pid: i32,
}

impl Session {
    /// Begins with a connection. [`Event::Disconnected`] is the last event of it.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub fn open(
        socket: UnixStream,
        connection: ConnectionId,
        peer: Credentials,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, WireError> {
        let (sender, receiver) = async_connection(socket, Link::Client)?;
        let (outbox, queue) = Outbox::new();
        let writer = tokio::spawn(write(sender, queue, outbox.counter()));
        let reader = reader::Reader {
            receiver,
            connection,
            peer,
            outbox: outbox.clone(),
            events,
        };
        let reader = tokio::spawn(reader.run());
        Ok(Self {
            uid: peer.uid,
            outbox,
            reader,
            writer,
        })
    }

    /// Where answers go.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Sends what is queued, within reason, and closes.
    pub async fn close(self) {
        // It holds the other way into the queue, whose end the writer waits for.
        self.reader.abort();
        drop(self.outbox);
        let mut writer = self.writer;
        if timeout(Duration::from_millis(FLUSH_LIMIT_MS), &mut writer)
            .await
            .is_err()
        {
            writer.abort();
        }
    }

    /// Closes without sending what is queued.
    pub fn abort(self) {
        self.reader.abort();
        self.writer.abort();
    }
}

async fn write(
    mut sender: AsyncSender,
    mut queue: mpsc::Receiver<Frame>,
    counter: outbox::Counter,
) {
    let mut frames = Vec::new();
    while queue.recv_many(&mut frames, FRAMES_AT_ONCE_MAX).await > 0 {
        frames.iter().for_each(|frame| counter.taken(frame));
        if let Err(error) = sender.send_all(frames.drain(..)).await {
            log::debug!("a client does not take an answer: {error}");
            break;
        }
    }
    // Wakes the reader, too, when it was the writer that failed.
    sender.close();
}
