//! Workers that die, refuse, or misbehave.

use crate::harness::*;
use mote_api::Rejection;
use mote_wire::types::{Reply, Request, Status, WorkOptions, WorkerEvent};
use moted::core::Event;
use moted::ids::WorkerId;
use moted::limits::{CRASHES_MAX, HANDSHAKE_MS, LOAD_SILENCE_MS_MAX, STEP_LIMIT_MS};

/// Longer than a worker is held back after so few crashes.
const PAUSE_MS: u64 = 1_000;

fn no() -> Status {
    Status::ComputeFailed {
        operation: "load".into(),
        cause: "no".into(),
    }
}

fn explain(model: &str) -> Request {
    Request::Explain {
        model: model.into(),
        options: WorkOptions::default(),
        measure: false,
    }
}

#[test]
fn a_dead_workers_answer_goes_on_where_it_was_and_nothing_comes_twice() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    let first = play.started(worker).remove(0);
    play.say(worker, first.job, token(0));
    play.say(worker, first.job, token(1));
    play.die(worker);
    assert!(play.is_open(1, 1));
    let fresh = play.load();
    let second = play.started(fresh).remove(0);
    assert_eq!((second.job, second.seed), (first.job, first.seed));
    assert_eq!(
        (second.resume, second.credit),
        (vec![100, 101], first.credit - 2)
    );
    play.say(fresh, second.job, token(2));
    play.finish(fresh, second.job);
    let replies = play.take(1, 1);
    assert_eq!(tokens(&replies), [100, 101, 102]);
    let Some(Reply::Done(done)) = replies.last() else {
        panic!("{replies:?}")
    };
    assert_eq!(done.receipt.retries, 1);
}

#[test]
fn a_job_that_outlives_no_worker_fails_at_its_third_death() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, generate("m"));
    for death in 1..=3 {
        assert!(play.is_open(1, 1), "death {death}");
        play.pass(PAUSE_MS);
        let worker = play.load();
        play.die(worker);
    }
    assert_eq!(
        play.failure(1, 1),
        Status::WorkerDied {
            signal: 9,
            exit_code: 0
        }
    );
    assert!(play.spawned.is_empty());
    // The model is not quarantined by one job.
    play.ask(1, 2, infer("m"));
    play.pass(PAUSE_MS);
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    play.done(1, 2);
}

#[test]
fn the_last_try_of_a_job_takes_another_way() {
    let mut play = Play::new(&[two_ways("m")]);
    play.connect(1);
    play.ask(1, 1, generate("m"));
    for _ in 0..2 {
        play.pass(PAUSE_MS);
        let (worker, load) = play.begin_load();
        assert!(String::from_utf8_lossy(&load.candidate_json).contains("onnxruntime"));
        play.loaded(worker);
        play.die(worker);
    }
    play.pass(PAUSE_MS);
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    let receipt = play.done(1, 1).receipt;
    assert_eq!((receipt.backend.as_str(), receipt.retries), ("tract", 2));
    let rejected: Vec<_> = receipt
        .rejected
        .iter()
        .map(|r| (r.flavour.as_str(), r.reason.code.as_str()))
        .collect();
    assert_eq!(rejected, [("onnxruntime-cpu", "quarantined")]);
}

#[test]
fn a_requirement_forbids_another_way() {
    let mut play = Play::new(&[two_ways("m")]);
    play.connect(1);
    let require = WorkOptions {
        require_backend: Some("onnxruntime".into()),
        ..options()
    };
    play.ask(1, 1, generate_with("m", require));
    for _ in 0..3 {
        play.pass(PAUSE_MS);
        let worker = play.load();
        play.die(worker);
    }
    assert!(matches!(play.failure(1, 1), Status::WorkerDied { .. }));
}

