//! The client's end of one connection to the daemon.

use crate::limits::{CONTROL_FRAMES_MAX, WIRE_QUEUE_MAX};
use mote_wire::codec::{frame_to_reply, request_to_frame};
use mote_wire::limits::{CLIP_STEERS_MAX, WIRE_VERSION};
use mote_wire::types::{Hello, Reply, Request, Status, SteerClip};
use mote_wire::{AsyncReceiver, AsyncSender, Frame, Link, WireError, async_connection};
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Progress is dropped where there is no more room than this, which is for what must not be.
const PROGRESS_ROOM: usize = CONTROL_FRAMES_MAX / 2 + CLIP_STEERS_MAX;

/// Id of the first request, `Hello`.
const HELLO: u64 = 1;

/// A connection. Clones share it; it closes when the last one and all [`Answers`] are gone.
#[derive(Clone, Debug)]
pub struct Wire {
    orders: mpsc::Sender<Order>,
    ids: Arc<AtomicU64>,
    end: Arc<OnceLock<Status>>,
}

/// Answers to one request. Dropping it cancels the request if it is still open.
#[derive(Debug)]
pub struct Answers {
    id: u64,
    queue: mpsc::Receiver<Reply>,
    wire: Wire,
    closed: bool,
}

#[derive(Debug)]
struct Order {
    frame: Frame,
    /// Where answers go; without one they are dropped.
    route: Option<(u64, mpsc::Sender<Reply>)>,
}

impl Wire {
    /// Begins to speak on `socket`. The daemon's answer to the greeting is not waited for.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub fn open(socket: UnixStream, client_name: &str) -> Result<Self, WireError> {
        let (sender, receiver) = async_connection(socket, Link::Client)?;
        let (orders, inbox) = mpsc::channel(WIRE_QUEUE_MAX);
        let end = Arc::new(OnceLock::new());
        let task = Task {
            sender,
            receiver,
            routes: HashMap::new(),
            end: Arc::clone(&end),
        };
        let hello = Hello {
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
            client_name: client_name.to_owned(),
        };
        tokio::spawn(task.run(hello, inbox));
        let ids = Arc::new(AtomicU64::new(HELLO + 1));
        Ok(Self { orders, ids, end })
    }

    /// Sends a request whose answers come one after another, at most `credit` content frames ahead.
    ///
    /// # Errors
    /// When the request is too large, or the connection has ended.
    pub async fn request(&self, request: Request, credit: u32) -> Result<Answers, Status> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let frame =
            request_to_frame(id, request).map_err(|error| Status::invalid("request", error))?;
        let room = credit as usize + CONTROL_FRAMES_MAX + CLIP_STEERS_MAX;
        let (route, queue) = mpsc::channel(room);
        let order = Order {
            frame,
            route: Some((id, route)),
        };
        self.orders.send(order).await.map_err(|_| self.end())?;
        Ok(Answers {
            id,
            queue,
            wire: self.clone(),
            closed: false,
        })
    }

    /// Sends a request and waits for the one answer that closes it.
    ///
    /// # Errors
    /// The status it failed with, or that the connection ended with.
    pub async fn call(&self, request: Request) -> Result<Reply, Status> {
        let mut answers = self.request(request, 0).await?;
        loop {
            match answers.next().await {
                Some(Reply::Failed(status)) => return Err(status),
                Some(reply) if reply.closes() => return Ok(reply),
                Some(_) => {}
                None => return Err(self.end()),
            }
        }
    }

    /// Sends a request whose answer says nothing.
    async fn tell(&self, request: Request) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        if let Ok(frame) = request_to_frame(id, request) {
            let order = Order { frame, route: None };
            // Who waits for answers learns by itself that the connection has ended.
            let _ = self.orders.send(order).await;
        }
    }

    /// Why the connection ended.
    pub fn end(&self) -> Status {
        self.end.get().cloned().unwrap_or(Status::ShuttingDown)
    }

    /// Whether it has.
    pub fn has_ended(&self) -> bool {
        self.orders.is_closed()
    }
}

