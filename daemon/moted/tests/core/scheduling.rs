//! Jobs: their way through, priorities, credit, cancel, deadlines.

use crate::harness::*;
use mote_api::Task;
use mote_wire::types::{
    Command, DType, Embeddings, JobReply, Preview, Priority, Progress, Reply, Request, Stage,
    Status, Tensor, TensorData, WorkOptions,
};
use moted::catalogue::{Catalogue, Found, Verified};
use moted::core::Event;
use moted::limits::{CANCEL_GRACE_MS, JOBS_QUEUED_MAX, RUNNING_PER_DEVICE};

fn urgent(priority: Priority) -> WorkOptions {
    WorkOptions {
        priority,
        ..options()
    }
}

fn embedding(name: &'static str) -> Model {
    Model {
        task: Task::Embedding,
        ..model(name)
    }
}

#[test]
fn a_job_is_probed_for_loaded_run_and_receipted() {
    let mut play = Play::new(&[two_ways("m")]);
    play.connect(1);
    play.ask(1, 5, generate("m"));
    assert!(matches!(
        play.take(1, 5)[..],
        [Reply::Accepted { queue_position: 0 }]
    ));
    assert_eq!(play.probed, ["onnxruntime-cpu", "tract"]);
    play.pass(7);
    let (worker, load) = play.begin_load();
    assert_eq!(
        (load.threads, load.spin, load.threads_follow_load),
        (4, true, true)
    );
    assert!(!load.verify_digests, "there are no digests to verify");
    let progress = Progress {
        stage: Stage::Loading,
        done: 1,
        total: None,
        remaining_ms: None,
    };
    play.worker(
        worker,
        mote_wire::types::WorkerEvent::LoadProgress(progress),
    );
    assert!(matches!(play.take(1, 5)[..], [Reply::Progress(_)]));
    play.pass(3);
    play.loaded(worker);
    let [start] = &play.started(worker)[..] else {
        panic!("one job")
    };
    assert_eq!((start.credit, start.resume.len()), (256, 0));
    let job = start.job;
    play.say(worker, job, token(0));
    play.say(worker, job, token(1));
    assert_eq!(tokens(&play.take(1, 5)), [100, 101]);
    play.pass(20);
    play.finish(worker, job);
    let receipt = play.done(1, 5).receipt;
    assert_eq!(receipt.model, "m");
    assert_eq!(receipt.model_digest, "digest of m");
    assert_eq!(
        (receipt.backend.as_str(), receipt.flavour.as_str()),
        ("onnxruntime", "onnxruntime-cpu")
    );
    assert_eq!(
        (receipt.device.id.as_str(), receipt.precision.as_str()),
        ("cpu", "f32")
    );
    assert_eq!(receipt.library_version, "1.0");
    assert_eq!(
        (receipt.placement[0].nodes, receipt.placement_read_back),
        (3, true)
    );
    assert_eq!(
        (receipt.load_us, receipt.queue_us, receipt.total_us),
        (10_000, 0, 30_000)
    );
    assert_eq!(
        (receipt.retries, receipt.preemptions, receipt.local),
        (0, 0, true)
    );
    // That tract comes second is no set-back; `explain` tells it.
    assert_eq!(receipt.rejected, []);
}

#[test]
fn a_loaded_model_serves_the_next_request_without_probe_or_load() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, infer("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    play.done(1, 1);
    let probes = play.probed.len();
    play.ask(2, 1, infer("m"));
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    let replies = play.take(2, 1);
    let [Reply::Done(done)] = &replies[..] else {
        panic!("it need not wait: {replies:?}")
    };
    assert_eq!(done.receipt.load_us, 0);
    assert_eq!((play.probed.len(), play.spawned.len()), (probes, 0));
}

#[test]
fn only_flavours_that_could_run_the_model_are_probed() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, infer("m"));
    assert_eq!(play.probed, ["tract"]);
}

#[test]
fn urgent_work_pauses_other_work_until_it_is_done() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, generate_with("m", urgent(Priority::Background)));
    let worker = play.load();
    let slow = play.started(worker)[0].job;
    play.ask(2, 1, generate_with("m", urgent(Priority::Interactive)));
    let commands = play.commands(worker);
    let [Command::PauseJob { job: paused }, Command::StartJob(start)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(*paused, slow);
    let fast = start.job;
    play.finish(worker, fast);
    assert!(matches!(play.commands(worker)[..], [Command::ResumeJob { job }] if job == slow));
    play.finish(worker, slow);
    assert_eq!(play.done(1, 1).receipt.preemptions, 1);
    assert_eq!(play.done(2, 1).receipt.preemptions, 0);
}

