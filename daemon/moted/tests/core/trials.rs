//! Ways to run a model are tried one after the other, the best one is taken, and nothing is tried
//! twice.

use crate::harness::*;
use mote_api::{
    Compare, Flavour, Placement, ProviderShare, REASON_TEXT_BYTES_MAX, Rejection, Samples, Tensor,
    Trial, Verdict, Verification,
};
use mote_wire::types::{
    Explanation, JobReply, Reply, Request, Stage, Status, WorkOptions, WorkerEvent,
};
use moted::core::{Choose, Event, Outcome};
use moted::limits::{ACCIDENT_S, COMPILING_TOLD_MS, HOPELESS_FACTOR, STEP_LIMIT_MS};

const CPU: &str = "CPUExecutionProvider";
const NPU: &str = "Npu";
const TRACT: &str = "tract-cpu";

/// Three ways to run one file, one of them on a device.
fn three_ways() -> Model {
    Model {
        file: Some("m.onnx"),
        ..two_ways("m")
    }
}

fn measuring() -> Play {
    let mut play = Play::choosing(&[three_ways()], 100 * MIB, Choose::Measured, flavours());
    play.found = with_npu;
    play.connect(1);
    play
}

fn samples() -> Samples {
    let tensor = Tensor::from_slice(&[2], &[1f32, 2.]).expect("small");
    Samples::of([("y", &tensor)].into_iter()).expect("read")
}

fn trial(provider: &str, run_us: u64) -> Trial {
    let shares = vec![ProviderShare {
        provider: provider.into(),
        nodes: 4,
        groups: 0,
        time_us: None,
    }];
    Trial {
        verification: match provider {
            CPU => Verification::Reference,
            _ => Verification::Matched {
                error: 1e-6,
                tolerance: 1e-2,
            },
        },
        run_us,
        runs: 5,
        load_us: 1,
        host_cpu_us: if provider == NPU { run_us / 10 } else { run_us },
        host_percent: if provider == NPU { 10 } else { 100 },
        grown_bytes: 0,
        placement: Placement {
            shares,
            read_back: true,
        },
        stopped_early: false,
    }
}

fn passed(trial: Trial) -> Outcome {
    let samples = (trial.verification == Verification::Reference).then(samples);
    let verdict = Verdict::Passed(trial);
    Outcome::Tried { verdict, samples }
}

/// Answers trials until there are no more; how long a run takes is told by `run_us`.
fn try_all(play: &mut Play, run_us: impl Fn(&str) -> Result<u64, Rejection>) -> Vec<String> {
    let mut order = Vec::new();
    while !play.trying.is_empty() {
        let (worker, _, provider) = play.trial();
        let outcome = match run_us(&provider) {
            Ok(run_us) => passed(trial(&provider, run_us)),
            Err(rejection) => Outcome::Broken(rejection),
        };
        play.tried(worker, outcome);
        order.push(provider);
    }
    order
}

fn us(npu: u64, cpu: u64, tract: u64) -> impl Fn(&str) -> Result<u64, Rejection> {
    move |provider| {
        Ok(match provider {
            NPU => npu,
            CPU => cpu,
            _ => tract,
        })
    }
}

fn loads(play: &mut Play) -> String {
    let (worker, load) = play.begin_load();
    play.loaded(worker);
    let candidate: mote_api::Candidate =
        serde_json::from_slice(&load.candidate_json).expect("a candidate");
    candidate.provider
}

fn explanation(play: &mut Play, request: u64, measure: bool) -> Option<Explanation> {
    let body = Request::Explain {
        model: "m".into(),
        options: WorkOptions::default(),
        measure,
    };
    play.ask(1, request, body);
    match play.take(1, request).pop()? {
        Reply::Explanation(explanation) => Some(*explanation),
        other => panic!("{other:?}"),
    }
}

fn code_of(explanation: &Explanation, provider: &str) -> String {
    let mut rejected = explanation.rejected.iter();
    let found = rejected.find(|one| one.provider == provider);
    found.expect("it is rejected").reason.code.clone()
}

