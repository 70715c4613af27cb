//! Frames that wait for a client to read them.

use crate::limits::{PROGRESS_QUEUE_FRAMES_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_FRAMES_MAX};
use crate::way::{Bounds, Overflow, WayOut};
use mote_wire::AsyncSender;
use mote_wire::codec::reply_to_frame;
use mote_wire::types::{Reply, Status};
use tokio::task::JoinHandle;

const BOUNDS: Bounds = Bounds {
    frames_max: SESSION_QUEUE_FRAMES_MAX,
    bytes_max: SESSION_QUEUE_BYTES_MAX,
};

/// The way out of a connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Outbox(WayOut);

impl Outbox {
    /// An empty one, and the task behind it.
    pub fn open(sender: AsyncSender) -> (Self, JoinHandle<()>) {
        let (way, task) = WayOut::open(sender, BOUNDS);
        (Self(way), task)
    }

    /// Queues an answer for the next flush of [`Outbox::way`]. Progress is left out when the client
    /// lags: the next one says more.
    ///
    /// # Errors
    /// [`Overflow`] when the client lets too much pile up.
    pub fn push(&self, request: u64, reply: Reply) -> Result<(), Overflow> {
        if matches!(reply, Reply::Progress(_)) && self.0.waiting() > PROGRESS_QUEUE_FRAMES_MAX {
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
        self.0.push(frame)
    }

    /// Queues and sends an answer.
    ///
    /// # Errors
    /// As [`Outbox::push`].
    pub fn send(&self, request: u64, reply: Reply) -> Result<(), Overflow> {
        self.push(request, reply)?;
        self.0.flush();
        Ok(())
    }

    /// What it goes out by.
    pub fn way(&self) -> &WayOut {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_wire::types::{Preview, Progress, Stage};
    use mote_wire::{AsyncReceiver, Link, async_connection};
    use std::os::unix::net::UnixStream;

    fn run(test: impl AsyncFnOnce(Outbox, AsyncReceiver)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build();
        runtime.expect("a runtime").block_on(async {
            let (near, far) = UnixStream::pair().expect("a pair");
            let (sender, _receiver) = async_connection(near, Link::Client).expect("a connection");
            let (_sender, receiver) = async_connection(far, Link::Client).expect("a connection");
            test(Outbox::open(sender).0, receiver).await;
        });
    }

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
        run(async |outbox, mut receiver| {
            let bytes = 1 << 20;
            let send = || (0..1_000).take_while(|_| outbox.send(1, preview(bytes)).is_ok());
            let sent = send().count();
            let expected = SESSION_QUEUE_BYTES_MAX / bytes;
            assert!((expected - 2..expected + 34).contains(&sent), "{sent}");
            for _ in 0..sent {
                let frame = receiver.recv().await.expect("a frame").expect("no end");
                assert!(frame.bytes.len() > bytes);
            }
            assert_eq!(send().count(), sent, "room again");
        });
    }

    #[test]
    fn a_client_that_does_not_read_is_found_out_by_frames() {
        run(async |outbox, _receiver| {
            let sent = (0..1_000_000)
                .take_while(|_| outbox.push(1, Reply::Ok).is_ok())
                .count();
            assert_eq!(sent, SESSION_QUEUE_FRAMES_MAX);
        });
    }

    #[test]
    fn progress_never_piles_up() {
        run(async |outbox, _receiver| {
            let progress = Progress {
                stage: Stage::Decode,
                done: 1,
                total: None,
                remaining_ms: None,
            };
            for _ in 0..10_000 {
                assert_eq!(outbox.push(1, Reply::Progress(progress)), Ok(()));
            }
            assert_eq!(outbox.way().waiting(), PROGRESS_QUEUE_FRAMES_MAX + 1);
        });
    }

    #[test]
    fn what_was_queued_arrives_in_order_before_the_end() {
        run(async |outbox, mut receiver| {
            for request in 1..=1_000 {
                outbox.push(request, preview(2_000)).expect("room");
                if request % 7 == 0 {
                    outbox.way().flush();
                }
            }
            outbox.way().close();
            for request in 1..=1_000 {
                let frame = receiver.recv().await.expect("a frame").expect("no end");
                let (id, _) = mote_wire::frame_to_reply(frame).expect("an answer");
                assert_eq!(id, request);
            }
            assert!(receiver.recv().await.expect("an end").is_none());
        });
    }
}