#[test]
fn a_way_that_cannot_load_gives_way_to_the_next_and_is_not_tried_again() {
    let mut play = Play::new(&[two_ways("m")]);
    play.connect(1);
    play.ask(1, 1, infer("m"));
    let (worker, _) = play.begin_load();
    let operators = vec!["QMoE".to_owned()];
    play.refuse_load(
        worker,
        no(),
        Some(Rejection::UnsupportedOperators { operators }),
    );
    let second = play.load();
    let job = play.started(second)[0].job;
    play.finish(second, job);
    let receipt = play.done(1, 1).receipt;
    assert_eq!(receipt.backend, "tract");
    assert_eq!(receipt.rejected[0].reason.code, "unsupported_operators");
    assert_eq!(receipt.rejected[0].reason.fields["operators"], "QMoE");
    play.die(worker);

    play.ask(1, 2, explain("m"));
    let Reply::Explanation(explanation) = play.answer(1, 2) else {
        panic!("an explanation")
    };
    assert_eq!(explanation.chosen.expect("tract is there").backend, "tract");
    assert_eq!(explanation.placement[0].nodes, 3);
    assert!(
        explanation.notes[0].contains("QMoE"),
        "{:?}",
        explanation.notes
    );
    assert!(play.spawned.is_empty());
}

#[test]
fn a_model_at_fault_fails_all_who_wait_and_no_other_way_is_tried() {
    let mut play = Play::new(&[two_ways("m")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, infer("m"));
    play.ask(
        2,
        1,
        Request::Load {
            model: "m".into(),
            options: options(),
        },
    );
    let (worker, _) = play.begin_load();
    let corrupt = Status::ModelCorrupt {
        file: "m.onnx".into(),
        why: "altered".into(),
    };
    play.refuse_load(worker, corrupt.clone(), None);
    assert_eq!(play.failure(1, 1), corrupt);
    assert_eq!(play.failure(2, 1), corrupt);
    play.die(worker);
    assert!(play.spawned.is_empty());
}

#[test]
fn without_any_way_the_refusal_names_all_reasons() {
    let mut play = Play::new(&[two_ways("m")]);
    play.connect(1);
    let require = WorkOptions {
        require_provider: Some("CUDA".into()),
        ..options()
    };
    play.ask(1, 1, generate_with("m", require));
    let Status::NoBackend { rejected } = play.failure(1, 1) else {
        panic!("no backend")
    };
    let codes: Vec<_> = rejected.iter().map(|r| r.reason.code.as_str()).collect();
    assert_eq!(codes, ["not_required", "not_required"]);
}

#[test]
fn a_candidate_that_dies_at_every_load_backs_off_and_is_put_aside() {
    let mut play = Play::new(&[two_ways("m")]);
    play.connect(1);
    play.ask(1, 1, infer("m"));
    for crash in 1..=CRASHES_MAX {
        let (worker, load) = play.begin_load();
        assert!(String::from_utf8_lossy(&load.candidate_json).contains("onnxruntime"));
        play.die(worker);
        let waits = play.spawned.is_empty();
        assert_eq!(waits, (2..CRASHES_MAX).contains(&crash), "crash {crash}");
        play.pass(PAUSE_MS);
    }
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    let receipt = play.done(1, 1).receipt;
    assert_eq!((receipt.backend.as_str(), receipt.retries), ("tract", 0));
    assert_eq!(receipt.rejected[0].reason.code, "quarantined");
    play.ask(1, 2, explain("m"));
    let Reply::Explanation(explanation) = play.answer(1, 2) else {
        panic!("an explanation")
    };
    assert!(
        explanation.notes[0].contains("crashed 4 times"),
        "{:?}",
        explanation.notes
    );
    // Rescanning forgives.
    play.ask(1, 3, Request::Rescan);
    let catalogue = catalogue(&[two_ways("m")]);
    play.event(Event::Rescanned {
        catalogue,
        flavours: flavours(),
    });
    play.answer(1, 3);
    play.ask(1, 4, explain("m"));
    let Reply::Explanation(explanation) = play.answer(1, 4) else {
        panic!("an explanation")
    };
    assert_eq!(explanation.chosen.expect("forgiven").backend, "onnxruntime");
}

#[test]
fn silence_and_nonsense_are_deaths() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, infer("m"));
    // It never says hello.
    let mute = play.spawned.pop_front().expect("a worker");
    play.event(Event::WorkerStarted {
        worker: WorkerId(mute),
        pid: 5,
    });
    play.pass(HANDSHAKE_MS);
    assert!(play.killed.contains(&mute));
    play.die(mute);
    // It loads for ever.
    let (hung, _) = play.begin_load();
    play.pass(LOAD_SILENCE_MS_MAX);
    assert!(play.killed.contains(&hung));
    play.die(hung);
    // It speaks out of turn.
    play.pass(PAUSE_MS);
    let (mad, _) = play.begin_load();
    play.worker(
        mad,
        WorkerEvent::Hello {
            build_id: moted::BUILD_ID.into(),
            pid: 1,
        },
    );
    assert!(play.killed.contains(&mad));
    play.die(mad);
    assert!(play.is_open(1, 1));
    let report = play.status(1, 2);
    assert_eq!(
        report.reserved_bytes, MIB,
        "one worker's worth, for the next try"
    );
}

