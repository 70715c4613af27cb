//! Registered buffers.

use crate::harness::*;
use mote_wire::limits::BUFFERS_MAX;
use mote_wire::types::{
    BufferRange, Command, DType, Infer, JobReply, OutputTarget, RegisterBuffer, Reply, Request,
    Status, Tensor, TensorData, Work,
};
use moted::core::Event;
use std::os::fd::OwnedFd;

fn memory() -> OwnedFd {
    // The broker never looks at what is behind it.
    std::fs::File::open("/dev/null")
        .expect("it is always there")
        .into()
}

fn register(buffer: u64, bytes: u64, writable: bool) -> Request {
    Request::RegisterBuffer(RegisterBuffer {
        buffer,
        bytes,
        writable,
        fd: memory(),
    })
}

fn range(buffer: u64, offset: u64, bytes: u64) -> BufferRange {
    BufferRange {
        buffer,
        offset,
        bytes,
    }
}

fn tensor(range: BufferRange) -> Tensor {
    let shape = vec![range.bytes];
    Tensor {
        name: "x".into(),
        dtype: DType::U8,
        shape,
        data: TensorData::Range(range),
    }
}

fn infer_in(input: BufferRange, output: BufferRange) -> Request {
    Request::Infer(Infer {
        model: "m".into(),
        inputs: vec![tensor(input)],
        outputs: vec![OutputTarget {
            name: "y".into(),
            range: output,
            shape: Vec::new(),
        }],
        options: options(),
    })
}

fn field(status: Status) -> String {
    match status {
        Status::Invalid { field, .. } => field,
        other => panic!("{other:?}"),
    }
}

