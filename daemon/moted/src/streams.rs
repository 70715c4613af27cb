//! Ending a stream whose socket the broker does not otherwise use.

use mote_wire::codec::reply_to_frame;
use mote_wire::types::{Reply, Status};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use std::os::fd::{AsRawFd, OwnedFd};

/// Tells the client why, in place of its worker, and shuts the socket down for both ends.
///
/// If the worker was in the middle of a frame, this one becomes part of it, and the client finds
/// that the stream ended inside a frame: never wrong data, but no reason either.
pub fn end(socket: &OwnedFd, status: Status) {
    if let Ok(frame) = reply_to_frame(0, Reply::Failed(status)) {
        let mut bytes = delimiter(frame.bytes.len());
        bytes.extend(frame.bytes);
        // A client that does not read, or has gone, gets no reason.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(socket.as_raw_fd(), &bytes, flags);
    }
    // Fails when the client has closed its end, and then there is nothing to shut down.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}

/// The length prefix of a frame: a base-128 varint, lowest group first.
fn delimiter(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_wire::codec::frame_to_reply;
    use mote_wire::{Connection, Link};
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_client_hears_why_and_then_the_end() {
        let (client, worker) = UnixStream::pair().expect("socket pair");
        let broker = OwnedFd::from(worker.try_clone().expect("descriptor"));
        let why = Status::Revoked {
            why: "x".repeat(300),
        };
        end(&broker, why.clone());
        let mut client = Connection::new(client, Link::Client);
        let frame = client.recv().expect("a frame").expect("not the end yet");
        let (id, reply) = frame_to_reply(frame).expect("a reply");
        assert!(matches!(reply, Reply::Failed(status) if status == why));
        assert_eq!(id, 0);
        assert!(client.recv().expect("in order").is_none());
        let mut worker = Connection::new(worker, Link::Client);
        assert!(worker.recv().expect("in order").is_none());
    }
}
