//! Golden frames: what version 1 looks like on the wire, for ever.
//!
//! `golden/v1/NAME.bin` is a frame as it stands in the stream, length prefix included;
//! `golden/v1/NAME.txt` is the message it holds, written out. A new frame is added to
//! `common/golden.rs` and written by `MOTE_BLESS=1 cargo test -p mote-wire --test golden`, which never touches
//! a frame that is there: those are what peers of version 1 send and expect.

mod common;

use common::golden::{Message, messages};
use common::{describe, sealed};
use mote_wire::{
    Frame, FrameDecoder, Link, frame_to_reply, frame_to_request, reply_to_frame, request_to_frame,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

const ID: u64 = 300;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden/v1"]
        .iter()
        .collect()
}

fn encode(message: Message) -> Frame {
    match message {
        Message::Request(request) => request_to_frame(ID, request).expect("it fits"),
        Message::Reply(reply) => reply_to_frame(ID, reply).expect("it fits"),
    }
}

fn text(message: &Message) -> String {
    match message {
        Message::Request(request) => describe::request(request),
        Message::Reply(reply) => describe::reply(reply),
    }
}

/// The frame's message, as the decoder cuts it out of the stream.
fn cut(stream: &[u8], fds: usize) -> Frame {
    let mut decoder = FrameDecoder::new(Link::Client);
    decoder.space()[..stream.len()].copy_from_slice(stream);
    let fds = (0..fds).map(|_| sealed(1 << 20)).collect();
    decoder.received(stream.len(), fds).expect("room");
    let frame = decoder.pop().expect("a good frame").expect("a whole frame");
    assert!(decoder.is_at_boundary());
    frame
}

fn delimited(message: &[u8]) -> Vec<u8> {
    let (mut stream, mut length) = (Vec::new(), message.len());
    while length >= 0x80 {
        stream.push(length as u8 | 0x80);
        length >>= 7;
    }
    stream.push(length as u8);
    stream.extend(message);
    stream
}

/// Writes the frames that are not there yet.
fn bless() {
    fs::create_dir_all(folder()).expect("a folder");
    for (name, message) in messages() {
        let path = folder().join(format!("{name}.bin"));
        if !path.exists() {
            fs::write(path.with_extension("txt"), text(&message)).expect("written");
            fs::write(path, delimited(&encode(message).bytes)).expect("written");
        }
    }
}

#[test]
fn version_1_is_what_it_was() {
    if std::env::var_os("MOTE_BLESS").is_some() {
        bless();
    }
    let mut names = BTreeSet::new();
    for (name, message) in messages() {
        let path = folder().join(format!("{name}.bin"));
        let stream = fs::read(&path).expect("the golden frame is there");
        let expected = fs::read_to_string(path.with_extension("txt")).expect("and its text");
        assert_eq!(
            text(&message),
            expected,
            "{name}: the table and the text differ"
        );
        let is_request = matches!(message, Message::Request(_));
        let frame = encode(message);
        assert_eq!(
            delimited(&frame.bytes),
            stream,
            "{name} is written otherwise"
        );

        let cut = cut(&stream, frame.fds.len());
        let read = match is_request {
            true => frame_to_request(cut).map(|(id, request)| (id, Message::Request(request))),
            false => frame_to_reply(cut).map(|(id, reply)| (id, Message::Reply(reply))),
        };
        let (id, read) = read.unwrap_or_else(|refusal| panic!("{name} is refused: {refusal}"));
        assert_eq!(id, ID);
        assert_eq!(text(&read), expected, "{name} is read otherwise");
        assert_eq!(
            delimited(&encode(read).bytes),
            stream,
            "{name} is passed on otherwise"
        );
        assert!(names.insert(name), "{name} is in the table twice");
    }
    for entry in fs::read_dir(folder()).expect("the folder").flatten() {
        let stem = entry
            .path()
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let stem = stem.unwrap_or_default();
        assert!(names.contains(&*stem), "{stem} is not in the table");
    }
}