/// Two clients with one buffer each, both numbered 7 by them.
fn two_clients() -> (Play, u64) {
    let mut play = Play::new(&[model("m")]);
    for connection in [1, 2] {
        play.connect(connection);
        play.ask(connection, 100, register(7, 4096, true));
        assert!(matches!(play.answer(connection, 100), Reply::Ok));
    }
    play.ask(1, 1, infer("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    play.done(1, 1);
    (play, worker)
}

#[test]
fn workers_see_other_numbers_than_clients_and_map_each_buffer_once() {
    let (mut play, worker) = two_clients();
    let mut seen = Vec::new();
    for connection in [1, 2] {
        play.ask(connection, 2, infer_in(range(7, 0, 64), range(7, 64, 64)));
        let commands = play.commands(worker);
        let [
            Command::MapBuffer {
                buffer,
                bytes: 4096,
                writable: true,
                ..
            },
            Command::StartJob(start),
        ] = &commands[..]
        else {
            panic!("{commands:?}")
        };
        let Work::Infer(infer) = &start.work else {
            panic!("{start:?}")
        };
        assert!(matches!(infer.inputs[0].data, TensorData::Range(r) if r.buffer == *buffer));
        assert_eq!(infer.outputs[0].range.buffer, *buffer);
        seen.push((*buffer, start.job));
    }
    assert_ne!(seen[0].0, seen[1].0);
    for (connection, (buffer, job)) in [1, 2].into_iter().zip(seen) {
        play.say(worker, job, JobReply::Tensor(tensor(range(buffer, 64, 64))));
        play.finish(worker, job);
        let replies = play.take(connection, 2);
        let told = replies.iter().find_map(|reply| match reply {
            Reply::Tensor(tensor) => Some(&tensor.data),
            _ => None,
        });
        assert!(matches!(told, Some(TensorData::Range(r)) if *r == range(7, 64, 64)));
    }
    play.ask(1, 3, infer_in(range(7, 0, 64), range(7, 64, 64)));
    assert!(
        matches!(play.commands(worker)[..], [Command::StartJob(_)]),
        "mapped already"
    );
}

#[test]
fn ranges_that_do_not_hold_are_refused_by_field() {
    let (mut play, worker) = two_clients();
    play.ask(1, 101, register(8, 128, false));
    let good = range(7, 64, 64);
    for (request, input, output, expected) in [
        (10, range(9, 0, 64), good, "inputs[0].range"),
        (11, range(7, 4096, 64), good, "inputs[0].range"),
        (12, range(7, u64::MAX - 63, 128), good, "inputs[0].range"),
        (13, good, range(8, 0, 64), "outputs[0].range"),
        (14, good, range(7, 4032, 65), "outputs[0].range"),
    ] {
        play.ask(1, request, infer_in(input, output));
        assert_eq!(
            field(play.failure(1, request)),
            expected,
            "{input:?} {output:?}"
        );
    }
    assert!(play.commands(worker).is_empty());
    play.ask(1, 20, infer_in(range(8, 0, 128), good));
    assert!(play.is_open(1, 20), "a read-only buffer may be read");
}

#[test]
fn a_buffer_in_use_stays_until_the_job_is_done() {
    let (mut play, worker) = two_clients();
    play.ask(1, 2, infer_in(range(7, 0, 64), range(7, 64, 64)));
    let job = play.started(worker)[0].job;
    play.ask(1, 3, Request::UnregisterBuffer { buffer: 7 });
    assert!(matches!(play.answer(1, 3), Reply::Ok));
    assert!(play.commands(worker).is_empty());
    play.ask(1, 4, infer_in(range(7, 0, 64), range(7, 64, 64)));
    assert_eq!(field(play.failure(1, 4)), "inputs[0].range");
    play.ask(1, 5, register(7, 64, false));
    assert!(
        matches!(play.answer(1, 5), Reply::Ok),
        "its number is free again"
    );
    play.finish(worker, job);
    assert!(matches!(
        play.commands(worker)[..],
        [Command::UnmapBuffer { .. }]
    ));
    assert_eq!(play.status(2, 9).buffers, 2);
}

#[test]
fn a_closed_connections_buffers_go_and_others_stay() {
    let (mut play, worker) = two_clients();
    play.ask(1, 2, infer_in(range(7, 0, 64), range(7, 64, 64)));
    let job = play.started(worker)[0].job;
    play.disconnect(1);
    assert!(matches!(
        play.commands(worker)[..],
        [Command::CancelJob { .. }]
    ));
    assert_eq!(
        play.status(2, 8).buffers,
        2,
        "the worker may still write to it"
    );
    play.say(worker, job, JobReply::Failed(Status::Cancelled));
    assert!(matches!(
        play.commands(worker)[..],
        [Command::UnmapBuffer { .. }]
    ));
    let report = play.status(2, 9);
    assert_eq!(
        (report.buffers, report.jobs_running, report.jobs_queued),
        (1, 0, 0)
    );
}

#[test]
fn a_new_worker_is_given_the_buffers_anew() {
    let (mut play, worker) = two_clients();
    play.ask(1, 2, infer_in(range(7, 0, 64), range(7, 64, 64)));
    play.die(worker);
    let fresh = play.load();
    let commands = play.commands(fresh);
    assert!(
        matches!(
            commands[..],
            [Command::MapBuffer { .. }, Command::StartJob(_)]
        ),
        "{commands:?}"
    );
}

#[test]
fn numbers_counts_and_bytes_are_limited() {
    let mut play = Play::new(&[]);
    play.connect(1);
    play.ask(1, 1, register(7, 64, true));
    play.ask(1, 2, register(7, 64, true));
    assert_eq!(field(play.failure(1, 2)), "buffer");
    play.ask(1, 3, Request::UnregisterBuffer { buffer: 9 });
    assert_eq!(field(play.failure(1, 3)), "buffer");
    play.ask(1, 4, register(8, u64::MAX, true));
    assert!(matches!(play.failure(1, 4), Status::LimitExceeded { .. }));
    let four_gib = 4 << 30;
    for request in 0..3 {
        play.ask(1, 10 + request, register(100 + request, four_gib, false));
        assert!(matches!(play.answer(1, 10 + request), Reply::Ok));
    }
    play.ask(1, 14, register(104, four_gib, false));
    let status = play.failure(1, 14);
    assert!(
        matches!(&status, Status::LimitExceeded { what, .. } if what == "bytes of all buffers")
    );
    for request in 0..BUFFERS_MAX as u64 - 4 {
        play.ask(1, 20 + request, register(200 + request, 64, true));
        assert!(matches!(play.answer(1, 20 + request), Reply::Ok));
    }
    play.ask(1, 99, register(999, 64, true));
    let status = play.failure(1, 99);
    assert!(matches!(&status, Status::LimitExceeded { what, .. } if what == "buffers"));
    play.event(Event::Disconnected {
        connection: moted::ids::ConnectionId(1),
    });
    play.connect(2);
    assert_eq!(play.status(2, 1).buffers, 0);
}
