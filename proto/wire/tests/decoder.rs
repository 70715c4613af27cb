//! Frames are cut out of a byte stream however it is cut up, each with its own descriptors.

mod common;

use common::Random;
use common::raw::Raw;
use mote_wire::limits::{FDS_PER_FRAME_MAX, FRAME_BYTES_MAX};
use mote_wire::{
    Connection, Frame, FrameDecoder, Link, Memfd, MemoryConnection, Transport, WireError,
};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread;

/// A frame number `number` of at least `bytes` bytes whose descriptors tell which frame they are of.
fn frame(number: u64, bytes: usize, fds: usize) -> Frame {
    let message = Raw::new().varint(1, number).varint(2, fds as u64);
    message
        .bytes(99, vec![number as u8; bytes])
        .frame_with((0..fds).map(|index| marked(number, index)).collect())
}

fn marked(number: u64, index: usize) -> OwnedFd {
    let mark = [number as u8, index as u8];
    Memfd::holding("mark", &mark).expect("a memfd").into_fd()
}

fn assert_is(received: Frame, number: u64, bytes: usize, fds: usize) {
    assert!(
        received.bytes == frame(number, bytes, fds).bytes,
        "frame {number} of {bytes} bytes came otherwise"
    );
    assert_eq!(received.fds.len(), fds, "descriptors of frame {number}");
    for (index, fd) in received.fds.into_iter().enumerate() {
        let mut mark = [0; 2];
        File::from(fd).read_exact_at(&mut mark, 0).expect("a mark");
        assert_eq!(mark, [number as u8, index as u8]);
    }
}

/// The frame as it stands in the stream.
fn delimited(frame: &Frame) -> Vec<u8> {
    let (mut stream, mut length) = (Vec::new(), frame.bytes.len());
    while length >= 0x80 {
        stream.push(length as u8 | 0x80);
        length >>= 7;
    }
    stream.push(length as u8);
    stream.extend(&frame.bytes);
    stream
}

/// Feeds the decoder `pieces`; the frames, and the error that ended it.
fn decode(pieces: Vec<(Vec<u8>, Vec<OwnedFd>)>) -> (Vec<Frame>, Option<WireError>) {
    let mut decoder = FrameDecoder::new(Link::Client);
    let mut frames = Vec::new();
    for (bytes, mut fds) in pieces {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let space = decoder.space();
            let count = rest.len().min(space.len());
            space[..count].copy_from_slice(&rest[..count]);
            rest = &rest[count..];
            if let Err(error) = decoder.received(count, std::mem::take(&mut fds)) {
                return (frames, Some(error));
            }
            loop {
                match decoder.pop() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
    }
    (frames, None)
}

#[test]
fn any_cutting_of_the_stream_gives_the_same_frames() {
    let mut random = Random::new();
    for _ in 0..60 {
        let pieces = 1 + random.below(70_000);
        let pieces = if random.below(2) == 0 {
            pieces
        } else {
            1 + pieces % 7
        };
        let sizes: Vec<_> = (0..12)
            .map(|_| {
                let bytes = match random.below(8) {
                    0 if pieces > 1000 => random.below(1 << 20),
                    _ => random.below(300),
                };
                (bytes, random.below(3) * random.below(5))
            })
            .collect();
        let (mut here, mut there) = MemoryConnection::pair_in_pieces(Link::Client, pieces);
        let sent = sizes.clone();
        let sender = thread::spawn(move || {
            for (number, (bytes, fds)) in (1..).zip(sent) {
                there.send(frame(number, bytes, fds)).expect("room");
            }
        });
        for (number, (bytes, fds)) in (1..).zip(sizes) {
            let received = here.recv().expect("a frame").expect("no end yet");
            assert_is(received, number, bytes, fds);
        }
        sender.join().expect("the sender ends");
        assert!(here.recv().expect("a clean end").is_none());
    }
}

#[test]
fn a_socket_delivers_what_was_sent() {
    let mut random = Random::new();
    let sizes: Vec<_> = (0..300)
        .map(|_| match random.below(30) {
            0 => (random.below(FRAME_BYTES_MAX - 100), random.below(3)),
            _ => (random.below(5000), random.below(2) * random.below(9)),
        })
        .collect();
    let (mut here, mut there) = Connection::pair(Link::Client).expect("a pair");
    let sent = sizes.clone();
    let sender = thread::spawn(move || {
        for (number, (bytes, fds)) in (1..).zip(sent) {
            there.send(frame(number, bytes, fds)).expect("room");
        }
    });
    for (number, (bytes, fds)) in (1..).zip(sizes) {
        let received = here.recv().expect("a frame").expect("no end yet");
        assert_is(received, number, bytes, fds);
    }
    sender.join().expect("the sender ends");
    assert!(here.recv().expect("a clean end").is_none());
}

/// Frames in one `sendmsg`, with the descriptors of the first.
fn send_together(socket: &UnixStream, frames: &[Frame]) {
    let bytes: Vec<u8> = frames.iter().flat_map(delimited).collect();
    let raw: Vec<_> = frames[0].fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights };
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        control,
        MsgFlags::empty(),
        None,
    );
    assert_eq!(sent, Ok(bytes.len()));
}