#[test]
fn equals_share_the_slots_and_the_rest_waits() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    for request in 1..=RUNNING_PER_DEVICE as u64 + 2 {
        play.ask(1, request, infer("m"));
    }
    let worker = play.load();
    let started = play.started(worker);
    assert_eq!(started.len(), RUNNING_PER_DEVICE);
    let report = play.status(1, 99);
    assert_eq!(
        (report.jobs_running, report.jobs_queued),
        (RUNNING_PER_DEVICE as u32, 2)
    );
    play.pass(4);
    play.finish(worker, started[0].job);
    assert_eq!(play.started(worker).len(), 1);
    play.finish(worker, started[1].job);
    let last = play.started(worker)[0].job;
    play.finish(worker, last);
    let queued = play.done(1, RUNNING_PER_DEVICE as u64 + 2).receipt.queue_us;
    assert_eq!(queued, 4_000);
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.connect(2);
    let frugal = WorkOptions {
        credit: 1,
        ..options()
    };
    play.ask(1, 1, generate_with("m", frugal.clone()));
    play.ask(1, 2, generate_with("m", frugal));
    let worker = play.load();
    let started = play.started(worker);
    assert_eq!(started[0].credit, 1);
    play.ask(2, 1, generate("m"));
    assert!(play.started(worker).is_empty());
    play.say(worker, started[0].job, token(0));
    let other = play.started(worker);
    assert_eq!(
        other.len(),
        1,
        "the first waits for its client and leaves its slot"
    );
    play.ask(
        1,
        3,
        Request::Credit {
            target: 1,
            frames: 10,
        },
    );
    assert!(matches!(play.answer(1, 3), Reply::Ok));
    let commands = play.commands(worker);
    assert!(
        matches!(commands[..], [Command::CreditJob { frames: 10, .. }]),
        "{commands:?}"
    );
}

#[test]
fn credit_never_exceeds_its_limit() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.ask(
        1,
        2,
        Request::Credit {
            target: 1,
            frames: 200,
        },
    );
    assert!(play.commands(worker).is_empty(), "it has all it may have");
    play.say(worker, job, token(0));
    play.ask(
        1,
        3,
        Request::Credit {
            target: 1,
            frames: 200,
        },
    );
    assert!(matches!(
        play.commands(worker)[..],
        [Command::CreditJob { frames: 1, .. }]
    ));
}

#[test]
fn a_cancel_takes_effect_in_every_phase() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    // While the model is being loaded.
    play.ask(1, 1, generate("m"));
    play.ask(1, 10, Request::Cancel { target: 1 });
    assert_eq!(play.failure(1, 1), Status::Cancelled);
    assert!(matches!(play.answer(1, 10), Reply::Ok));
    // Waiting for its turn.
    let worker = play.load();
    for request in 2..5 {
        play.ask(1, request, generate("m"));
    }
    let started = play.started(worker);
    play.ask(1, 11, Request::Cancel { target: 4 });
    assert_eq!(play.failure(1, 4), Status::Cancelled);
    assert!(
        play.commands(worker).is_empty(),
        "the worker knew nothing of it"
    );
    // Running: it ends when the worker says so.
    play.ask(1, 12, Request::Cancel { target: 2 });
    play.ask(1, 13, Request::Cancel { target: 2 });
    let commands = play.commands(worker);
    assert!(
        matches!(commands[..], [Command::CancelJob { .. }]),
        "{commands:?}"
    );
    assert!(play.is_open(1, 2));
    play.say(worker, started[0].job, JobReply::Failed(Status::Cancelled));
    assert_eq!(play.failure(1, 2), Status::Cancelled);
    // One that has ended already.
    play.ask(1, 14, Request::Cancel { target: 2 });
    assert!(matches!(play.answer(1, 14), Reply::Ok));
    // The other goes on.
    play.finish(worker, started[1].job);
    play.done(1, 3);
    assert!(play.killed.is_empty());
}

