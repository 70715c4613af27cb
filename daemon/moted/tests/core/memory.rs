//! The budget, evictions, pins, unloading.

use crate::harness::*;
use mote_api::{BackendKind, GenerationSpec, TextSpec};
use mote_wire::types::{Command, Reply, Request, Status};
use moted::catalogue::{Catalogue, Found};
use moted::core::Event;
use moted::limits::WORKERS_MAX;

fn big(name: &'static str) -> Model {
    Model {
        memory_bytes: 60 * MIB,
        ..model(name)
    }
}

fn run(play: &mut Play, connection: u64, request: u64, name: &str) -> u64 {
    play.ask(connection, request, infer(name));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    play.done(connection, request);
    worker
}

#[test]
fn an_idle_model_makes_room_and_its_memory_is_used_only_when_it_is_gone() {
    let mut play = Play::new(&[big("a"), big("b")]);
    play.connect(1);
    let first = run(&mut play, 1, 1, "a");
    play.ask(1, 2, infer("b"));
    assert!(matches!(play.commands(first)[..], [Command::Shutdown]));
    assert!(play.spawned.is_empty(), "its memory is not free yet");
    assert_eq!(play.status(1, 9).reserved_bytes, 60 * MIB);
    play.die(first);
    let second = play.load();
    let job = play.started(second)[0].job;
    play.finish(second, job);
    play.done(1, 2);
    assert_eq!(play.status(1, 10).reserved_bytes, 60 * MIB);
}

#[test]
fn a_device_with_memory_of_its_own_is_counted_apart() {
    let on_npu = |name| Model {
        backends: vec![BackendKind::OnnxRuntime],
        ..big(name)
    };
    let models = [on_npu("a"), on_npu("b"), big("c")];
    let mut play = Play::with(&models, flavours(), |settings| {
        settings.budget_bytes = 70 * MIB;
        settings.device_memory.insert("npu".into(), 100 * MIB);
    });
    play.found = with_npu;
    play.connect(1);
    let on_device = run(&mut play, 1, 1, "a");
    assert_eq!(play.status(1, 9).reserved_bytes, 0, "of the machine's");
    let beside = run(&mut play, 1, 2, "c");
    assert_eq!(play.status(1, 10).reserved_bytes, 60 * MIB);
    // The device has no room for two; the machine's models are not asked to leave for it.
    play.ask(1, 3, infer("b"));
    assert!(matches!(play.commands(on_device)[..], [Command::Shutdown]));
    assert!(play.commands(beside).is_empty());
    assert!(
        play.spawned.is_empty(),
        "the device's memory is not free yet"
    );
    play.die(on_device);
    let (_, load) = play.begin_load();
    let candidate = String::from_utf8(load.candidate_json).expect("text");
    assert!(candidate.contains("\"Npu\""), "{candidate}");
}

/// Caches take a share of the memory that the model computes in, whatever the machine has beside.
#[test]
fn caches_of_a_text_model_are_measured_by_their_devices_memory() {
    let over = || {
        let mut entry = entry(&Model {
            backends: vec![BackendKind::OnnxRuntime],
            ..big("a")
        });
        entry.manifest.text = Some(TextSpec {
            tokenizer: "tokenizer.json".into(),
            chat_template: None,
            context_tokens: 1 << 20,
            vocab: 8,
            layers: 32,
            kv_heads: 8,
            head_dim: 128,
            bos_token_id: None,
            eos_token_ids: vec![1],
            reasoning: None,
            moe: None,
        });
        Catalogue::new([("a".to_owned(), Found::Model(Box::new(entry)))])
    };
    for (device, share_bytes) in [(true, 12 * MIB), (false, 12_000 * MIB)] {
        let mut play = Play::with(&[], flavours(), |settings| {
            settings.budget_bytes = 100_000 * MIB;
            if device {
                settings.device_memory.insert("npu".into(), 100 * MIB);
            }
        });
        play.found = with_npu;
        play.event(Event::Rescanned {
            catalogue: over(),
            flavours: flavours(),
        });
        play.connect(1);
        play.ask(1, 1, infer("a"));
        let (_, load) = play.begin_load();
        assert_eq!(load.cache_bytes_max, share_bytes);
    }
}

