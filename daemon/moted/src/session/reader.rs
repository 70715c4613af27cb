//! Reads a client's frames, refuses what does not hold, and passes the rest on.

use super::{Credentials, Outbox};
use crate::BUILD_ID;
use crate::core::{Event, Peer};
use crate::ids::ConnectionId;
use crate::limits::HELLO_TIMEOUT_MS;
use crate::way::Overflow;
use mote_wire::codec::{frame_to_request, negotiate};
use mote_wire::limits::Limits;
use mote_wire::types::{Reply, Request, Status, Welcome};
use mote_wire::{AsyncReceiver, Frame, Refusal, WireError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub(super) struct Reader {
    pub receiver: AsyncReceiver,
    pub connection: ConnectionId,
    pub peer: Credentials,
    pub outbox: Outbox,
    pub events: mpsc::Sender<Event>,
}

/// Why a connection is not read any further.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the client has gone")]
    Gone,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the client does not speak the wire: {0}")]
    Refused(Status),
    #[error(transparent)]
    Overflow(#[from] Overflow),
    #[error("the daemon is ending")]
    Ending,
}

impl Reader {
    pub async fn run(mut self) {
        let connection = self.connection;
        let end = self.read().await;
        let end = end.unwrap_or_else(|end| end);
        log::debug!(connection = connection.0; "connection ended: {end}");
        if let End::Wire(error) = &end
            && let Some(status) = error.status()
        {
            // If the client does not even read that, it is closed all the same.
            let _ = self.outbox.send(0, Reply::Failed(status));
        }
        let _ = self.events.send(Event::Disconnected { connection }).await;
    }

    async fn read(&mut self) -> Result<End, End> {
        let limit = Duration::from_millis(HELLO_TIMEOUT_MS);
        let Ok(client_name) = timeout(limit, self.greet()).await else {
            return Err(self.refuse(0, Status::invalid("hello", "it did not come in time")));
        };
        let peer = Peer {
            uid: self.peer.uid,
            pid: self.peer.pid,
            client_name: client_name?,
        };
        let connection = self.connection;
        self.pass_on(Event::Connected { connection, peer }).await?;
        loop {
            let frame = self.frame().await?;
            match frame_to_request(frame) {
                Ok((request, body)) => {
                    self.pass_on(Event::Request {
                        connection,
                        request,
                        body,
                    })
                    .await?;
                }
                Err(Refusal {
                    request_id,
                    status,
                    fatal,
                }) => {
                    if fatal {
                        return Err(self.refuse(request_id, status));
                    }
                    self.outbox.send(request_id, Reply::Failed(status))?;
                }
            }
        }
    }

    async fn frame(&mut self) -> Result<Frame, End> {
        self.receiver.recv().await?.ok_or(End::Gone)
    }

    async fn pass_on(&mut self, event: Event) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Ending)
    }

    fn refuse(&self, request: u64, status: Status) -> End {
        // If the client does not even read that, it is closed all the same.
        let _ = self.outbox.send(request, Reply::Failed(status.clone()));
        End::Refused(status)
    }

    /// The handshake; answers what the client calls itself.
    async fn greet(&mut self) -> Result<String, End> {
        let frame = self.frame().await?;
        let (request, body) = frame_to_request(frame)
            .map_err(|refusal| self.refuse(refusal.request_id, refusal.status))?;
        let Request::Hello(hello) = body else {
            let why = "a connection begins with it";
            return Err(self.refuse(request, Status::invalid("hello", why)));
        };
        let version = negotiate(&hello).map_err(|status| self.refuse(request, status))?;
        let server_version = BUILD_ID.to_owned();
        let welcome = Welcome {
            version,
            server_version,
            limits: Limits::CURRENT,
        };
        self.outbox.send(request, Reply::Welcome(welcome))?;
        Ok(hello.client_name)
    }
}
