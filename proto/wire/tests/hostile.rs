//! Bytes that mean harm neither panic nor take memory. Alone in its process: memory is measured.

mod common;

use common::raw::Raw;
use common::{Random, generate};
use mote_wire::limits::{FRAME_BYTES_MAX, TENSORS_MAX};
use mote_wire::types::Status;
use mote_wire::*;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::fs;

/// Memory one frame may take while it is decoded: packed integers take a byte on the wire and
/// eight in memory, and lists grow by doubling.
const DECODING_BYTES_MAX: u64 = 20 * FRAME_BYTES_MAX as u64;

fn read_all(bytes: &[u8]) {
    let frame = || Frame {
        bytes: bytes.to_vec(),
        fds: Vec::new(),
    };
    let _ = frame_to_request(frame());
    let _ = frame_to_reply(frame());
    let _ = frame_to_command(frame());
    let _ = frame_to_event(frame());
}

fn status_bytes(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find(|line| line.starts_with(field));
    let line = line.expect("the field");
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok());
    kib.map(|kib: u64| kib << 10).expect("a number")
}

/// Most memory that was in use during `work`, beyond what was in use before.
fn peak_bytes(work: impl FnOnce()) -> u64 {
    // 5 sets the peak back to what is in use; see proc_pid_clear_refs(5).
    fs::write("/proc/self/clear_refs", "5").expect("the peak can be set back");
    let before = status_bytes("VmRSS");
    work();
    status_bytes("VmHWM").saturating_sub(before)
}

fn filled(field: u64, item: &[u8]) -> Raw {
    let mut body = Raw::new();
    while body.0.len() + item.len() + 40 < FRAME_BYTES_MAX {
        body = body.bytes(field, item);
    }
    body
}

#[test]
fn bombs_are_refused_before_they_unfold() {
    let request = |verb, body| Raw::request().message(verb, body);
    // Two million empty inputs, targets, messages, stop strings, or an input of 4 MiB of sizes.
    let sizes = Raw::new().bytes(3, vec![1; FRAME_BYTES_MAX - 100]);
    let bombs = [
        request(18, filled(2, b"")),
        request(18, filled(3, b"")),
        request(20, filled(1, b"")),
        request(22, filled(2, b"")),
        request(22, filled(6, b"")),
        request(18, Raw::new().message(2, sizes)),
        // The same verb over and over: protobuf merges the parts.
        filled(18, &Raw::new().bytes(2, b"").bytes(2, b"").0).varint(1, 7),
        Raw(vec![0x0a; FRAME_BYTES_MAX]),
        Raw(vec![0x00; FRAME_BYTES_MAX]),
    ];
    for (index, bomb) in bombs.into_iter().enumerate() {
        assert!(bomb.0.len() <= FRAME_BYTES_MAX);
        let frame = bomb.frame();
        let mut refusal = None;
        let peak = peak_bytes(|| refusal = frame_to_request(frame).err());
        let refusal = refusal.expect("it must be refused");
        assert!(
            peak <= DECODING_BYTES_MAX,
            "bomb {index} took {peak} bytes before it was refused: {refusal}"
        );
    }
    let many = (0..=TENSORS_MAX).fold(Raw::new(), |raw, _| raw.bytes(2, b""));
    let refusal = frame_to_request(request(18, many).frame()).expect_err("too many");
    assert!(matches!(refusal.status, Status::LimitExceeded { .. }));
    assert!(!refusal.fatal);
}

#[test]
fn garbage_is_refused() {
    let mut random = Random::new();
    for _ in 0..20_000 {
        let length = random.below(200);
        read_all(&random.bytes(length));
    }
}

#[test]
fn damaged_messages_are_refused_or_understood() {
    let mut random = Random::new();
    let mut runner = TestRunner::default();
    let mut frames = Vec::new();
    for _ in 0..150 {
        let request = generate::request()
            .new_tree(&mut runner)
            .expect("one")
            .current();
        frames.push(request_to_frame(5, request).expect("it fits"));
        let reply = generate::reply()
            .new_tree(&mut runner)
            .expect("one")
            .current();
        frames.push(reply_to_frame(5, reply).expect("it fits"));
        let command = generate::command()
            .new_tree(&mut runner)
            .expect("one")
            .current();
        frames.push(command_to_frame(command).expect("it fits"));
        let event = generate::event()
            .new_tree(&mut runner)
            .expect("one")
            .current();
        frames.push(event_to_frame(event).expect("it fits"));
    }
    for Frame { bytes, .. } in frames {
        for cut in 0..bytes.len().min(300) {
            read_all(&bytes[..cut]);
        }
        for _ in 0..50 {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(4) {
                if damaged.is_empty() {
                    continue;
                }
                let place = random.below(damaged.len());
                damaged[place] = match random.below(3) {
                    0 => random.next() as u8,
                    1 => 0xff,
                    _ => damaged[place] ^ 1 << random.below(8),
                };
            }
            read_all(&damaged);
        }
    }
}
