//! What one user may take, over all its connections.

use crate::harness::*;
use mote_wire::types::{EventKind, Reply, Request, Status};
use moted::limits::{JOBS_PER_UID_MAX, PINS_PER_UID_MAX, RUNNING_PER_DEVICE};

/// Jobs that a connection may have open.
const JOBS_EACH: usize = 50;

fn is_over(status: &Status, named: &str) -> bool {
    matches!(status, Status::LimitExceeded { what, have, limit }
        if what == named && *have == *limit + 1)
}

#[test]
fn a_user_with_many_connections_leaves_room_for_others() {
    let mut play = Play::new(&[model("m")]);
    let connections = (JOBS_PER_UID_MAX / JOBS_EACH) as u64 + 2;
    let mut refused = 0;
    for connection in 1..=connections {
        play.connect_as(connection, 1_001);
        for request in 1..=JOBS_EACH as u64 {
            play.ask(connection, request, generate("m"));
        }
    }
    let worker = play.load();
    for connection in 1..=connections {
        for request in 1..=JOBS_EACH as u64 {
            if !play.is_open(connection, request) {
                let status = play.failure(connection, request);
                assert!(is_over(&status, "open jobs of one user"), "{status:?}");
                refused += 1;
            }
        }
    }
    let asked = connections as usize * JOBS_EACH;
    assert_eq!(refused, asked - JOBS_PER_UID_MAX);

    // Somebody else asks after all of them, and waits for none of them.
    assert_eq!(play.started(worker).len(), RUNNING_PER_DEVICE);
    play.connect_as(900, 1_002);
    play.ask(900, 1, generate("m"));
    let started = play.started(worker);
    assert_eq!(started.len(), 1);
    play.finish(worker, started[0].job);
    assert!(matches!(play.take(900, 1).last(), Some(Reply::Done(_))));

    // What ends makes room again.
    play.disconnect(1);
    play.connect_as(901, 1_001);
    play.ask(901, 1, generate("m"));
    assert!(play.is_open(901, 1));
}

#[test]
fn pins_of_a_user_are_limited_over_its_connections() {
    let names: Vec<&'static str> = (0..=PINS_PER_UID_MAX)
        .map(|number| &*Box::leak(format!("m{number}").into_boxed_str()))
        .collect();
    let models: Vec<Model> = names.iter().map(|name| model(name)).collect();
    let mut play = Play::new(&models);
    let each = 40;
    for (number, name) in names.iter().enumerate() {
        let connection = (number / each) as u64 + 1;
        if number % each == 0 {
            play.connect_as(connection, 1_001);
        }
        let request = number as u64 + 1;
        let pin = Request::Pin {
            model: (*name).into(),
            pinned: true,
        };
        play.ask(connection, request, pin);
        if number < PINS_PER_UID_MAX {
            assert!(matches!(play.answer(connection, request), Reply::Ok));
        } else {
            let status = play.failure(connection, request);
            assert!(is_over(&status, "pins of one user"), "{status:?}");
        }
    }
    play.connect_as(99, 1_002);
    let pin = Request::Pin {
        model: names[0].into(),
        pinned: true,
    };
    play.ask(99, 1, pin);
    assert!(matches!(play.answer(99, 1), Reply::Ok));
}

#[test]
fn whoever_watches_hears_of_its_own_users_jobs_only() {
    let mut play = Play::new(&[model("m")]);
    for (connection, uid) in [(1, 1_001), (2, 1_002), (3, 1_001), (4, 0)] {
        play.connect_as(connection, uid);
        play.ask(connection, 9, Request::Watch);
    }
    play.ask(1, 1, generate("m"));
    let worker = play.load();
    let job = play.started(worker)[0].job;
    play.finish(worker, job);
    let heard = |play: &mut Play, connection: u64| {
        let replies = play.take(connection, 9);
        let of_jobs = replies.iter().filter(|reply| {
            matches!(reply, Reply::Event(event) if matches!(
                event.kind,
                EventKind::JobStarted { .. } | EventKind::JobEnded { .. }
            ))
        });
        (of_jobs.count(), replies.len() > 2)
    };
    for (connection, of_jobs) in [(1, 2), (2, 0), (3, 2), (4, 2)] {
        let (jobs, of_models) = heard(&mut play, connection);
        assert_eq!(jobs, of_jobs, "connection {connection}");
        assert!(of_jobs == 0 || of_models, "models are everybody's business");
    }
}