#[test]
fn frames_received_together_keep_their_own_descriptors() {
    let (here, there) = UnixStream::pair().expect("a pair");
    // Nothing is read before all is sent, so that one receipt holds many frames.
    send_together(&there, &[frame(1, 10, 0), frame(2, 20, 0)]);
    send_together(&there, &[frame(3, 30, 0)]);
    send_together(&there, &[frame(4, 40, 2), frame(5, 50, 0), frame(6, 60, 0)]);
    send_together(&there, &[frame(7, 70, 0)]);
    send_together(&there, &[frame(8, 80, 8)]);
    send_together(&there, &[frame(9, 90, 1)]);
    drop(there);
    let mut connection = Connection::new(here, Link::Client);
    for (number, fds) in [0, 0, 0, 2, 0, 0, 0, 8, 1].into_iter().enumerate() {
        let number = number as u64 + 1;
        let received = connection.recv().expect("a frame").expect("no end yet");
        assert_is(received, number, number as usize * 10, fds);
    }
    assert!(connection.recv().expect("a clean end").is_none());
}

#[test]
fn received_descriptors_are_closed_on_exec() {
    let (mut here, mut there) = Connection::pair(Link::Client).expect("a pair");
    there.send(frame(1, 0, 1)).expect("room");
    let received = here.recv().expect("a frame").expect("no end yet");
    let flags = nix::fcntl::fcntl(&received.fds[0], nix::fcntl::FcntlArg::F_GETFD);
    assert_eq!(flags, Ok(nix::libc::FD_CLOEXEC));
}

#[test]
fn descriptors_without_their_frame_end_the_stream() {
    let plain = || delimited(&frame(1, 50, 0));
    let with = |fds| delimited(&frame(1, 50, fds));
    let fds = |count| (0..count).map(|index| marked(1, index)).collect::<Vec<_>>();
    let half = |bytes: Vec<u8>| {
        let (first, last) = bytes.split_at(bytes.len() / 2);
        (first.to_vec(), last.to_vec())
    };

    let (frames, error) = decode(vec![(plain(), fds(1))]);
    assert!(frames.is_empty());
    assert!(matches!(
        error,
        Some(WireError::FdMismatch {
            declared: 0,
            received: 1
        })
    ));

    let (_, error) = decode(vec![(with(1), fds(0))]);
    assert!(matches!(
        error,
        Some(WireError::FdMismatch {
            declared: 1,
            received: 0
        })
    ));

    for (declared, received) in [(1, 2), (3, 2), (8, 1)] {
        let (_, error) = decode(vec![(with(declared), fds(received))]);
        assert!(matches!(error, Some(WireError::FdMismatch { .. })));
    }

    // Too late: with the second half of the frame, or with the frame after it.
    let (first, last) = half(with(1));
    let (_, error) = decode(vec![(first, fds(0)), (last, fds(1))]);
    assert!(matches!(error, Some(WireError::FdMismatch { .. })));
    let (first, last) = half(plain());
    let (frames, error) = decode(vec![(first, fds(0)), (last, fds(1))]);
    assert!(frames.is_empty() && matches!(error, Some(WireError::FdMismatch { .. })));

    // Too early: with the frame before it.
    let (_, error) = decode(vec![(plain(), fds(1)), (with(1), fds(0))]);
    assert!(matches!(error, Some(WireError::FdMismatch { .. })));

    // A set with every byte of one frame.
    let bytes = with(1).into_iter().map(|byte| (vec![byte], fds(1)));
    let (frames, error) = decode(bytes.collect());
    assert!(frames.is_empty() && matches!(error, Some(WireError::StrayFds)));

    let (_, error) = decode(vec![(plain(), fds(FDS_PER_FRAME_MAX + 1))]);
    assert!(matches!(error, Some(WireError::TooManyFds { count: 9 })));
}