#[test]
fn the_fastest_way_is_taken_and_the_receipt_says_that_it_was_measured() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    let order = try_all(&mut play, us(50, 70, 900));
    // The reference first; the others by what they are.
    assert_eq!(order, [CPU, NPU, TRACT]);
    let stages = play.take(1, 1).into_iter().filter_map(|reply| match reply {
        Reply::Progress(progress) if progress.stage == Stage::Trying => {
            Some((progress.done, progress.total))
        }
        _ => None,
    });
    let stages: Vec<_> = stages.collect();
    assert_eq!(stages, [(1, Some(3)), (2, Some(3)), (3, Some(3))]);
    let (worker, _) = play.begin_load();
    play.loaded(worker);
    let job = play.started(worker).remove(0).job;
    play.finish(worker, job);
    let receipt = play.done(1, 1).receipt;
    assert_eq!(receipt.device.kind, "npu");
    assert_eq!(
        (receipt.verification.as_str(), receipt.measured),
        ("matched", true)
    );
    assert!(receipt.measured_at_s >= 1_000_000);
    assert_eq!(receipt.rejected, []);
    let explained = explanation(&mut play, 2, false).expect("at once");
    assert_eq!(code_of(&explained, CPU), "slower");
    let providers = explained.trials.iter();
    let providers: Vec<_> = providers
        .map(|one| one.candidate.provider.as_str())
        .collect();
    assert_eq!(providers, [NPU, CPU, TRACT]);
}

#[test]
fn others_are_compared_with_the_reference_and_stopped_when_they_are_hopeless() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    let (worker, attempt, provider) = play.trial();
    assert_eq!((provider.as_str(), &attempt.terms.compare), (CPU, &None));
    assert_eq!(attempt.terms.hopeless_us, None);
    play.tried(worker, passed(trial(CPU, 100)));
    let (worker, attempt, _) = play.trial();
    assert_eq!(attempt.terms.compare, Some(Compare::With(samples())));
    assert_eq!(attempt.terms.hopeless_us, Some(100 * HOPELESS_FACTOR));
    assert!(!attempt.load.spin, "spinning threads look like computing");
    play.tried(worker, passed(trial(NPU, 40)));
    let (_, attempt, _) = play.trial();
    assert_eq!(attempt.terms.hopeless_us, Some(40 * HOPELESS_FACTOR));
}

#[test]
fn a_second_start_believes_the_first_and_tries_nothing() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    try_all(&mut play, us(50, 70, 900));
    assert_eq!(play.kept.len(), 3);

    let mut again = measuring();
    again.core.recall_trials(play.kept.clone());
    again.ask(1, 1, infer("m"));
    assert!(again.trying.is_empty());
    assert_eq!(loads(&mut again), NPU);

    // Another state of the libraries is another matter.
    let mut other = flavours();
    other.installed[0].flavour.version = "2".into();
    let mut changed = Play::choosing(&[three_ways()], 100 * MIB, Choose::Measured, other);
    changed.found = with_npu;
    changed.connect(1);
    changed.core.recall_trials(play.kept);
    changed.ask(1, 1, infer("m"));
    let order = try_all(&mut changed, us(50, 30, 900));
    assert_eq!(order, [CPU, NPU]);
    assert_eq!(loads(&mut changed), CPU);

    // So is another driver, also when it comes while the broker runs.
    let mut other = flavours();
    other.installed[0].drivers = "another driver".into();
    again.event(Event::Rescanned {
        catalogue: catalogue(&[three_ways()]),
        flavours: other,
    });
    again.ask(1, 2, infer("m"));
    let order = try_all(&mut again, us(50, 30, 900));
    assert_eq!(order, [CPU, NPU]);
    assert_eq!(loads(&mut again), CPU);
}

#[test]
fn what_does_wrong_is_not_used_and_is_named() {
    for (fault, code) in [
        (
            Rejection::WrongNumbers {
                output: "y".into(),
                error: "1".into(),
                tolerance: "0.01".into(),
            },
            "wrong_numbers",
        ),
        (Rejection::TrialCrashed { signal: 11 }, "trial_crashed"),
        (Rejection::TrialTimedOut { limit_ms: 1 }, "trial_timed_out"),
        (Rejection::Leaks { bytes_per_run: 1 }, "leaks"),
        (Rejection::DeviceLost { why: "x".into() }, "device_lost"),
    ] {
        let mut play = measuring();
        play.ask(1, 1, infer("m"));
        try_all(&mut play, |provider| match provider {
            NPU => Err(fault.clone()),
            CPU => Ok(70),
            _ => Ok(900),
        });
        let (worker, _) = play.begin_load();
        play.loaded(worker);
        let job = play.started(worker).remove(0).job;
        play.finish(worker, job);
        let receipt = play.done(1, 1).receipt;
        assert_eq!(receipt.verification, "reference");
        let codes: Vec<_> = receipt
            .rejected
            .iter()
            .map(|one| &one.reason.code)
            .collect();
        assert_eq!(codes, [code]);
        let explained = explanation(&mut play, 2, false).expect("at once");
        assert_eq!(code_of(&explained, NPU), code);
    }
}