#[test]
fn a_worker_that_does_not_heed_a_cancel_is_killed_and_others_jobs_go_on() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.connect(2);
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    play.ask(2, 1, generate("m"));
    let started = play.started(worker);
    play.say(worker, started[1].job, token(0));
    play.ask(1, 2, Request::Cancel { target: 1 });
    play.pass(CANCEL_GRACE_MS - 1);
    assert!(play.killed.is_empty());
    play.pass(1);
    assert!(play.killed.contains(&worker));
    play.die(worker);
    assert_eq!(play.failure(1, 1), Status::Cancelled);
    let fresh = play.load();
    let again = play.started(fresh);
    assert_eq!(again[0].resume, [100]);
    play.finish(fresh, again[0].job);
    assert_eq!(play.done(2, 1).receipt.retries, 1);
}

#[test]
fn what_a_killed_worker_has_not_begun_goes_elsewhere_at_once() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    for request in 1..=3 {
        play.ask(1, request, generate("m"));
    }
    let worker = play.load();
    let started = play.started(worker);
    assert_eq!(started.len(), 2);
    play.ask(1, 4, Request::Cancel { target: 1 });
    play.pass(CANCEL_GRACE_MS);
    assert!(play.killed.contains(&worker));
    let fresh = play.load();
    assert!(play.started(fresh).is_empty(), "the slots are still taken");
    play.die(worker);
    assert_eq!(play.failure(1, 1), Status::Cancelled);
    let jobs: Vec<u64> = play.started(fresh).iter().map(|start| start.job).collect();
    assert_eq!(jobs.len(), 2);
    for job in jobs {
        play.finish(fresh, job);
    }
    let retries = [2, 3].map(|request| play.done(1, request).receipt.retries);
    assert_eq!(retries, [1, 0]);
    assert!(
        play.commands(worker)
            .iter()
            .all(|command| !matches!(command, Command::StartJob(_)))
    );
}

#[test]
fn deadlines_end_work_in_every_phase_and_leave_no_timer_behind() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    let hurried = WorkOptions {
        deadline_ms: Some(50),
        ..options()
    };
    let late = Status::DeadlineExceeded { deadline_ms: 50 };
    play.ask(1, 1, generate_with("m", hurried.clone()));
    play.ask(
        1,
        2,
        Request::Load {
            model: "m".into(),
            options: hurried.clone(),
        },
    );
    play.pass(49);
    assert!(play.is_open(1, 1) && play.is_open(1, 2));
    play.pass(1);
    assert_eq!(play.failure(1, 1), late);
    assert_eq!(play.failure(1, 2), late);
    let worker = play.load();
    play.ask(1, 3, generate_with("m", hurried.clone()));
    let job = play.started(worker)[0].job;
    play.pass(50);
    assert!(matches!(
        play.commands(worker)[..],
        [Command::CancelJob { .. }]
    ));
    play.say(worker, job, JobReply::Failed(Status::Cancelled));
    assert_eq!(play.failure(1, 3), late);
    play.ask(1, 4, generate_with("m", hurried));
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    play.done(1, 4);
    play.pass(1_000);
    assert!(
        play.commands(worker).is_empty(),
        "nothing is left to be cancelled"
    );
}

#[test]
fn too_many_waiting_jobs_are_refused_with_a_time() {
    let mut play = Play::new(&[model("m")]);
    let per_connection = 64;
    for connection in 1..=(JOBS_QUEUED_MAX as u64 / per_connection) {
        play.connect_as(connection, connection as u32);
        for request in 1..=per_connection {
            play.ask(connection, request, infer("m"));
            assert!(play.is_open(connection, request));
        }
    }
    play.connect(999);
    play.ask(999, 1, infer("m"));
    assert!(matches!(play.failure(999, 1), Status::Busy { retry_after_ms } if retry_after_ms > 0));
    play.ask(1, 65, infer("m"));
    assert!(matches!(
        play.failure(1, 65),
        Status::LimitExceeded { limit: 64, .. }
    ));
}

