//! Whatever a peer sends, no descriptor stays behind. Alone in its process: descriptors are counted.

mod common;

use common::raw::Raw;
use common::{Random, open_fds, sealed};
use mote_wire::{Connection, Frame, Link, WireError, frame_to_request};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

/// Held by the test that counts: they run in threads of one process.
static COUNTING: Mutex<()> = Mutex::new(());

fn send_raw(socket: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) {
    let raw: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights };
    let parts = [IoSlice::new(bytes)];
    sendmsg::<()>(socket.as_raw_fd(), &parts, control, MsgFlags::empty(), None).expect("room");
}

fn fds(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| sealed(64)).collect()
}

fn delimited(message: Raw) -> Vec<u8> {
    // Every message here is short.
    let mut bytes = vec![message.0.len() as u8];
    bytes.extend(message.0);
    bytes
}

/// Receives until the peer is done or wrong; the error.
fn drain(socket: UnixStream) -> Option<WireError> {
    let mut connection = Connection::new(socket, Link::Client);
    loop {
        match connection.recv() {
            Ok(Some(frame)) => drop(frame_to_request(frame)),
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

/// More of them than a frame may have: the kernel drops those that find no room.
#[test]
fn descriptors_without_room_do_not_stay_behind() {
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = open_fds();
    let (here, there) = UnixStream::pair().expect("a pair");
    send_raw(&there, &delimited(Raw::request().varint(2, 40)), &fds(40));
    drop(there);
    assert!(matches!(drain(here), Some(WireError::FdsLost)));
    assert_eq!(open_fds(), before);
}

#[test]
fn no_descriptor_stays_behind() {
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = open_fds();
    let mut random = Random::new();

    // A verb that takes none, a count that is wrong, a verb nobody knows.
    for (message, count) in [
        (Raw::request().varint(2, 3).message(11, Raw::new()), 3),
        (Raw::request().varint(2, 1).message(11, Raw::new()), 2),
        (Raw::request().varint(2, 2).message(77, Raw::new()), 2),
        (Raw::request().varint(2, 8).bytes(1, b"wrong type"), 8),
    ] {
        let (here, there) = UnixStream::pair().expect("a pair");
        send_raw(&there, &delimited(message), &fds(count));
        drop(there);
        drain(here);
        assert_eq!(open_fds(), before);
    }

    // Frames that are never received.
    let (here, there) = UnixStream::pair().expect("a pair");
    send_raw(&there, &[50, 1, 2], &fds(8));
    drop((here, there));
    assert_eq!(open_fds(), before);

    // Anything at all.
    for _ in 0..300 {
        let (here, there) = UnixStream::pair().expect("a pair");
        for _ in 0..random.below(6) {
            let length = 1 + random.below(40);
            send_raw(&there, &random.bytes(length), &fds(random.below(10)));
        }
        drop(there);
        drain(here);
        assert_eq!(open_fds(), before);
    }

    // What was sent is closed by the sender.
    let (mut here, mut there) = Connection::pair(Link::Client).expect("a pair");
    let frame = Frame {
        bytes: Raw::request().varint(2, 8).0,
        fds: fds(8),
    };
    here.send(frame).expect("room");
    drop(there.recv().expect("a frame"));
    drop((here, there));
    assert_eq!(open_fds(), before);
}
