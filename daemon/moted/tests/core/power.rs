//! Power, heat and sleep, as workers, queues and receipts feel them.

use crate::harness::*;
use mote_wire::types::{Command, OpenStream, Priority, Reply, Request, WorkOptions};
use moted::core::Event;
use moted::limits::{HEAT_FRESH_MS, LOAD_SAMPLE_MS, SLEEP_LIMIT_MS, SLEEP_SETTLE_MS};
use moted::policy::power::{Observation, Profile, Reading, Supply, Throttle, Trip, TripKind, Zone};

fn heat(play: &mut Play, degrees: i32) {
    let trips = vec![Trip {
        kind: TripKind::Passive,
        millidegrees: 80_000,
    }];
    let zone = Zone {
        name: "soc".into(),
        millidegrees: degrees * 1_000,
        trips,
    };
    play.event(Event::Power(Observation::Heat(Reading {
        at: play.now,
        zones: vec![zone],
        slowed: None,
        throttled: None,
    })));
}

fn profile(play: &mut Play, profile: Profile) {
    play.event(Event::Power(Observation::Profile(Some(profile), None)));
}

/// A job of model `m` that runs, with its worker.
fn running(play: &mut Play, request: u64) -> (u64, u64) {
    play.ask(1, request, generate("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    (worker, job)
}

fn next_job(play: &mut Play, worker: u64, request: u64) -> u64 {
    play.ask(1, request, generate("m"));
    play.started(worker)[0].job
}

fn throttle(play: &mut Play, (worker, job): (u64, u64), request: u64) -> String {
    play.finish(worker, job);
    play.done(1, request).receipt.throttle
}

#[test]
fn a_receipt_tells_the_worst_that_was_seen_while_its_job_ran() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    let (worker, job) = running(&mut play, 1);
    assert_eq!(throttle(&mut play, (worker, job), 1), "unknown");

    let job = next_job(&mut play, worker, 2);
    heat(&mut play, 50);
    play.pass(HEAT_FRESH_MS + 1);
    assert_eq!(
        throttle(&mut play, (worker, job), 2),
        "none",
        "it was looked at"
    );

    let job = next_job(&mut play, worker, 3);
    heat(&mut play, 85);
    heat(&mut play, 60);
    assert_eq!(throttle(&mut play, (worker, job), 3), "thermal (soc)");

    let job = next_job(&mut play, worker, 4);
    assert_eq!(
        throttle(&mut play, (worker, job), 4),
        "none",
        "it is cool again"
    );

    play.pass(HEAT_FRESH_MS + 1);
    let job = next_job(&mut play, worker, 5);
    assert_eq!(
        throttle(&mut play, (worker, job), 5),
        "unknown",
        "nobody looked"
    );

    profile(&mut play, Profile::PowerSaver);
    let job = next_job(&mut play, worker, 6);
    profile(&mut play, Profile::Balanced);
    assert_eq!(throttle(&mut play, (worker, job), 6), "power-saver");
}

#[test]
fn threads_follow_the_power_profile() {
    let mut play = Play::new(&[model("m"), model("n")]);
    play.connect(1);
    let (worker, job) = running(&mut play, 1);
    profile(&mut play, Profile::PowerSaver);
    assert!(matches!(
        play.commands(worker)[..],
        [Command::SetLoad {
            busy: true,
            threads_max: Some(2)
        }]
    ));
    // What is loaded now begins with fewer threads and may have them all later.
    play.ask(1, 2, generate("n"));
    let (other, load) = play.begin_load();
    assert_eq!(
        (load.threads, load.threads_at_first, load.spin),
        (4, Some(2), false)
    );
    play.loaded(other);
    let told = |command: &Command| matches!(command, Command::SetLoad { .. });
    assert!(!play.commands(other).iter().any(told), "it knows");
    profile(&mut play, Profile::Performance);
    for worker in [worker, other] {
        assert!(matches!(
            play.commands(worker)[..],
            [Command::SetLoad {
                busy: false,
                threads_max: None
            }]
        ));
    }
    profile(&mut play, Profile::Performance);
    assert!(play.commands(worker).is_empty(), "nothing new");
    let power = play.status(1, 3).power.expect("it says");
    assert_eq!(power.policy, "performance");
    assert_eq!(power.why, "the power profile is performance");
    play.finish(worker, job);
}

#[test]
fn threads_that_a_request_fixes_stay() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    profile(&mut play, Profile::PowerSaver);
    let options = WorkOptions {
        threads_max: Some(3),
        ..options()
    };
    play.ask(1, 1, generate_with("m", options));
    let (_, load) = play.begin_load();
    assert_eq!((load.threads, load.threads_at_first), (3, None));
    assert!(!load.threads_follow_load && !load.spin);
}

#[test]
fn workers_with_streams_hear_what_slows_them_down() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    let told = |play: &mut Play, worker| -> Vec<String> {
        let told = |command| match command {
            Command::SetThrottle { throttle_json } => {
                let throttle: Throttle = serde_json::from_slice(&throttle_json).expect("JSON");
                Some(throttle.to_string())
            }
            _ => None,
        };
        play.commands(worker).into_iter().filter_map(told).collect()
    };
    let (worker, job) = running(&mut play, 1);
    heat(&mut play, 50);
    assert!(
        told(&mut play, worker).is_empty(),
        "the broker makes the receipt"
    );
    play.finish(worker, job);
    let open = OpenStream {
        model: "m".into(),
        options: options(),
    };
    play.ask(1, 2, Request::OpenStream(open));
    assert_eq!(told(&mut play, worker), ["none"]);
    heat(&mut play, 50);
    heat(&mut play, 90);
    heat(&mut play, 91);
    assert_eq!(told(&mut play, worker), ["thermal (soc)"]);
}