#[test]
fn what_a_library_says_is_on_record_up_to_a_limit() {
    let why = "the graph cannot be compiled\n".repeat(10_000);
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    try_all(&mut play, |provider| match provider {
        NPU => Err(Rejection::LoadFailed { why: why.clone() }),
        _ => Ok(70),
    });
    let explained = explanation(&mut play, 2, false).expect("at once");
    let of_npu = explained.trials.iter();
    let of_npu = of_npu.filter(|one| one.candidate.provider == NPU);
    let details: Vec<_> = of_npu.map(|one| one.detail.as_str()).collect();
    let [detail] = details[..] else {
        panic!("{details:?}")
    };
    assert!(detail.contains("the graph cannot be compiled"));
    assert!(detail.len() < REASON_TEXT_BYTES_MAX + 100);
    let kept = serde_json::to_vec(&play.kept).expect("plain").len();
    assert!(kept < 10 * REASON_TEXT_BYTES_MAX, "{kept}");
}

#[test]
fn an_accident_is_held_against_it_for_a_day_and_wrong_numbers_for_ever() {
    let wrong = Rejection::WrongNumbers {
        output: "y".into(),
        error: "1".into(),
        tolerance: "0".into(),
    };
    for (fault, again) in [
        (Rejection::TrialCrashed { signal: 6 }, true),
        (wrong, false),
    ] {
        let mut play = measuring();
        play.ask(1, 1, infer("m"));
        try_all(&mut play, |provider| match provider {
            NPU => Err(fault.clone()),
            _ => Ok(70),
        });
        loads(&mut play);
        play.pass((ACCIDENT_S + 1) * 1_000);
        play.ask(1, 2, infer("m"));
        // The reference goes first: its numbers are needed again only if this broker forgot them.
        assert_eq!(!play.trying.is_empty(), again);
    }
}

#[test]
fn a_device_that_computes_on_the_host_loses_its_rank_and_split_plans_must_pay() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    while !play.trying.is_empty() {
        let (worker, _, provider) = play.trial();
        let mut one = trial(&provider, 100);
        if provider == NPU {
            (one.run_us, one.host_cpu_us, one.host_percent) = (120, 119, 99);
        }
        play.tried(worker, passed(one));
    }
    assert_eq!(loads(&mut play), CPU);
    let explained = explanation(&mut play, 2, false).expect("at once");
    assert_eq!(code_of(&explained, NPU), "computes_on_host");

    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    while !play.trying.is_empty() {
        let (worker, _, provider) = play.trial();
        let mut one = trial(&provider, 100);
        if provider == NPU {
            one.run_us = 120;
            one.placement.shares[0].nodes = 1;
            one.placement.shares.push(ProviderShare {
                provider: CPU.into(),
                nodes: 3,
                groups: 0,
                time_us: None,
            });
        }
        play.tried(worker, passed(one));
    }
    assert_eq!(loads(&mut play), CPU);
    let explained = explanation(&mut play, 2, false).expect("at once");
    assert_eq!(code_of(&explained, NPU), "split_loses");
}

#[test]
fn the_plain_cpu_alone_is_not_tried_unless_somebody_wants_its_figures() {
    let only_cpu = |flavour: &Flavour| {
        let mut found = with_npu(flavour);
        found.truncate(1);
        found
    };
    let mut play = Play::choosing(&[model("m")], 100 * MIB, Choose::Measured, flavours());
    play.found = only_cpu;
    play.connect(1);
    play.ask(1, 1, infer("m"));
    assert!(play.trying.is_empty());
    assert_eq!(loads(&mut play), TRACT);
    assert_eq!(explanation(&mut play, 2, true), None);
    let (worker, ..) = play.trial();
    play.tried(worker, passed(trial(CPU, 7)));
    let Some(Reply::Explanation(explained)) = play.take(1, 2).pop() else {
        panic!("no explanation")
    };
    assert_eq!(explained.trials[0].run_us, 7);
}

