//! One connection: a task that reads requests, and a bounded way out for answers.

mod outbox;
mod reader;

pub use outbox::Outbox;

use crate::core::Event;
use crate::ids::ConnectionId;
use crate::limits::FLUSH_LIMIT_MS;
use mote_wire::types::{Reply, Status};
use mote_wire::{Link, WireError, async_connection};
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

/// Tells a connection that there is no place for it. Nothing it says is read: it never was there.
pub async fn refuse(socket: UnixStream, status: Status) {
    let Ok((sender, _receiver)) = async_connection(socket, Link::Client) else {
        return;
    };
    let (outbox, writer) = Outbox::open(sender);
    // Its queue is empty.
    let _ = outbox.send(0, Reply::Failed(status));
    finish(&outbox, writer).await;
}

/// Sends what is queued, within reason, and closes.
async fn finish(outbox: &Outbox, writer: JoinHandle<()>) {
    outbox.way().close();
    let limit = Duration::from_millis(FLUSH_LIMIT_MS);
    if timeout(limit, writer).await.is_err() {
        outbox.way().abort();
    }
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
        let (outbox, writer) = Outbox::open(sender);
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
        self.reader.abort();
        finish(&self.outbox, self.writer).await;
    }

    /// Closes without sending what is queued.
    pub fn abort(self) {
        self.reader.abort();
        self.outbox.way().abort();
    }
}
