//! Other prompts for a clip that goes on: what its reader is told of each, and what is refused at once.

mod common;

use common::{Server, done, serve};
use mote_client::{
    ClientError, ClipEvent, ClipFormat, GenerateClip, LabelClip, Status, Steered, TransformClip,
    WorkOptions,
};
use mote_wire::Memfd;
use mote_wire::limits::{CLIP_STEERS_MAX, PROMPT_BYTES_MAX};
use mote_wire::types::{Reply, Request};
use std::os::fd::OwnedFd;
use std::sync::mpsc;

fn file() -> OwnedFd {
    Memfd::create("clip", 64).expect("a memfd").into_fd()
}

/// With the least credit there is, since prompts must not need any.
fn request() -> GenerateClip {
    GenerateClip {
        options: WorkOptions {
            credit: 1,
            ..WorkOptions::default()
        },
        ..GenerateClip::new("shapes-clip", "a red square", file())
    }
}

fn generated(server: &mut Server) -> u64 {
    match server.next() {
        (id, Request::GenerateClip(_)) => id,
        (_, other) => panic!("{other:?}"),
    }
}

/// Reads so many prompts, and takes them in.
fn steers(server: &mut Server, id: u64, count: usize) {
    for _ in 0..count {
        let (said, request) = server.next();
        assert!(
            matches!(&request, Request::SteerClip(steer) if steer.target == id),
            "{request:?}"
        );
        server.reply(said, Reply::Ok);
    }
}

fn steered(events: &[ClipEvent]) -> Vec<Steered> {
    let told = events.iter().filter_map(|event| match event {
        ClipEvent::Steered(steered) => Some(steered.clone()),
        _ => None,
    });
    told.collect()
}

