//! Reports, watches, load, shutting down.

use crate::harness::*;
use mote_api::{Absence, BackendKind, Candidate, Capability, DeviceInfo, DeviceKind, Flavour};
use mote_wire::limits::CREDIT_MAX;
use mote_wire::types::{Command, EventKind, OpenStream, Reply, Request, Status, WorkOptions};
use moted::core::Event;
use moted::limits::LOAD_SAMPLE_MS;
use moted::policy::load::Sample;
use std::collections::BTreeMap;
use std::time::Duration;

fn events(replies: &[Reply]) -> Vec<&EventKind> {
    let kinds = replies.iter().filter_map(|reply| match reply {
        Reply::Event(event) => Some(&event.kind),
        _ => None,
    });
    kinds.collect()
}

#[test]
fn models_are_listed_with_what_is_known_of_them() {
    let mut play = Play::new(&[model("b"), two_ways("a")]);
    play.connect(1);
    play.ask(1, 1, infer("b"));
    play.load();
    play.ask(
        1,
        2,
        Request::Pin {
            model: "b".into(),
            pinned: true,
        },
    );
    play.ask(1, 3, Request::ListModels);
    let Reply::ModelList(models) = play.answer(1, 3) else {
        panic!("a list")
    };
    let told: Vec<_> = models
        .iter()
        .map(|m| (m.name.as_str(), m.loaded, m.pinned))
        .collect();
    assert_eq!(told, [("a", false, false), ("b", true, true)]);
    assert_eq!(models[0].variants.len(), 2);
}

/// What a probe finds where a vendor brings a simulator of its device.
fn with_simulator(flavour: &Flavour) -> Vec<Capability> {
    let mut found = with_npu(flavour);
    for one in found.iter_mut().filter(|one| one.provider == "Npu") {
        one.device = Some(DeviceInfo {
            id: "cpu".into(),
            kind: DeviceKind::Cpu,
            name: "simulated NPU".into(),
            simulated: true,
        });
    }
    found
}

#[test]
fn a_simulated_device_is_told_to_be_one_and_ranked_as_the_processor() {
    let mut play = Play::new(&[two_ways("m")]);
    play.found = with_simulator;
    play.connect(1);
    play.ask(1, 1, Request::ListDevices { refresh: false });
    let Reply::DeviceList(devices) = play.answer(1, 1) else {
        panic!("a list")
    };
    let is_simulated = |one: &&mote_wire::types::Capability| {
        one.device.as_ref().is_some_and(|device| device.simulated)
    };
    let simulated: Vec<_> = devices.iter().filter(is_simulated).collect();
    assert_eq!((simulated.len(), &*simulated[0].provider), (1, "Npu"));
    play.ask(1, 2, infer("m"));
    let (_, load) = play.begin_load();
    let candidate: Candidate = serde_json::from_slice(&load.candidate_json).expect("plain");
    assert_eq!(candidate.provider, "CPUExecutionProvider");
}

#[test]
fn devices_are_probed_when_asked_for_and_anew_when_told_to() {
    let mut play = Play::new(&[]);
    play.hold_probes = true;
    play.connect(1);
    play.ask(1, 1, Request::ListDevices { refresh: false });
    assert!(play.is_open(1, 1));
    play.probe();
    let Reply::DeviceList(devices) = play.answer(1, 1) else {
        panic!("a list")
    };
    assert_eq!(devices.len(), 2);
    play.ask(1, 2, Request::ListDevices { refresh: false });
    assert!(!play.is_open(1, 2), "all is known");
    play.ask(1, 3, Request::ListDevices { refresh: true });
    assert_eq!(play.rescans, 1);
    let mut found = flavours();
    found.installed.remove(0);
    let absence = Absence::NotFetched {
        flavour: "onnxruntime-cpu".into(),
    };
    let backend = BackendKind::OnnxRuntime;
    found.absent = vec![moted::flavours::absent("onnxruntime-cpu", backend, absence)];
    play.event(Event::Rescanned {
        catalogue: catalogue(&[]),
        flavours: found,
    });
    assert!(play.is_open(1, 3), "probed anew");
    play.probe();
    let Reply::DeviceList(devices) = play.answer(1, 3) else {
        panic!("a list")
    };
    let reasons: Vec<_> = devices
        .iter()
        .map(|d| d.absence.as_ref().map(|reason| reason.code.as_str()))
        .collect();
    assert_eq!(reasons, [None, Some("not_fetched")]);
}