#[test]
fn a_bad_length_ends_the_stream_before_anything_is_reserved() {
    for (prefix, too_large) in [
        (&[0xff, 0xff, 0xff, 0xff, 0xff][..], false),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], false),
        (&[0xff, 0xff, 0xff, 0xff, 0x7f], true),
        (&[0x81, 0x80, 0x80, 0x02], true),
    ] {
        let (frames, error) = decode(vec![(prefix.to_vec(), Vec::new())]);
        assert!(frames.is_empty());
        match error {
            Some(WireError::FrameTooLarge { bytes }) => {
                assert!(too_large && bytes > FRAME_BYTES_MAX as u64);
            }
            Some(WireError::PrefixTooLong) => assert!(!too_large),
            other => panic!("{prefix:x?} gave {other:?}"),
        }
    }
    // The longest frame there may be is announced, and a byte of it.
    let (frames, error) = decode(vec![(vec![0x80, 0x80, 0x80, 0x02, 0x08], Vec::new())]);
    assert!(frames.is_empty() && error.is_none());
}

#[test]
fn the_end_inside_a_frame_is_no_good_end() {
    let whole = delimited(&frame(1, 200, 0));
    for length in [1, 2, 3, whole.len() - 1] {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        there.write_all(&whole[..length]).expect("room");
        drop(there);
        let mut connection = Connection::new(here, Link::Client);
        assert!(matches!(connection.recv(), Err(WireError::EndInsideFrame)));
    }
}

#[test]
fn a_read_timeout_keeps_what_came() {
    let whole = delimited(&frame(1, 200, 0));
    let (here, mut there) = UnixStream::pair().expect("a pair");
    let mut connection = Connection::new(here, Link::Client);
    let timeout = std::time::Duration::from_millis(1);
    connection.set_read_timeout(Some(timeout));
    there.write_all(&whole[..100]).expect("room");
    assert!(matches!(connection.recv(), Err(WireError::TimedOut)));
    there.write_all(&whole[100..]).expect("room");
    let received = connection.recv().expect("a frame").expect("no end yet");
    assert_is(received, 1, 200, 0);
}

#[test]
fn what_may_not_be_sent_is_not() {
    let (mut here, _there) = Connection::pair(Link::Client).expect("a pair");
    let long = Frame {
        bytes: vec![0; FRAME_BYTES_MAX + 1],
        fds: Vec::new(),
    };
    assert!(matches!(
        here.send(long),
        Err(WireError::FrameTooLarge { .. })
    ));
    let many = here.send(frame(1, 0, FDS_PER_FRAME_MAX + 1));
    assert!(matches!(many, Err(WireError::TooManyFds { count: 9 })));
}

#[test]
fn a_peer_that_is_gone_is_an_error_and_no_signal() {
    let (mut here, there) = Connection::pair(Link::Client).expect("a pair");
    drop(there);
    assert!(matches!(here.send(frame(1, 0, 0)), Err(WireError::Send(_))));
    assert!(here.recv().expect("a clean end").is_none());
}

#[test]
fn closing_one_half_wakes_the_other() {
    let (here, _there) = Connection::pair(Link::Client).expect("a pair");
    let (send, mut recv) = here.split();
    let waiting = thread::spawn(move || recv.recv().expect("a clean end").is_none());
    send.close();
    assert!(waiting.join().expect("it woke up"));
}