fn refusal(refused: Result<(), ClientError>) -> String {
    match refused {
        Err(ClientError::Refused(Status::Invalid { field, .. })) => field,
        Err(ClientError::Refused(Status::LimitExceeded { what, .. })) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_prompt_is_told_of_in_order_and_what_the_daemon_missed_before_the_end() {
    let late = Steered::not_taken("prompt: no segment follows");
    let said = late.clone();
    let (client, daemon) = serve(move |server| {
        let id = generated(server);
        steers(server, id, 3);
        server.reply(id, Reply::Steered(Steered::From { segment: 2 }));
        server.reply(id, Reply::Steered(said));
        // The third came when the clip had ended.
        server.reply(id, done("shapes-clip"));
        // So did this one, of a clip that fails.
        let id = generated(server);
        let (said, _) = server.next();
        let refused = Status::invalid("target_request_id", "it is no work that goes on");
        server.reply(said, Reply::Failed(refused));
        server.reply(id, Reply::Failed(Status::ShuttingDown));
        server.expect_end();
    });
    let work = client.generate_clip(request()).expect("sent");
    let steering = work.steering();
    for prompt in ["a", "b", "c"] {
        steering.set_prompt(prompt).expect("sent");
    }
    let events: Result<Vec<_>, _> = work.collect();
    let events = events.expect("no error");
    let ended = Steered::not_taken("the clip had ended when the prompt came");
    let expected = [Steered::From { segment: 2 }, late, ended.clone()];
    assert_eq!(steered(&events), expected);
    assert!(matches!(events.last(), Some(ClipEvent::Done(_))));
    assert_eq!(refusal(steering.set_prompt("d")), "target_request_id");

    let mut work = client.generate_clip(request()).expect("sent");
    work.steering().set_prompt("a").expect("sent");
    let event = work.next().expect("not over").expect("no error");
    assert_eq!(event, ClipEvent::Steered(ended));
    let last = work.next().expect("not over");
    assert!(matches!(
        last,
        Err(ClientError::Refused(Status::ShuttingDown))
    ));
    assert!(work.next().is_none());
    drop((work, steering, client));
    daemon.join().expect("the script held");
}

#[test]
fn as_many_as_may_be_untold_are_kept_for_who_reads_late_and_more_are_refused() {
    let (all_said, when_said) = mpsc::channel();
    let (client, daemon) = serve(move |server| {
        let id = generated(server);
        steers(server, id, CLIP_STEERS_MAX);
        for _ in 0..CLIP_STEERS_MAX {
            server.reply(id, Reply::Steered(Steered::From { segment: 1 }));
        }
        all_said.send(()).expect("the test waits");
        steers(server, id, 1);
        server.reply(id, Reply::Steered(Steered::From { segment: 2 }));
        server.reply(id, done("shapes-clip"));
        // Another request is answered, so that its thread reads what comes before.
        let (id, request) = server.next();
        assert!(matches!(request, Request::Rescan));
        server.reply(id, Reply::Ok);
    });
    let mut work = client.generate_clip(request()).expect("sent");
    let steering = work.steering();
    for _ in 0..CLIP_STEERS_MAX {
        steering.set_prompt("a").expect("sent");
    }
    when_said.recv().expect("the daemon goes on");
    let refused = steering.set_prompt("b");
    assert_eq!(refusal(refused), "prompts that were not told of");
    let first = work.next().expect("not over").expect("no error");
    assert_eq!(first, ClipEvent::Steered(Steered::From { segment: 1 }));
    steering.set_prompt("b").expect("there is room again");
    client.rescan().expect("answered");
    let events: Result<Vec<_>, _> = work.collect();
    let told = steered(&events.expect("no error"));
    assert_eq!(told.len(), CLIP_STEERS_MAX);
    assert_eq!(told.last(), Some(&Steered::From { segment: 2 }));
    drop((steering, client));
    daemon.join().expect("the script held");
}

#[test]
fn work_that_cannot_be_steered_and_prompts_that_are_none_are_refused_at_once() {
    let (client, daemon) = serve(|server| {
        for _ in 0..2 {
            let (id, _) = server.next();
            let (said, request) = server.next();
            assert!(matches!(request, Request::Pause { target, paused: true } if target == id));
            server.reply(said, Reply::Ok);
            server.reply(id, done("m"));
        }
        let id = generated(server);
        server.reply(id, done("m"));
        server.expect_end();
    });
    let transformed = client.transform_clip(TransformClip {
        model: "rife".into(),
        factor: 2,
        output_format: ClipFormat::Gif,
        frames_max: None,
        width_max: None,
        height_max: None,
        frame_rate: None,
        encoder_speed: None,
        preview_every: None,
        tile_side_max: None,
        options: WorkOptions::default(),
        input: file(),
        output: file(),
        contact_sheet: None,
    });
    let work = transformed.expect("sent");
    assert_eq!(
        refusal(work.steering().set_prompt("a")),
        "target_request_id"
    );
    work.steering().pause().expect("all work can be halted");
    work.for_each(|event| drop(event.expect("no error")));
    let labelled = client.label_clip(LabelClip {
        model: "detector".into(),
        frames_max: None,
        every: None,
        frame_rate: None,
        labels_max: None,
        score_min: None,
        options: WorkOptions::default(),
        input: file(),
    });
    let work = labelled.expect("sent");
    assert_eq!(
        refusal(work.steering().set_prompt("a")),
        "target_request_id"
    );
    work.steering().pause().expect("all work can be halted");
    work.for_each(|event| drop(event.expect("no error")));

    let work = client.generate_clip(request()).expect("sent");
    assert_eq!(refusal(work.steering().set_prompt("a\0b")), "prompt");
    let long = "x".repeat(PROMPT_BYTES_MAX + 1);
    assert_eq!(refusal(work.steering().set_prompt(long)), "bytes of prompt");
    let events: Result<Vec<_>, _> = work.collect();
    assert_eq!(steered(&events.expect("no error")), []);
    drop(client);
    daemon.join().expect("the script held");
}

/// Nobody asked for it, or it is told of work that has no prompts.
#[test]
fn what_is_told_unasked_ends_the_work() {
    let (client, daemon) = serve(|server| {
        let id = generated(server);
        server.reply(id, Reply::Steered(Steered::From { segment: 1 }));
        let (_, request) = server.next();
        assert!(matches!(request, Request::Cancel { target } if target == id));
        server.expect_end();
    });
    let mut work = client.generate_clip(request()).expect("sent");
    let refused = work.next().expect("not over");
    assert!(
        matches!(refused, Err(ClientError::Protocol(_))),
        "{refused:?}"
    );
    assert!(work.next().is_none());
    drop((work, client));
    daemon.join().expect("the script held");
}
