//! Streams: opening, ending, revoking.

use crate::harness::*;
use mote_api::Rejection;
use mote_wire::types::{
    Command, Explanation, OpenStream, Priority, Receipt, Reply, Request, Status, WorkOptions,
    WorkerEvent,
};
use moted::limits::{
    BACKOFF_MS_MAX, CRASHES_MAX, QUARANTINE_MS, RETRIES_MAX, STEP_LIMIT_MS,
    STREAMS_PER_CONNECTION_MAX,
};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

const CPU: &str = "CPUExecutionProvider";
const NPU: &str = "Npu";

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
        Some(Command::AttachStream { stream, socket, .. }) => (stream, socket),
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

/// A machine with an accelerator, and a model that runs there and in two other ways.
fn with_device() -> Play {
    let mut play = Play::new(&[two_ways("m")]);
    play.found = with_npu;
    play.connect(1);
    play.connect(2);
    play
}

/// What a worker is told of a stream.
struct Attached {
    stream: u64,
    step_limit_ms: Option<u64>,
    receipt: Receipt,
}

/// Opens a stream on a connection; answers its worker, which may be one that is there already.
fn opens(play: &mut Play, connection: u64, request: u64) -> (u64, Attached) {
    let is_attach = |command: &Command| matches!(command, Command::AttachStream { .. });
    for commands in play.commands.values_mut() {
        commands.retain(|command| !is_attach(command));
    }
    play.ask(connection, request, open("m"));
    if !play.spawned.is_empty() {
        play.load();
    }
    opened(play, connection, request);
    let attached = play.commands.iter_mut().find_map(|(worker, commands)| {
        let place = commands.iter().position(is_attach)?;
        Some((*worker, commands.remove(place)?))
    });
    match attached {
        Some((
            worker,
            Command::AttachStream {
                stream,
                step_limit_ms,
                receipt,
                ..
            },
        )) => {
            let receipt = *receipt;
            let attached = Attached {
                stream,
                step_limit_ms,
                receipt,
            };
            (worker, attached)
        }
        other => panic!("{other:?}"),
    }
}

fn faulted(stream: u64, rejection: &Rejection) -> WorkerEvent {
    WorkerEvent::StreamFaulted {
        stream,
        rejection_json: serde_json::to_vec(rejection).expect("plain"),
    }
}

fn lost(play: &mut Play) -> Vec<(String, String, String)> {
    let ended = std::mem::take(&mut play.ended_streams).into_iter();
    let told = ended.map(|(_, status)| match status {
        Status::StreamLost {
            provider,
            code,
            next,
            ..
        } => (provider, code, next),
        other => panic!("{other:?}"),
    });
    told.collect()
}

fn lost_with(code: &str) -> (String, String, String) {
    (NPU.into(), code.into(), CPU.into())
}

fn codes(receipt: &Receipt) -> Vec<(&str, &str)> {
    let rejected = receipt.rejected.iter();
    let codes = rejected.map(|one| (one.provider.as_str(), one.reason.code.as_str()));
    codes.collect()
}

#[test]
fn a_stream_says_what_it_runs_on_and_only_a_device_has_a_limit() {
    let mut play = with_device();
    let (_, first) = opens(&mut play, 1, 1);
    assert_eq!(first.step_limit_ms, Some(STEP_LIMIT_MS));
    let receipt = first.receipt;
    assert_eq!(
        (receipt.device.kind.as_str(), receipt.verification.as_str()),
        ("npu", "unchecked")
    );
    assert_eq!(receipt.placement[0].nodes, 3);
    assert!(receipt.placement_read_back && receipt.local && receipt.rejected.is_empty());

    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    assert_eq!(opens(&mut play, 1, 1).1.step_limit_ms, None);
}

#[test]
fn streams_of_a_lost_device_end_and_all_open_anew_elsewhere() {
    let mut play = with_device();
    let (worker, first) = opens(&mut play, 1, 1);
    opens(&mut play, 2, 1);
    let rejection = Rejection::DeviceLost { why: "gone".into() };
    play.worker(worker, faulted(first.stream, &rejection));
    // The other stream is as lost.
    assert_eq!(
        lost(&mut play),
        [lost_with("device_lost"), lost_with("device_lost")]
    );
    assert!(play.killed.contains(&worker));
    play.die(worker);
    for connection in [1, 2, 3] {
        play.connect(connection);
        let (_, again) = opens(&mut play, connection, 10);
        assert_eq!(again.receipt.device.kind, "cpu");
        assert_eq!(codes(&again.receipt), [(NPU, "device_lost")]);
    }
    // What comes late of the dead worker's streams is nobody's.
    play.worker(worker, faulted(first.stream, &rejection));
    assert!(lost(&mut play).is_empty());
}

#[test]
fn where_nothing_else_can_run_it_the_device_gets_another_chance() {
    let mut play = with_device();
    let open_there = || {
        Request::OpenStream(OpenStream {
            model: "m".into(),
            options: WorkOptions {
                require_provider: Some(NPU.into()),
                ..options()
            },
        })
    };
    play.ask(1, 1, open_there());
    let worker = play.load();
    let (stream, _socket) = attached(&mut play, worker);
    let rejection = Rejection::DeviceLost { why: "gone".into() };
    play.worker(worker, faulted(stream, &rejection));
    let nowhere = (NPU.into(), "device_lost".into(), String::new());
    assert_eq!(lost(&mut play), [nowhere]);
    play.die(worker);
    play.ask(1, 2, open_there());
    let again = play.load();
    attached(&mut play, again);
}

