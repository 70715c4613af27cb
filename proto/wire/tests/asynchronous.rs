//! The asynchronous transport against the blocking one.

use mote_wire::{Connection, Frame, Link, Memfd, async_connection};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .expect("a runtime")
}

/// A message of `bytes` bytes: a request id, `fd_count`, and a field that nobody knows.
fn frame(bytes: usize, fds: usize) -> Frame {
    let mut message = vec![0x08, 0x05];
    if fds > 0 {
        message.extend([0x10, fds as u8]);
    }
    if bytes > message.len() {
        // Field 9, length-delimited, with a length of four bytes.
        let length = bytes - message.len() - 5;
        message.push(0x4a);
        message.extend((0..4).map(|group| {
            let more = if group < 3 { 0x80 } else { 0 };
            (length >> (7 * group) & 0x7f) as u8 | more
        }));
        message.resize(bytes, 0xa5);
    }
    let memfd = |index| Memfd::holding("test", &[index as u8 + 1]).expect("a memfd");
    Frame {
        bytes: message,
        fds: (0..fds).map(|index| memfd(index).into_fd()).collect(),
    }
}

#[test]
fn frames_of_all_sizes_arrive_whole_with_their_descriptors() {
    let sizes = [
        (40, 0),
        (3 << 20, 2),
        (60, 1),
        (64 << 10, 0),
        (100, 8),
        (1 << 20, 0),
    ];
    let (here, there) = UnixStream::pair().expect("a pair");
    let echo = thread::spawn(move || {
        let mut connection = Connection::new(there, Link::Client);
        while let Some(frame) = connection.recv().expect("a frame") {
            connection.send(frame).expect("room");
        }
    });
    runtime().block_on(async {
        let (mut sender, mut receiver) = async_connection(here, Link::Client).expect("a socket");
        for (bytes, fds) in sizes {
            let sent = frame(bytes, fds);
            let expected = sent.bytes.clone();
            let send = sender.send(sent);
            let (sent, received) = tokio::join!(send, receiver.recv());
            sent.expect("sent");
            let received = received.expect("received").expect("a frame");
            assert!(
                received.bytes == expected,
                "{bytes} bytes came back otherwise"
            );
            assert_eq!(received.fds.len(), fds);
        }
        sender.close();
    });
    echo.join().expect("the echo ends");
}

#[test]
fn a_dropped_receipt_loses_nothing() {
    let (here, there) = UnixStream::pair().expect("a pair");
    let (go, wait) = mpsc::channel::<()>();
    let sender = thread::spawn(move || {
        let mut connection = Connection::new(there, Link::Client);
        wait.recv().expect("a sign");
        for bytes in [2 << 20, 50, 300 << 10] {
            connection.send(frame(bytes, 1)).expect("room");
        }
    });
    runtime().block_on(async {
        let (_sender, mut receiver) = async_connection(here, Link::Client).expect("a socket");
        tokio::select! {
            biased;
            _ = receiver.recv() => panic!("nothing was sent yet"),
            () = std::future::ready(()) => {}
        }
        go.send(()).expect("the sender waits");
        for bytes in [2 << 20, 50, 300 << 10] {
            let received = loop {
                tokio::select! {
                    biased;
                    received = receiver.recv() => break received,
                    () = tokio::task::yield_now() => {}
                }
            };
            let received = received.expect("received").expect("a frame");
            assert!(received.bytes == frame(bytes, 1).bytes);
            assert_eq!(received.fds.len(), 1);
        }
        assert!(receiver.recv().await.expect("a clean end").is_none());
    });
    sender.join().expect("the sender ends");
}

#[test]
fn a_dropped_sending_leaves_no_half_frame() {
    let (here, there) = UnixStream::pair().expect("a pair");
    runtime().block_on(async {
        let (mut sender, _receiver) = async_connection(here, Link::Client).expect("a socket");
        // More than the socket holds, so that the first sending stops inside its frame.
        tokio::select! {
            biased;
            _ = sender.send(frame(4 << 20, 3)) => panic!("nobody has read yet"),
            () = std::future::ready(()) => {}
        }
        let reader = thread::spawn(move || {
            let mut connection = Connection::new(there, Link::Client);
            let mut frames = Vec::new();
            while let Some(frame) = connection.recv().expect("whole frames") {
                frames.push((frame.bytes.len(), frame.fds.len()));
            }
            frames
        });
        sender.send(frame(70, 1)).await.expect("sent");
        sender.close();
        let frames = reader.join().expect("the reader ends");
        assert_eq!(frames, [(4 << 20, 3), (70, 1)]);
    });
}