#[test]
fn background_work_pauses_while_the_battery_is_low() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    let background = WorkOptions {
        priority: Priority::Background,
        ..options()
    };
    play.ask(1, 1, generate_with("m", background));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    let supply = |play: &mut Play, on_battery| {
        let percent = Some(7);
        play.event(Event::Power(Observation::Supply(Some(Supply {
            on_battery,
            percent,
        }))));
        play.commands(worker)
    };
    let paused = supply(&mut play, true);
    assert!(
        paused
            .iter()
            .any(|one| matches!(one, Command::PauseJob { job: id } if *id == job)),
        "{paused:?}"
    );
    let power = play.status(1, 2).power.expect("it says");
    assert!(power.background_paused);
    assert_eq!(
        (power.policy.as_str(), power.why.as_str()),
        ("efficient", "on battery, 7 % left")
    );
    // Others are served.
    let other = next_job(&mut play, worker, 3);
    play.finish(worker, other);
    let resumed = supply(&mut play, false);
    assert!(
        resumed
            .iter()
            .any(|one| matches!(one, Command::ResumeJob { job: id } if *id == job)),
        "{resumed:?}"
    );
    play.finish(worker, job);
    play.done(1, 1);
}

#[test]
fn sleep_waits_for_work_that_lasts_and_for_no_other() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    let (worker, job) = running(&mut play, 1);
    assert!(play.locks.is_empty(), "it may be over at once");
    play.pass(LOAD_SAMPLE_MS);
    assert_eq!(play.locks, [true]);
    let told = |play: &mut Play, request| play.status(1, request).power.expect("it says");
    assert!(!told(&mut play, 2).sleep_delayed, "nobody has given a lock");
    play.event(Event::SleepDelayed(true));
    assert!(told(&mut play, 3).sleep_delayed);
    play.pass(10 * LOAD_SAMPLE_MS);
    assert_eq!(play.locks, [true]);
    play.finish(worker, job);
    play.pass(2 * LOAD_SAMPLE_MS);
    assert_eq!(play.locks, [true, false]);
    // Small jobs, one after the other.
    for request in 10..60 {
        let job = next_job(&mut play, worker, request);
        play.finish(worker, job);
        play.pass(LOAD_SAMPLE_MS / 20);
    }
    assert_eq!(play.locks, [true, false]);
    play.pass(2 * LOAD_SAMPLE_MS);
    assert_eq!(
        play.core.next_due(),
        idle_unload_of(&play),
        "nothing else is waited for"
    );
}

/// When the model is unloaded for want of use.
fn idle_unload_of(play: &Play) -> Option<std::time::Instant> {
    let due = play.core.next_due()?;
    let far = play.now + std::time::Duration::from_secs(500);
    (due > far).then_some(due)
}

#[test]
fn jobs_halt_before_the_machine_sleeps_and_go_on_after() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    let (worker, job) = running(&mut play, 1);
    play.pass(LOAD_SAMPLE_MS);
    play.say(worker, job, token(0));
    play.event(Event::Sleeping);
    assert!(matches!(play.commands(worker)[..], [Command::PauseJob { job: id }] if id == job));
    assert_eq!(play.locks, [true], "the step has to end first");
    play.ask(1, 2, generate("m"));
    assert!(matches!(play.take(1, 2)[..], [Reply::Accepted { .. }]));
    play.pass(SLEEP_SETTLE_MS);
    assert_eq!(play.locks, [true, false]);
    assert!(play.started(worker).is_empty(), "nothing begins");
    assert_eq!(play.rescans, 0);
    play.event(Event::Resumed);
    assert_eq!(play.rescans, 1, "devices may be others now");
    let commands = play.commands(worker);
    assert!(
        matches!(commands[0], Command::ResumeJob { job: id } if id == job),
        "{commands:?}"
    );
    assert!(
        commands
            .iter()
            .any(|one| matches!(one, Command::StartJob(_)))
    );
    play.event(Event::Rescanned {
        catalogue: catalogue(&[model("m")]),
        flavours: flavours(),
    });
    play.pass(LOAD_SAMPLE_MS);
    assert_eq!(play.locks, [true, false, true]);
    play.finish(worker, job);
    assert_eq!(play.done(1, 1).receipt.preemptions, 1);
    // Its devices are asked anew before a model is chosen.
    let probed = play.probed.len();
    play.ask(1, 3, generate("m"));
    assert!(play.probed.len() > probed);
}

#[test]
fn a_machine_that_does_not_sleep_after_all_is_not_waited_for() {
    let mut play = Play::new(&[model("m")]);
    play.connect(1);
    play.event(Event::Sleeping);
    assert!(play.locks.is_empty(), "there is nothing to let go of");
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    assert!(play.started(worker).is_empty());
    play.pass(SLEEP_LIMIT_MS);
    assert_eq!(play.started(worker).len(), 1);
    play.event(Event::Resumed);
    assert_eq!(play.rescans, 1, "it was awake already");
}