#[test]
fn measuring_anew_replaces_what_was_known() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    try_all(&mut play, us(50, 70, 900));
    assert_eq!(loads(&mut play), NPU);
    assert_eq!(explanation(&mut play, 2, true), None);
    assert_eq!(try_all(&mut play, us(90, 70, 900)).len(), 3);
    let Some(Reply::Explanation(explained)) = play.take(1, 2).pop() else {
        panic!("no explanation")
    };
    assert_eq!(explained.chosen.expect("one").provider, CPU);
}

#[test]
fn whoever_asks_for_one_way_gets_it_compared_all_the_same() {
    let mut play = measuring();
    let mut options = options();
    options.require_provider = Some(NPU.into());
    play.ask(1, 1, generate_with("m", options));
    let order = try_all(&mut play, us(500, 70, 900));
    assert_eq!(order, [CPU, NPU]);
    assert_eq!(loads(&mut play), NPU);
}

#[test]
fn a_request_that_is_cancelled_leaves_the_trial_alone_and_its_result_stays() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    let (worker, ..) = play.trial();
    play.ask(1, 2, Request::Cancel { target: 1 });
    assert_eq!(play.failure(1, 1), Status::Cancelled);
    play.tried(worker, passed(trial(CPU, 70)));
    assert!(play.trying.is_empty(), "nobody waits for the next one");
    assert_eq!(play.kept.len(), 1);
    play.event(Event::Shutdown);
    assert!(play.core.is_over());
}

#[test]
fn the_end_ends_a_trial() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    assert_eq!(play.trying.len(), 1);
    play.event(Event::Shutdown);
    assert_eq!(play.stopped_trials.len(), 1);
    assert!(play.core.is_over());
    assert_eq!(play.status_bytes(), 0);
}

#[test]
fn a_lost_device_costs_a_retry_and_the_receipt_names_it() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    try_all(&mut play, us(50, 70, 900));
    let worker = play.load();
    let job = play.started(worker).remove(0).job;
    let rejection = Rejection::DeviceLost { why: "gone".into() };
    fail(&mut play, worker, job, &rejection);
    assert!(play.is_open(1, 1));
    assert!(play.killed.contains(&worker));
    let other = play.load();
    let job = play.started(other).remove(0).job;
    play.finish(other, job);
    let receipt = play.done(1, 1).receipt;
    assert_eq!((receipt.device.kind.as_str(), receipt.retries), ("cpu", 1));
    assert!(
        receipt
            .rejected
            .iter()
            .any(|one| one.reason.code == "device_lost")
    );
    // Others do not go there either.
    play.ask(1, 2, infer("m"));
    assert_eq!(play.started(other).len(), 1);
}

fn fail(play: &mut Play, worker: u64, job: u64, rejection: &Rejection) {
    let rejection_json = serde_json::to_vec(rejection).expect("plain");
    let faulted = WorkerEvent::Faulted {
        job,
        rejection_json,
    };
    play.worker(worker, faulted);
    let status = Status::ComputeFailed {
        operation: "run".into(),
        cause: rejection.to_string(),
    };
    play.say(worker, job, JobReply::Failed(status));
}

#[test]
fn a_request_that_insists_on_the_device_hears_of_its_loss() {
    let mut play = measuring();
    let mut options = options();
    options.require_provider = Some(NPU.into());
    play.ask(1, 1, generate_with("m", options));
    try_all(&mut play, us(50, 70, 900));
    let worker = play.load();
    let job = play.started(worker).remove(0).job;
    fail(
        &mut play,
        worker,
        job,
        &Rejection::DeviceLost { why: "gone".into() },
    );
    assert_eq!(play.failure(1, 1).code(), "compute_failed");
    assert!(play.killed.contains(&worker));
}

