//! Streams: opening, ending, revoking.

use crate::harness::*;
use mote_wire::types::{
    Command, OpenStream, Priority, Reply, Request, Status, WorkOptions, WorkerEvent,
};
use moted::limits::STREAMS_PER_CONNECTION_MAX;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

fn open(model: &str) -> Request {
    Request::OpenStream(OpenStream {
        model: model.into(),
        options: options(),
    })
}

fn opened(play: &mut Play, connection: u64, request: u64) -> UnixStream {
    match play.answer(connection, request) {
        Reply::StreamOpened(opened) => opened.socket.into(),
        other => panic!("{other:?}"),
    }
}

fn attached(play: &mut Play, worker: u64) -> (u64, OwnedFd) {
    match play.commands(worker).pop() {
        Some(Command::AttachStream { stream, socket }) => (stream, socket),
        other => panic!("{other:?}"),
    }
}

fn ended(stream: u64) -> WorkerEvent {
    WorkerEvent::StreamEnded {
        stream,
        steps: 1,
        compute_us: 1,
        bytes_copied: 0,
    }
}

#[test]
fn client_and_worker_are_joined_without_the_broker_between_them() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, open("m"));
    let worker = play.load();
    let mut client = opened(&mut play, 1, 1);
    let (stream, socket) = attached(&mut play, worker);
    let mut far = UnixStream::from(socket);
    client.write_all(b"ping").expect("written");
    let mut heard = [0; 4];
    far.read_exact(&mut heard).expect("read");
    assert_eq!(&heard, b"ping");
    assert_eq!(play.status(1, 2).streams, 1);
    play.worker(worker, ended(stream));
    assert_eq!(play.status(1, 3).streams, 0);
    assert!(play.ended_streams.is_empty());
    drop(far);
    assert_eq!(
        client.read(&mut heard).expect("read"),
        0,
        "the broker keeps no end open"
    );
}

#[test]
fn a_model_with_a_stream_is_not_evicted_and_a_dead_workers_stream_says_why() {
    let mut play = Play::with_budget(&[model("m"), model("n")], MIB);
    play.connect(1);
    play.ask(1, 1, open("m"));
    let worker = play.load();
    play.ask(1, 2, infer("n"));
    assert!(matches!(play.failure(1, 2), Status::OverBudget { .. }));
    play.die(worker);
    let [(_, status)] = &play.ended_streams[..] else {
        panic!("one stream")
    };
    assert_eq!(
        *status,
        Status::WorkerDied {
            signal: 9,
            exit_code: 0
        }
    );
    assert_eq!(play.status(1, 3).streams, 0);
}

#[test]
fn a_stream_ends_with_the_connection_that_opened_it_and_with_its_model() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, open("m"));
    let worker = play.load();
    play.ask(2, 1, open("m"));
    play.disconnect(1);
    let [(_, Status::Revoked { .. })] = &play.ended_streams[..] else {
        panic!("one stream")
    };
    assert_eq!(play.status(2, 2).streams, 1, "the other's goes on");
    play.ask(2, 3, Request::Unload { model: "m".into() });
    assert_eq!(play.ended_streams.len(), 2);
    assert!(matches!(
        play.commands(worker).pop(),
        Some(Command::Shutdown)
    ));
}

#[test]
fn late_and_foreign_ends_are_ignored() {
    let mut play = Play::new(&[model("m"), model("n")]);
    play.connect(1);
    play.ask(1, 1, open("m"));
    let worker = play.load();
    let (stream, _socket) = attached(&mut play, worker);
    play.ask(1, 2, open("n"));
    let other = play.load();
    play.worker(other, ended(stream));
    assert_eq!(
        play.status(1, 3).streams,
        2,
        "a worker ends its own streams only"
    );
    play.worker(worker, ended(stream));
    play.worker(worker, ended(stream));
    assert_eq!(play.status(1, 4).streams, 1);
}

#[test]
fn streams_are_limited_and_can_be_cancelled_while_they_wait() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, open("m"));
    play.ask(1, 2, open("m"));
    play.ask(1, 3, Request::Cancel { target: 2 });
    assert_eq!(play.failure(1, 2), Status::Cancelled);
    let worker = play.load();
    opened(&mut play, 1, 1);
    for request in 10..10 + STREAMS_PER_CONNECTION_MAX as u64 - 1 {
        play.ask(1, request, open("m"));
        opened(&mut play, 1, request);
    }
    play.ask(1, 99, open("m"));
    assert!(matches!(play.failure(1, 99), Status::LimitExceeded { .. }));
    assert_eq!(play.commands(worker).len(), STREAMS_PER_CONNECTION_MAX);
}

#[test]
fn pushes_have_no_place_on_the_control_connection() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, Request::StreamClose);
    assert!(matches!(play.failure(1, 1), Status::Invalid { .. }));
}

#[test]
fn pushes_wait_for_more_urgent_work_on_their_device() {
    let urgent = |priority| WorkOptions {
        priority,
        ..options()
    };
    let held = |commands: Vec<Command>| -> Vec<(u64, bool)> {
        let held = commands.into_iter().filter_map(|command| match command {
            Command::HoldStream { stream, held } => Some((stream, held)),
            _ => None,
        });
        held.collect()
    };
    let mut play = Play::new(&[model("camera"), model("chat")]);
    play.connect(1);
    let open = |priority| {
        Request::OpenStream(OpenStream {
            model: "camera".into(),
            options: urgent(priority),
        })
    };
    play.ask(1, 1, open(Priority::Normal));
    let camera = play.load();
    let (normal, _socket) = attached(&mut play, camera);
    play.ask(1, 2, open(Priority::Interactive));
    let (_interactive, _socket) = attached(&mut play, camera);

    play.connect(2);
    play.ask(2, 1, generate_with("chat", urgent(Priority::Interactive)));
    let chat = play.load();
    assert_eq!(held(play.commands(camera)), [(normal, true)]);
    let job = play.started(chat)[0].job;
    play.finish(chat, job);
    assert_eq!(held(play.commands(camera)), [(normal, false)]);

    // Work of the same urgency halts nobody.
    play.ask(2, 2, generate_with("chat", urgent(Priority::Normal)));
    assert_eq!(held(play.commands(camera)), []);
}