#[test]
fn work_waits_for_probes_and_can_be_cancelled_meanwhile() {
    let mut play = Play::new(&[model("m")]);
    play.hold_probes = true;
    play.connect(1);
    play.ask(1, 1, infer("m"));
    play.ask(
        1,
        2,
        Request::Explain {
            model: "m".into(),
            options: WorkOptions::default(),
            measure: false,
        },
    );
    play.ask(1, 3, infer("m"));
    play.ask(1, 4, Request::Cancel { target: 1 });
    play.ask(1, 5, Request::Cancel { target: 2 });
    assert_eq!(play.failure(1, 1), Status::Cancelled);
    assert_eq!(play.failure(1, 2), Status::Cancelled);
    play.probe();
    let worker = play.load();
    assert_eq!(play.started(worker).len(), 1);
    assert!(play.take(1, 2).is_empty());
}

#[test]
fn inspecting_loads_only_when_told_to() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(
        1,
        1,
        Request::InspectModel {
            model: "m".into(),
            load: false,
        },
    );
    assert!(matches!(play.answer(1, 1), Reply::ModelDetails(_)));
    assert!(play.spawned.is_empty());
    play.ask(
        1,
        2,
        Request::InspectModel {
            model: "m".into(),
            load: true,
        },
    );
    play.load();
    let Reply::ModelDetails(details) = play.answer(1, 2) else {
        panic!("details")
    };
    assert!(details.model.loaded);
    play.ask(
        1,
        3,
        Request::InspectModel {
            model: "mm".into(),
            load: true,
        },
    );
    let Status::ModelNotFound { similar, .. } = play.failure(1, 3) else {
        panic!("not found")
    };
    assert_eq!(similar, ["m"]);
    play.ask(
        1,
        4,
        Request::Load {
            model: "m".into(),
            options: options(),
        },
    );
    assert!(matches!(play.answer(1, 4), Reply::Ok));
}

#[test]
fn a_watch_costs_credit_and_counts_what_it_missed() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, Request::Watch);
    play.ask(2, 1, infer("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    play.done(2, 1);
    let seen = play.take(1, 1);
    let kinds = events(&seen);
    assert!(
        matches!(
            kinds[..],
            [
                EventKind::WorkerStarted { .. },
                EventKind::ModelLoaded { load_us: 5_000, .. },
                EventKind::JobStarted { .. },
                EventKind::JobEnded { .. },
            ]
        ),
        "{kinds:?}"
    );
    assert!(matches!(kinds[3], EventKind::JobEnded { outcome, .. } if outcome == "ok"));
    let rounds = u64::from(CREDIT_MAX / 2);
    for request in 10..10 + rounds {
        play.ask(2, request, infer("m"));
        let job = play.started(worker)[0].job;
        play.finish(worker, job);
        play.done(2, request);
    }
    assert_eq!(play.take(1, 1).len(), CREDIT_MAX as usize - 4);
    play.ask(
        1,
        2,
        Request::Credit {
            target: 1,
            frames: 5,
        },
    );
    let missed = play.take(1, 1);
    assert!(
        matches!(events(&missed)[..], [EventKind::EventsDropped { count: 4 }]),
        "{missed:?}"
    );
    play.ask(1, 3, Request::Watch);
    assert!(
        matches!(play.failure(1, 3), Status::Invalid { .. }),
        "one watch is enough"
    );
    play.ask(1, 4, Request::Cancel { target: 1 });
    assert_eq!(play.failure(1, 1), Status::Cancelled);
    play.die(worker);
    assert!(play.take(1, 1).is_empty());
}

#[test]
fn a_number_in_use_ends_the_connection_and_touches_no_other_answer() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, infer("m"));
    play.ask(2, 1, infer("m"));
    play.take(1, 1);
    play.ask(1, 1, Request::ListModels);
    assert!(matches!(play.failure(1, 0), Status::Invalid { field, .. } if field == "request_id"));
    assert!(play.closed.contains(&1));
    assert!(play.take(1, 1).is_empty());
    let worker = play.load();
    assert_eq!(
        play.started(worker).len(),
        1,
        "the other client's job goes on"
    );
}

#[test]
fn workers_follow_the_load_of_the_machine() {
    let mut play = Play::new(&[model("m"), model("n")]);
    play.connect(1);
    assert_eq!(play.samples, 0);
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    assert_eq!(play.samples, 1, "something to compare with");
    let mut half_seconds = 0;
    let mut sample = |play: &mut Play, cores: f64| {
        half_seconds += 1;
        play.pass(LOAD_SAMPLE_MS);
        let (at, busy_seconds) = (play.now, f64::from(half_seconds) * 0.5 * cores);
        let sample = Sample {
            at,
            busy_seconds,
            ours_seconds: BTreeMap::new(),
        };
        play.event(Event::LoadSampled(Some(sample)));
    };
    for _ in 0..3 {
        sample(&mut play, 1.0);
    }
    assert!(matches!(
        play.commands(worker)[..],
        [Command::SetLoad {
            busy: true,
            threads_max: None
        }]
    ));
    assert_eq!(play.status(1, 2).machine_load, "busy");
    play.ask(1, 3, generate("n"));
    let (_, load) = play.begin_load();
    assert!(!load.spin, "threads of a busy machine do not spin");
    play.finish(worker, job);
    assert!(play.samples >= 3);
}