#[test]
fn a_new_run_says_again_what_the_client_has_and_the_client_hears_it_once() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    let preview = |frame_index| {
        JobReply::Preview(Preview {
            frame_index,
            width: 1,
            height: 1,
            png: vec![1],
        })
    };
    play.ask(1, 1, infer("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.say(worker, job, preview(0));
    play.say(worker, job, preview(4));
    play.die(worker);
    let fresh = play.load();
    let [start] = &play.started(fresh)[..] else {
        panic!("one job")
    };
    assert_eq!(
        start.credit,
        254 + 2,
        "what is said again costs the client nothing"
    );
    for frame in [0, 4, 8] {
        play.say(fresh, job, preview(frame));
    }
    play.finish(fresh, job);
    let frames: Vec<u64> = play
        .take(1, 1)
        .iter()
        .filter_map(|reply| match reply {
            Reply::Preview(preview) => Some(preview.frame_index),
            _ => None,
        })
        .collect();
    assert_eq!(frames, [0, 4, 8]);
}

#[test]
fn answers_for_jobs_that_have_ended_are_dropped() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.ask(1, 1, infer("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    play.done(1, 1);
    play.say(worker, job, token(0));
    play.finish(worker, job);
    play.say(worker, 4711, token(0));
    assert!(play.take(1, 1).is_empty());
}

#[test]
fn files_that_were_verified_before_a_restart_are_not_read_again_until_they_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("weights");
    std::fs::write(&file, "one").expect("writable");
    let over = || {
        let mut entry = entry(&model("m"));
        entry.folder = folder.path().into();
        let digest = mote_api::Digest::of(b"one");
        entry.manifest.files.insert("weights".into(), digest);
        Catalogue::new([("m".to_owned(), Found::Model(Box::new(entry)))])
    };
    let begin = |verified: Vec<Verified>| {
        let mut play = Play::new(&[]);
        play.core.recall_verified(verified);
        play.event(Event::Rescanned {
            catalogue: over(),
            flavours: flavours(),
        });
        play.connect(1);
        play.ask(1, 5, generate("m"));
        let (worker, load) = play.begin_load();
        (play, worker, load.verify_digests)
    };
    let (mut play, worker, verifies) = begin(Vec::new());
    assert!(verifies, "nothing is known");
    assert!(play.verified.is_empty(), "it is being read");
    play.loaded(worker);
    let known = play.verified;
    assert_eq!(known.len(), 1);
    let (_, _, verifies) = begin(known.clone());
    assert!(!verifies);
    std::fs::write(&file, "two").expect("writable");
    let (_, _, verifies) = begin(known);
    assert!(verifies, "it has changed");
}

#[test]
fn vectors_are_passed_on_once_however_often_they_are_computed() {
    let vectors = || {
        JobReply::Embeddings(Embeddings {
            vectors: Tensor {
                name: "embeddings".into(),
                dtype: DType::F32,
                shape: vec![2, 1],
                data: TensorData::Inline(vec![0; 8]),
            },
            tokens: vec![3, 3],
            truncated: Vec::new(),
        })
    };
    let mut play = Play::new(&[embedding("m")]);
    play.connect(1);
    play.ask(1, 1, embed("m", 2));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.say(worker, job, vectors());
    play.die(worker);
    let fresh = play.load();
    let [start] = &play.started(fresh)[..] else {
        panic!("one job")
    };
    assert_eq!(start.credit, 255 + 1);
    play.say(fresh, job, vectors());
    play.finish(fresh, job);
    let replies = play.take(1, 1);
    let made = replies
        .iter()
        .filter(|reply| matches!(reply, Reply::Embeddings(_)));
    assert_eq!(made.count(), 1);
    assert!(matches!(replies.last(), Some(Reply::Done(done)) if done.receipt.retries == 1));
}

#[test]
fn embedding_is_for_embedding_models_and_they_are_for_nothing_else() {
    let mut play = Play::new(&[model("tensors"), embedding("vectors")]);
    play.connect(1);
    for (request, body) in [
        (1, embed("tensors", 1)),
        (2, generate("vectors")),
        (3, embed("nobody", 1)),
    ] {
        play.ask(1, request, body);
        match play.failure(1, request) {
            Status::Invalid { field, why } => {
                assert_eq!(field, "model");
                assert!(why.contains("embedding"), "{why}");
            }
            Status::ModelNotFound { model, .. } => assert_eq!((request, &*model), (3, "nobody")),
            other => panic!("{other:?}"),
        }
    }
    assert!(play.probed.is_empty(), "nothing is begun for them");
    // Its tensors are anybody's.
    play.ask(1, 4, infer("vectors"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    play.done(1, 4);
}