#[test]
fn a_worker_of_another_build_is_refused() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, infer("m"));
    let worker = play.spawned.pop_front().expect("a worker");
    play.worker(
        worker,
        WorkerEvent::Hello {
            build_id: "other".into(),
            pid: 1,
        },
    );
    assert!(matches!(play.failure(1, 1), Status::Internal { .. }));
    assert!(play.killed.contains(&worker));
    play.die(worker);
    assert!(play.spawned.is_empty());
}

#[test]
fn a_worker_that_cannot_be_started_fails_those_who_wait() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, infer("m"));
    let worker = WorkerId(play.spawned.pop_front().expect("a worker"));
    play.event(Event::WorkerUnstartable {
        worker,
        cause: "no such file".into(),
    });
    let Status::Internal { cause, .. } = play.failure(1, 1) else {
        panic!("internal")
    };
    assert_eq!(cause, "no such file");
    assert_eq!(play.status(1, 2).reserved_bytes, 0);
}

#[test]
fn jobs_that_had_not_begun_lose_nothing_by_a_death() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    for request in 1..=3 {
        play.ask(1, request, generate("m"));
    }
    let worker = play.load();
    assert_eq!(play.started(worker).len(), 2);
    play.die(worker);
    let fresh = play.load();
    let mut order = Vec::new();
    let mut running = std::collections::VecDeque::new();
    loop {
        running.extend(play.started(fresh).into_iter().map(|start| start.job));
        let Some(job) = running.pop_front() else {
            break;
        };
        order.push(job);
        play.finish(fresh, job);
    }
    assert!(order.is_sorted() && order.len() == 3, "{order:?}");
    let retries: Vec<u32> = (1..=3)
        .map(|request| play.done(1, request).receipt.retries)
        .collect();
    assert_eq!(retries, [1, 1, 0]);
}

#[test]
fn a_job_that_is_halted_is_not_taken_for_a_device_that_hangs() {
    let mut play = Play::new(&[two_ways("m")]);
    play.found = with_npu;
    play.connect(1);
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    let halt = |play: &mut Play, request, paused| {
        play.ask(1, request, Request::Pause { target: 1, paused });
        assert!(matches!(play.answer(1, request), Reply::Ok));
    };
    halt(&mut play, 2, true);
    // The step that was under way ends after the order, and its client gives credit meanwhile.
    play.say(worker, job, token(0));
    play.ask(
        1,
        3,
        Request::Credit {
            target: 1,
            frames: 1,
        },
    );
    play.pass(2 * STEP_LIMIT_MS);
    assert!(play.killed.is_empty(), "it has nothing to do");
    halt(&mut play, 4, false);
    play.pass(2 * STEP_LIMIT_MS);
    assert!(play.killed.contains(&worker), "it is to go on and does not");
}