#[test]
fn work_that_fails_everywhere_is_not_held_against_the_device() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    try_all(&mut play, us(50, 70, 900));
    let worker = play.load();
    let job = play.started(worker).remove(0).job;
    let failed = Rejection::RunFailed { why: "bad".into() };
    fail(&mut play, worker, job, &failed);
    let other = play.load();
    let job = play.started(other).remove(0).job;
    fail(&mut play, other, job, &failed);
    assert_eq!(play.failure(1, 1).code(), "compute_failed");
    play.ask(1, 2, infer("m"));
    assert_eq!(play.started(worker).len(), 1);
}

#[test]
fn a_step_that_hangs_on_a_device_goes_on_elsewhere() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    try_all(&mut play, us(50, 70, 900));
    let worker = play.load();
    assert_eq!(play.started(worker).len(), 1);
    play.pass(STEP_LIMIT_MS - 1);
    assert!(!play.killed.contains(&worker));
    play.pass(2);
    assert!(play.killed.contains(&worker));
    play.die(worker);
    let other = play.load();
    let job = play.started(other).remove(0).job;
    play.pass(10 * STEP_LIMIT_MS);
    play.finish(other, job);
    let receipt = play.done(1, 1).receipt;
    assert_eq!(receipt.device.kind, "cpu");
    assert!(
        receipt
            .rejected
            .iter()
            .any(|one| one.reason.code == "step_timed_out")
    );
}

#[test]
fn a_trial_has_its_memory_like_a_load_and_gives_it_back() {
    let mut big = three_ways();
    big.memory_bytes = 60 * MIB;
    let mut other = model("other");
    other.memory_bytes = 60 * MIB;
    let models = [big, other];
    let mut play = Play::choosing(&models, 100 * MIB, Choose::Measured, flavours());
    play.found = with_npu;
    play.connect(1);
    play.ask(1, 1, infer("other"));
    let idle = play.load();
    let job = play.started(idle).remove(0).job;
    play.finish(idle, job);
    play.ask(1, 2, infer("m"));
    assert!(play.trying.is_empty(), "the memory is another's");
    play.die(idle);
    try_all(&mut play, us(50, 70, 900));
    play.load();
    assert_eq!(play.status_bytes(), 60 * MIB);
}

#[test]
fn each_way_has_its_own_folder_for_what_is_compiled_and_the_cpu_has_none() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    let mut folders = Vec::new();
    while !play.trying.is_empty() {
        let folder = play.trying[0].1.load.compiled_folder.clone();
        let (worker, _, provider) = play.trial();
        folders.push((provider.clone(), folder));
        play.tried(worker, passed(trial(&provider, 50)));
    }
    let [(cpu, none), (npu, folder), (tract, also_none)] = &folders[..] else {
        panic!("{folders:?}")
    };
    assert_eq!([cpu.as_str(), npu, tract], [CPU, NPU, TRACT]);
    assert!(none.is_empty() && also_none.is_empty());
    assert!(
        folder.starts_with("/compiled/") && folder.len() > 40,
        "{folder}"
    );
    let (worker, load) = play.begin_load();
    assert_eq!(
        load.compiled_folder, *folder,
        "what the trial compiled is used"
    );
    play.loaded(worker);
    assert_eq!(play.in_use, [std::path::PathBuf::from(folder)]);
}

#[test]
fn a_load_that_compiles_tells_how_long_it_takes_and_took_the_last_time() {
    let mut play = measuring();
    play.ask(1, 1, infer("m"));
    while !play.trying.is_empty() {
        let (worker, _, provider) = play.trial();
        let load_us = 5_000_000;
        let run_us = if provider == NPU { 1 } else { 99 };
        play.tried(
            worker,
            passed(Trial {
                load_us,
                ..trial(&provider, run_us)
            }),
        );
    }
    let (worker, _) = play.begin_load();
    play.take(1, 1);
    play.pass(COMPILING_TOLD_MS);
    play.pass(COMPILING_TOLD_MS);
    let told = play.take(1, 1).into_iter().map(|reply| match reply {
        Reply::Progress(progress) if progress.stage == Stage::Compiling => {
            (progress.done, progress.total, progress.remaining_ms)
        }
        other => panic!("{other:?}"),
    });
    let told: Vec<_> = told.collect();
    assert_eq!(
        told,
        [
            (1_000, Some(5_000), Some(4_000)),
            (2_000, Some(5_000), Some(3_000))
        ]
    );
    play.loaded(worker);
    play.pass(COMPILING_TOLD_MS);
    assert!(play.take(1, 1).is_empty());
}