#[test]
fn clips_on_their_way_have_a_share_beside_their_model() {
    let mut entry = entry(&Model {
        memory_bytes: MIB,
        ..big("a")
    });
    let sized = |side: u32, frames| GenerationSpec {
        width: Some(side),
        height: Some(side),
        frames: Some(frames),
        ..GenerationSpec::default()
    };
    for (budget, generation, share_bytes) in [
        (1000 * MIB, GenerationSpec::default(), 250 * MIB),
        (1 << 40, GenerationSpec::default(), 8 << 30),
        (1 << 40, sized(64, 17), 256 * MIB),
        (1 << 40, sized(512, 16), 16 * 48 * MIB),
        (1 << 40, sized(16_384, 100_000), 8 << 30),
        (100 * MIB, sized(64, 17), 25 * MIB),
    ] {
        entry.manifest.generation = Some(generation);
        let mut play = Play::with(&[], flavours(), |settings| settings.budget_bytes = budget);
        let found = Found::Model(Box::new(entry.clone()));
        play.event(Event::Rescanned {
            catalogue: Catalogue::new([("a".to_owned(), found)]),
            flavours: flavours(),
        });
        play.connect(1);
        play.ask(1, 1, infer("a"));
        let (_, load) = play.begin_load();
        assert_eq!(load.cache_bytes_max, share_bytes);
    }
}