impl Answers {
    /// The next answer; `None` after the last one, or when the connection has ended.
    pub async fn next(&mut self) -> Option<Reply> {
        let reply = self.queue.recv().await;
        self.closed |= reply.as_ref().is_none_or(Reply::closes);
        reply
    }

    /// The next answer if it is there.
    pub fn next_now(&mut self) -> Option<Reply> {
        let reply = self.queue.try_recv().ok()?;
        self.closed |= reply.closes();
        Some(reply)
    }

    /// Lets the daemon send so many content frames more.
    pub async fn grant(&self, frames: u32) {
        let target = self.id;
        self.wire.tell(Request::Credit { target, frames }).await;
    }

    /// Ends the request early; it still has a last answer.
    pub async fn cancel(&self) {
        self.wire.tell(Request::Cancel { target: self.id }).await;
    }

    /// Halts the work at its next step, or lets it go on.
    pub async fn pause(&self, paused: bool) {
        let target = self.id;
        self.wire.tell(Request::Pause { target, paused }).await;
    }

    /// Sets the prompt of the shots that have not begun; the first begins with the work.
    pub async fn steer(&self, prompt: String) {
        let target = self.id;
        let steer = SteerClip { target, prompt };
        self.wire.tell(Request::SteerClip(steer)).await;
    }

    /// Why there are no more, when the last one did not tell.
    pub fn end(&self) -> Status {
        self.wire.end()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        let id = self.wire.ids.fetch_add(1, Ordering::Relaxed);
        if let Ok(frame) = request_to_frame(id, Request::Cancel { target: self.id }) {
            // When it does not fit in, so many requests are under way that the caller is leaving,
            // or the request goes on unheard.
            let _ = self.wire.orders.try_send(Order { frame, route: None });
        }
    }
}

struct Task {
    sender: AsyncSender,
    receiver: AsyncReceiver,
    routes: HashMap<u64, mpsc::Sender<Reply>>,
    end: Arc<OnceLock<Status>>,
}

impl Task {
    async fn run(mut self, hello: Hello, mut inbox: mpsc::Receiver<Order>) {
        if let Ok(frame) = request_to_frame(HELLO, Request::Hello(hello))
            && self.sender.send(frame).await.is_err()
        {
            return;
        }
        // The daemon reads whatever it cannot write: waiting to send blocks nobody.
        loop {
            let went_on = tokio::select! {
                received = self.receiver.recv() => match received {
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) | Err(_) => false,
                },
                order = inbox.recv() => match order {
                    Some(order) => self.carry_out(order).await,
                    None => false,
                },
            };
            if !went_on {
                return;
            }
        }
    }

    async fn carry_out(&mut self, order: Order) -> bool {
        if let Some((id, route)) = order.route {
            self.routes.insert(id, route);
        }
        self.sender.send(order.frame).await.is_ok()
    }

    /// Hands an answer to who waits for it; false ends the connection.
    fn take(&mut self, frame: Frame) -> bool {
        let (id, reply) = match frame_to_reply(frame) {
            Ok(answer) => answer,
            // An answer of a later version.
            Err(refusal) => return !refusal.fatal,
        };
        if let Reply::Failed(status) = &reply
            && (id == 0 || id == HELLO)
        {
            // It concerns the connection, which the daemon closes next.
            let _ = self.end.set(status.clone());
            return true;
        }
        let closes = reply.closes();
        let Some(route) = self.routes.get(&id) else {
            return true;
        };
        // The next progress says more than one that nobody has read yet.
        let spare = matches!(reply, Reply::Progress(_)) && route.capacity() <= PROGRESS_ROOM;
        if !spare && let Err(mpsc::error::TrySendError::Full(_)) = route.try_send(reply) {
            log::error!("the daemon sends more than it was granted");
            return false;
        }
        if closes {
            self.routes.remove(&id);
        }
        true
    }
}