#[test]
fn a_push_that_does_not_end_costs_the_worker_its_life() {
    let mut play = with_device();
    let (worker, first) = opens(&mut play, 1, 1);
    let limit_ms = first.step_limit_ms.expect("it is a device");
    let rejection = Rejection::StepTimedOut { limit_ms };
    play.worker(worker, faulted(first.stream, &rejection));
    assert!(play.killed.contains(&worker));
    assert_eq!(lost(&mut play), [lost_with("step_timed_out")]);
    play.die(worker);
    let (_, again) = opens(&mut play, 1, 2);
    assert_eq!(codes(&again.receipt), [(NPU, "step_timed_out")]);
    let explanation = explained(&mut play, 1);
    let rejected = explanation.rejected.iter();
    let of_npu = rejected.filter(|one| one.provider == NPU);
    let codes: Vec<_> = of_npu.map(|one| one.reason.code.as_str()).collect();
    assert_eq!(codes, ["step_timed_out"]);
}

fn explained(play: &mut Play, connection: u64) -> Explanation {
    let request = Request::Explain {
        model: "m".into(),
        options: options(),
        measure: false,
    };
    play.ask(connection, 999, request);
    match play.answer(connection, 999) {
        Reply::Explanation(explanation) => *explanation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_death_under_a_stream_sends_its_own_client_elsewhere_and_counts_for_all() {
    let mut play = with_device();
    let (worker, _) = opens(&mut play, 1, 1);
    play.die(worker);
    assert_eq!(lost(&mut play), [lost_with("run_failed")]);
    let (_, again) = opens(&mut play, 1, 2);
    assert_eq!(again.receipt.device.kind, "cpu");
    assert_eq!(codes(&again.receipt), [(NPU, "run_failed")]);
    let told = |explanation: &Explanation| explanation.notes.join("; ");
    let notes = told(&explained(&mut play, 1));
    assert!(notes.contains("a stream of this connection was lost with Npu"));
    // Its input may have been the cause: nobody else suffers for it, until it keeps happening.
    for death in 1..CRASHES_MAX {
        let connection = 100 + u64::from(death);
        play.connect(connection);
        let notes = told(&explained(&mut play, connection));
        assert!(notes.contains(&format!("it crashed {death} times in a row")));
        play.pass(BACKOFF_MS_MAX);
        play.ask(connection, 1, open("m"));
        let worker = play.load();
        play.die(worker);
        assert_eq!(lost(&mut play), [lost_with("run_failed")]);
    }
    play.connect(200);
    let (_, quarantined) = opens(&mut play, 200, 1);
    assert_eq!(quarantined.receipt.device.kind, "cpu");
    let explanation = explained(&mut play, 200);
    let mut of_npu = explanation
        .rejected
        .iter()
        .filter(|one| one.provider == NPU);
    assert_eq!(
        of_npu.next().map(|one| one.reason.code.as_str()),
        Some("quarantined")
    );
    // It is not held against it for ever.
    play.pass(QUARANTINE_MS);
    let (_, later) = opens(&mut play, 1, 3);
    assert_eq!(later.receipt.device.kind, "npu");
}

#[test]
fn the_processor_is_blamed_when_it_keeps_happening() {
    let mut play = Play::new(&[two_ways("m")]);
    play.connect(1);
    for _ in 1..RETRIES_MAX {
        let (worker, _) = opens(&mut play, 1, 1);
        play.die(worker);
        let ended = std::mem::take(&mut play.ended_streams);
        assert!(matches!(ended[..], [(_, Status::WorkerDied { .. })]));
    }
    let (worker, first) = opens(&mut play, 1, 1);
    assert_eq!(first.receipt.backend, "onnxruntime");
    play.die(worker);
    assert_eq!(lost(&mut play).len(), 1);
    let (_, again) = opens(&mut play, 1, 2);
    assert_eq!(again.receipt.backend, "tract");
}

#[test]
fn a_job_that_hangs_ends_the_streams_beside_it_with_the_reason() {
    let mut play = with_device();
    let (worker, _) = opens(&mut play, 1, 1);
    play.ask(2, 1, infer("m"));
    assert_eq!(play.started(worker).len(), 1);
    play.pass(STEP_LIMIT_MS);
    assert!(play.killed.contains(&worker));
    assert_eq!(lost(&mut play), [lost_with("step_timed_out")]);
}

#[test]
fn a_worker_cannot_blame_what_is_not_to_blame() {
    let mut play = Play::new(&[two_ways("m")]);
    play.connect(1);
    let (worker, first) = opens(&mut play, 1, 1);
    let rejection = Rejection::DeviceLost { why: "gone".into() };
    play.worker(worker, faulted(first.stream, &rejection));
    assert!(play.killed.contains(&worker), "the processor is not lost");

    let mut play = with_device();
    let (worker, first) = opens(&mut play, 1, 1);
    play.worker(worker, faulted(first.stream + 1, &rejection));
    assert!(play.killed.is_empty(), "it is nobody's stream");
    play.worker(worker, faulted(first.stream, &Rejection::Outranked));
    assert!(play.killed.contains(&worker), "that is no fault");
}