#[test]
fn samples_are_taken_only_while_something_computes() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.pass(10 * LOAD_SAMPLE_MS);
    assert!(play.samples > 5, "{}", play.samples);
    play.finish(worker, job);
    let samples = play.samples;
    play.pass(100 * LOAD_SAMPLE_MS);
    assert!(
        play.samples <= samples + 1,
        "the half second it ran in may be looked at"
    );
    // A small job now and then pays for no look of its own.
    let samples = play.samples;
    for request in 10..60 {
        play.ask(1, request, infer("m"));
        let job = play.started(worker)[0].job;
        play.finish(worker, job);
        play.pass(LOAD_SAMPLE_MS / 50);
    }
    assert!(
        play.samples <= samples + 2,
        "{} for 50 jobs",
        play.samples - samples
    );
}

#[test]
fn shutting_down_tells_everyone_and_waits_for_the_workers() {
    let mut play = Play::new(&[model("m"), model("n")]);
    for connection in [1, 2] {
        play.connect(connection);
        play.ask(connection, 1, generate("m"));
    }
    let worker = play.load();
    play.ask(1, 2, Request::Watch);
    play.ask(
        2,
        2,
        Request::Load {
            model: "n".into(),
            options: options(),
        },
    );
    let (loading, _) = play.begin_load();
    play.event(Event::Shutdown);
    for (connection, request) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        assert_eq!(play.failure(connection, request), Status::ShuttingDown);
    }
    assert_eq!(play.closed.len(), 2);
    assert!(play.killed.contains(&loading));
    assert!(matches!(
        play.commands(worker).last(),
        Some(Command::Shutdown)
    ));
    assert!(!play.core.is_over());
    play.pass(5_000);
    assert!(play.killed.contains(&worker), "it did not leave by itself");
    play.die(worker);
    play.die(loading);
    assert!(play.core.is_over());
    assert_eq!(play.core.next_due(), None);
    play.connect(3);
    assert!(play.closed.contains(&3));
}

#[test]
fn draining_lets_what_runs_end_and_nothing_else_begin() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.ask(2, 1, Request::Watch);
    play.ask(
        2,
        2,
        Request::OpenStream(OpenStream {
            model: "m".into(),
            options: options(),
        }),
    );
    assert!(matches!(play.answer(2, 2), Reply::StreamOpened(_)));
    let limit = Duration::from_secs(30);
    play.event(Event::Drain { limit });
    assert_eq!(play.ended_streams.len(), 1);
    play.ask(2, 3, generate("m"));
    assert_eq!(play.failure(2, 3), Status::ShuttingDown);
    play.connect(3);
    assert!(play.closed.contains(&3));
    // What runs is heard, and its client as well.
    play.say(worker, job, token(0));
    play.ask(1, 2, Request::Cancel { target: 7 });
    assert_eq!(tokens(&play.take(1, 1)), [100]);
    let answers = play.take(1, 2);
    assert!(matches!(answers[..], [Reply::Ok]), "{answers:?}");
    assert!(play.is_open(1, 1) && play.is_open(2, 1));
    play.finish(worker, job);
    assert!(matches!(play.take(1, 1).last(), Some(Reply::Done(_))));
    assert_eq!(play.failure(2, 1), Status::ShuttingDown);
    assert!(matches!(
        play.commands(worker).last(),
        Some(Command::Shutdown)
    ));
    play.die(worker);
    assert!(play.core.is_over());
}

#[test]
fn draining_ends_when_its_time_is_up_or_nothing_runs() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    play.started(worker);
    let limit = Duration::from_secs(30);
    play.event(Event::Drain { limit });
    play.pass(29_000);
    assert!(play.is_open(1, 1));
    play.pass(1_001);
    assert_eq!(play.failure(1, 1), Status::ShuttingDown);
    play.die(worker);
    assert!(play.core.is_over());

    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, generate("m"));
    let (worker, _) = play.begin_load();
    play.event(Event::Drain { limit });
    assert_eq!(
        play.failure(1, 1),
        Status::ShuttingDown,
        "it did not run yet"
    );
    play.die(worker);
    assert!(play.core.is_over());
}

#[test]
fn a_reload_is_told_when_what_it_asked_for_was_read() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, Request::Rescan);
    play.event(Event::Reload);
    assert_eq!(play.rescans, 1);
    let rescanned = || Event::Rescanned {
        catalogue: catalogue(&[model("m")]),
        flavours: flavours(),
    };
    play.event(rescanned());
    assert_eq!(
        (play.rescans, play.reloads),
        (2, 0),
        "this one began before"
    );
    play.event(rescanned());
    assert_eq!((play.rescans, play.reloads), (2, 1));
}