#[test]
fn what_is_in_use_or_pinned_is_not_evicted() {
    let mut play = Play::new(&[big("a"), big("b")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, infer("a"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    let over = |status| {
        matches!(status, Status::OverBudget { need_bytes, have_bytes, .. }
        if need_bytes == 60 * MIB && have_bytes == 40 * MIB)
    };
    play.ask(2, 1, infer("b"));
    assert!(over(play.failure(2, 1)), "a job runs");
    play.finish(worker, job);
    play.ask(
        1,
        2,
        Request::Pin {
            model: "a".into(),
            pinned: true,
        },
    );
    play.ask(2, 2, infer("b"));
    assert!(over(play.failure(2, 2)), "it is pinned");
    play.disconnect(1);
    play.ask(2, 3, infer("b"));
    assert!(play.is_open(2, 3), "the pin went with its connection");
    play.die(worker);
    play.load();
}

#[test]
fn what_can_never_fit_is_refused_before_anything_is_evicted() {
    let mut play = Play::with_budget(&[big("a"), model("small")], 50 * MIB);
    play.connect(1);
    let small = run(&mut play, 1, 1, "small");
    play.ask(1, 2, infer("a"));
    assert!(matches!(play.failure(1, 2), Status::OverBudget { .. }));
    assert!(play.commands(small).is_empty());
}

#[test]
fn a_load_that_nobody_waits_for_any_more_leaves_the_line_for_memory() {
    let mut play = Play::new(&[big("a"), big("b"), big("c")]);
    play.connect(1);
    let first = run(&mut play, 1, 1, "a");
    play.ask(1, 2, infer("b"));
    play.ask(1, 3, Request::Cancel { target: 2 });
    assert_eq!(play.failure(1, 2), Status::Cancelled);
    play.ask(1, 4, infer("c"));
    play.die(first);
    let (worker, load) = play.begin_load();
    assert!(String::from_utf8_lossy(&load.manifest_json).contains("\"c\""));
    play.loaded(worker);
    assert!(play.spawned.is_empty());
}

#[test]
fn an_unused_model_is_unloaded_and_then_nothing_wakes_the_broker() {
    let mut play = Play::new(&[model("m")]);
    assert_eq!(play.core.next_due(), None);
    play.connect(1);
    let worker = run(&mut play, 1, 1, "m");
    play.pass(599_000);
    play.ask(1, 2, infer("m"));
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    play.pass(599_000);
    assert!(play.commands(worker).is_empty(), "it was used meanwhile");
    play.ask(
        1,
        3,
        Request::Pin {
            model: "m".into(),
            pinned: true,
        },
    );
    assert_eq!(play.core.next_due(), None, "a pinned model needs no timer");
    play.ask(
        1,
        4,
        Request::Pin {
            model: "m".into(),
            pinned: false,
        },
    );
    play.pass(600_000);
    assert!(matches!(play.commands(worker)[..], [Command::Shutdown]));
    play.pass(5_000);
    assert!(play.killed.contains(&worker), "it did not leave by itself");
    play.die(worker);
    assert_eq!(play.core.next_due(), None);
    assert_eq!(play.status(1, 5).workers.len(), 0);
}

#[test]
fn unload_waits_for_the_end_and_refuses_what_is_in_use() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, Request::Unload { model: "m".into() });
    assert!(matches!(play.answer(1, 1), Reply::Ok), "it is not loaded");
    play.ask(1, 2, infer("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.ask(2, 1, Request::Unload { model: "m".into() });
    assert!(matches!(play.failure(2, 1), Status::Busy { .. }));
    play.finish(worker, job);
    play.ask(
        1,
        3,
        Request::Pin {
            model: "m".into(),
            pinned: true,
        },
    );
    play.ask(2, 2, Request::Unload { model: "m".into() });
    assert!(
        matches!(play.failure(2, 2), Status::Invalid { .. }),
        "another has pinned it"
    );
    play.ask(1, 4, Request::Unload { model: "m".into() });
    assert!(play.is_open(1, 4));
    play.die(worker);
    assert!(matches!(play.answer(1, 4), Reply::Ok));
    play.ask(
        1,
        5,
        Request::Unload {
            model: "nothing".into(),
        },
    );
    assert!(matches!(play.failure(1, 5), Status::ModelNotFound { .. }));
}

#[test]
fn a_model_that_has_left_the_catalogue_is_not_kept() {
    let mut play = Play::new(&[model("m"), model("n")]);
    play.connect(1);
    let worker = run(&mut play, 1, 1, "m");
    play.ask(1, 2, Request::Rescan);
    play.ask(1, 3, Request::Rescan);
    assert_eq!(play.rescans, 1);
    let (catalogue, flavours) = (catalogue(&[model("n")]), flavours());
    play.event(Event::Rescanned {
        catalogue: catalogue.clone(),
        flavours: flavours.clone(),
    });
    assert!(matches!(play.answer(1, 2), Reply::Ok));
    assert!(play.is_open(1, 3), "what it knows of may have come later");
    assert_eq!(play.rescans, 2);
    play.event(Event::Rescanned {
        catalogue,
        flavours,
    });
    assert!(matches!(play.answer(1, 3), Reply::Ok));
    assert!(matches!(play.commands(worker)[..], [Command::Shutdown]));
    play.ask(1, 4, infer("m"));
    assert!(matches!(play.failure(1, 4), Status::ModelNotFound { .. }));
}

#[test]
fn a_limit_of_threads_gets_a_worker_of_its_own() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    run(&mut play, 1, 1, "m");
    let mut limited = options();
    limited.threads_max = Some(2);
    play.ask(1, 2, generate_with("m", limited));
    let (_, load) = play.begin_load();
    assert_eq!((load.threads, load.threads_follow_load), (2, false));
}

#[test]
fn workers_are_limited_in_number_and_idle_ones_make_room() {
    const NAMES: [&str; 34] = [
        "m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11", "m12", "m13",
        "m14", "m15", "m16", "m17", "m18", "m19", "m20", "m21", "m22", "m23", "m24", "m25", "m26",
        "m27", "m28", "m29", "m30", "m31", "m32", "m33",
    ];
    let models: Vec<Model> = NAMES.into_iter().map(model).collect();
    let mut play = Play::new(&models);
    play.connect(1);
    let mut workers = Vec::new();
    for (request, name) in (1..).zip(&NAMES[..WORKERS_MAX]) {
        play.ask(1, request, infer(name));
        let worker = play.load();
        workers.push((worker, play.started(worker).first().map(|start| start.job)));
    }
    play.ask(1, 100, infer("m33"));
    assert!(
        matches!(play.failure(1, 100), Status::Busy { .. }),
        "all are at work"
    );
    let (worker, job) = workers
        .iter()
        .find(|(_, job)| job.is_some())
        .expect("some run");
    play.finish(*worker, job.expect("it runs"));
    play.ask(1, 101, infer("m33"));
    assert!(matches!(
        play.commands(*worker).last(),
        Some(Command::Shutdown)
    ));
    assert!(play.is_open(1, 101));
}
