//! Answers with many parts: order, credit, cancelling, and daemons that misbehave.

mod common;

use common::{done, prompt, serve, token};
use mote_client::{
    ClientError, ClipEvent, ClipFormat, GenerationEvent, ProtocolError, Stage, Status,
    TransformClip, WorkOptions,
};
use mote_wire::types::{Preview, Progress, Reply, Request, Token};
use mote_wire::{Memfd, reply_to_frame};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

fn progress(done: u64) -> Progress {
    Progress {
        stage: Stage::Prefill,
        done,
        total: Some(10),
        remaining_ms: None,
    }
}

/// Takes a request in and its id.
fn work(server: &mut common::Server) -> u64 {
    match server.next() {
        (id, Request::Generate(_)) => id,
        (_, other) => panic!("{other:?}"),
    }
}

#[test]
fn events_come_in_order_and_end_with_done() {
    let (client, daemon) = serve(|server| {
        let id = work(server);
        server.reply(id, Reply::Accepted { queue_position: 3 });
        server.reply(id, Reply::Progress(progress(5)));
        server.reply(id, token(0));
        server.reply(id, token(1));
        server.reply(id, done("chat"));
        server.expect_end();
    });
    let mut generation = client.generate(prompt(0)).expect("sent");
    let mut next = || generation.next().expect("not over").expect("no error");
    assert_eq!(next(), GenerationEvent::Accepted { queue_position: 3 });
    assert_eq!(next(), GenerationEvent::Progress(progress(5)));
    for index in 0..2 {
        assert!(matches!(next(), GenerationEvent::Token(token) if token.index == index));
    }
    assert!(matches!(next(), GenerationEvent::Done(done) if done.receipt.model == "chat"));
    assert!(generation.next().is_none());
    assert!(generation.next().is_none());
    drop((generation, client));
    daemon.join().expect("the script held");
}

#[test]
fn text_is_the_tokens_together() {
    let (client, daemon) = serve(|server| {
        let id = work(server);
        let reasoning = Token {
            reasoning: "so".into(),
            is_reasoning: true,
            ..Token::new(0, 1, "")
        };
        server.reply(id, Reply::Token(reasoning));
        (0..3).for_each(|index| server.reply(id, token(index)));
        server.reply(id, done("chat"));
    });
    let (text, done) = client
        .generate(prompt(0))
        .and_then(|one| one.text())
        .expect("text");
    assert_eq!((&*text, &*done.receipt.model), ("t0 t1 t2 ", "chat"));
    daemon.join().expect("the script held");
}

#[test]
fn credit_is_granted_only_for_what_was_read() {
    let (client, daemon) = serve(|server| {
        let (id, request) = server.next();
        let Request::Generate(generate) = request else {
            panic!("{request:?}");
        };
        assert_eq!(generate.options.credit, 4);
        (0..4).for_each(|index| server.reply(id, token(index)));
        // The client has read nothing: its next request is the one that says so.
        let (sync, request) = server.next();
        assert!(matches!(request, Request::GetStatus), "{request:?}");
        server.reply(sync, Reply::StatusReport(Box::default()));
        for round in 0..20 {
            let (grant, request) = server.next();
            let Request::Credit { target, frames } = request else {
                panic!("{request:?}");
            };
            assert_eq!((target, frames), (id, 2));
            server.reply(grant, Reply::Ok);
            let next = 4 + 2 * round;
            (next..next + 2).for_each(|index| server.reply(id, token(index)));
        }
        server.reply(id, done("chat"));
    });
    let generation = client.generate(prompt(4)).expect("sent");
    client.status().expect("answered while tokens wait");
    let tokens: Vec<_> = generation
        .filter_map(|event| match event.expect("no error") {
            GenerationEvent::Token(token) => Some(token.index),
            _ => None,
        })
        .collect();
    assert_eq!(tokens, (0..44).collect::<Vec<_>>());
    daemon.join().expect("the script held");
}

#[test]
fn of_reports_that_nobody_reads_the_latest_is_kept() {
    let (client, daemon) = serve(|server| {
        let id = work(server);
        for done in 0..10_000 {
            server.reply(id, Reply::Progress(progress(done)));
        }
        server.reply(id, done("chat"));
        let (id, _) = server.next();
        server.reply(id, Reply::StatusReport(Box::default()));
    });
    let mut generation = client.generate(prompt(1)).expect("sent");
    client.status().expect("all reports have come");
    let first = generation.next().expect("not over").expect("no error");
    assert_eq!(first, GenerationEvent::Progress(progress(9_999)));
    assert!(matches!(
        generation.next(),
        Some(Ok(GenerationEvent::Done(_)))
    ));
    daemon.join().expect("the script held");
}

#[test]
fn content_beyond_the_credit_ends_the_request_and_no_other() {
    let (client, daemon) = serve(|server| {
        let id = work(server);
        (0..5).for_each(|index| server.reply(id, token(index)));
        let (sync, _) = server.next();
        server.reply(sync, Reply::StatusReport(Box::default()));
        let (_, request) = server.next();
        assert!(matches!(request, Request::Cancel { target } if target == id));
        let (id, _) = server.next();
        server.reply(id, Reply::StatusReport(Box::default()));
    });
    let mut generation = client.generate(prompt(4)).expect("sent");
    client
        .status()
        .expect("all tokens have come, and none is read");
    let errors: Vec<_> = generation.by_ref().filter_map(Result::err).collect();
    assert!(matches!(
        errors[..],
        [ClientError::Protocol(ProtocolError::CreditExceeded)]
    ));
    drop(generation);
    client.status().expect("the connection goes on");
    daemon.join().expect("the script held");
}

#[test]
fn a_refusal_carries_its_status() {
    let status = Status::OverBudget {
        what: "ram".into(),
        need_bytes: 5,
        have_bytes: 4,
    };
    let told = status.clone();
    let (client, daemon) = serve(move |server| {
        let id = work(server);
        server.reply(id, Reply::Failed(told));
    });
    let mut generation = client.generate(prompt(0)).expect("sent");
    let error = generation
        .next()
        .expect("an answer")
        .expect_err("a refusal");
    assert_eq!(error.status(), Some(&status));
    assert_eq!(error.to_string(), status.to_string());
    assert!(generation.next().is_none());
    daemon.join().expect("the script held");
}

#[test]
fn dropping_an_answer_cancels_it() {
    let (client, daemon) = serve(|server| {
        let id = work(server);
        server.reply(id, token(0));
        let (_, request) = server.next();
        assert!(matches!(request, Request::Cancel { target } if target == id));
        // What was under way is dropped, and nothing is said of it.
        server.reply(id, token(1));
        server.reply(id, Reply::Failed(Status::Cancelled));
        let (id, _) = server.next();
        server.reply(id, Reply::StatusReport(Box::default()));
        server.expect_end();
    });
    let mut generation = client.generate(prompt(0)).expect("sent");
    assert!(matches!(generation.next(), Some(Ok(_))));
    drop(generation);
    client.status().expect("the connection goes on");
    drop(client);
    daemon.join().expect("the script held");
}

#[test]
fn a_canceller_works_from_another_thread() {
    let (client, daemon) = serve(|server| {
        let id = work(server);
        server.reply(id, token(0));
        let (cancel, request) = server.next();
        assert!(matches!(request, Request::Cancel { target } if target == id));
        server.reply(cancel, Reply::Ok);
        server.reply(id, Reply::Failed(Status::Cancelled));
        server.expect_end();
    });
    let mut generation = client.generate(prompt(0)).expect("sent");
    let canceller = generation.canceller();
    assert!(matches!(generation.next(), Some(Ok(_))));
    std::thread::spawn(move || canceller.cancel().expect("sent"))
        .join()
        .expect("no panic");
    assert!(matches!(
        generation.next(),
        Some(Err(ClientError::Refused(Status::Cancelled)))
    ));
    drop((generation, client));
    daemon.join().expect("the script held");
}

#[test]
fn a_daemon_that_dies_ends_every_request() {
    let (client, daemon) = serve(|server| {
        let ids = [work(server), work(server)];
        (0..3).for_each(|index| server.reply(ids[0], token(index)));
    });
    let first = client.generate(prompt(0)).expect("sent");
    let mut second = client.generate(prompt(0)).expect("sent");
    let (tokens, errors): (Vec<_>, Vec<_>) = first.partition(|event| event.is_ok());
    assert_eq!(tokens.len(), 3, "what came before is not lost");
    assert!(matches!(errors[..], [Err(ClientError::Closed)]));
    assert!(matches!(second.next(), Some(Err(ClientError::Closed))));
    assert!(second.next().is_none());
    assert!(matches!(client.status(), Err(ClientError::Closed)));
    daemon.join().expect("the script held");
}

#[test]
fn a_daemon_that_dies_inside_a_frame_is_gone_too() {
    let (client, daemon) = serve(|server| {
        let id = work(server);
        let frame = reply_to_frame(id, token(0)).expect("it fits");
        let socket = std::os::fd::AsFd::as_fd(&server.connection);
        let mut socket = UnixStream::from(socket.try_clone_to_owned().expect("a descriptor"));
        let half = &frame.bytes[..frame.bytes.len() / 2];
        let prefix = [u8::try_from(frame.bytes.len()).expect("a short frame")];
        socket.write_all(&[&prefix, half].concat()).expect("room");
    });
    let mut generation = client.generate(prompt(0)).expect("sent");
    assert!(matches!(generation.next(), Some(Err(ClientError::Closed))));
    daemon.join().expect("the script held");
}

#[test]
fn what_the_daemon_says_of_the_connection_is_told_to_every_request() {
    let (client, daemon) = serve(|server| {
        work(server);
        server.reply(0, Reply::Failed(Status::ShuttingDown));
    });
    let mut generation = client.generate(prompt(0)).expect("sent");
    assert!(matches!(
        generation.next(),
        Some(Err(ClientError::Refused(Status::ShuttingDown)))
    ));
    assert!(matches!(
        client.status(),
        Err(ClientError::Refused(Status::ShuttingDown))
    ));
    daemon.join().expect("the script held");
}

#[test]
fn an_answer_that_does_not_fit_the_request_ends_it() {
    let (client, daemon) = serve(|server| {
        let id = work(server);
        server.reply(id, Reply::ModelList(Vec::new()));
        let id = work(server);
        server.reply(id, Reply::Preview(preview()));
        let (_, request) = server.next();
        assert!(matches!(request, Request::Cancel { target } if target == id));
    });
    for _ in 0..2 {
        let mut generation = client.generate(prompt(0)).expect("sent");
        assert!(matches!(
            generation.next(),
            Some(Err(ClientError::Protocol(ProtocolError::OtherAnswer {
                request: "generate"
            })))
        ));
        assert!(generation.next().is_none());
    }
    daemon.join().expect("the script held");
}

#[test]
fn work_outlives_its_client_only_to_say_so() {
    let (client, daemon) = serve(|server| {
        work(server);
        server.expect_end();
    });
    let mut generation = client.generate(prompt(0)).expect("sent");
    drop(client);
    assert!(matches!(generation.next(), Some(Err(ClientError::Closed))));
    daemon.join().expect("the script held");
}

fn preview() -> Preview {
    Preview {
        frame_index: 4,
        width: 2,
        height: 2,
        png: vec![1, 2, 3],
    }
}

#[test]
fn a_clip_is_written_to_the_files_that_were_passed() {
    let (client, daemon) = serve(|server| {
        let (id, request) = server.next();
        let Request::TransformClip(clip) = request else {
            panic!("{request:?}");
        };
        assert!(clip.contact_sheet.is_none());
        let input = common::read(&File::from(clip.input), 0, 4);
        let output = File::from(clip.output);
        output.write_all_at(&input, 0).expect("writable");
        server.reply(id, Reply::Progress(progress(1)));
        server.reply(id, Reply::Preview(preview()));
        server.reply(id, done("rife"));
        server.expect_end();
    });
    let file = |content: &[u8]| {
        let memfd = Memfd::create("clip", 4).expect("a memfd");
        memfd.write_all_at(content, 0).expect("writable");
        memfd
    };
    let output = file(b"....");
    let events = client.transform_clip(TransformClip {
        model: "rife".into(),
        factor: 2,
        output_format: ClipFormat::Gif,
        frames_max: None,
        width_max: None,
        height_max: None,
        frame_rate: None,
        encoder_speed: None,
        preview_every: Some(4),
        tile_side_max: None,
        options: WorkOptions::default(),
        input: file(b"clip").into_fd(),
        output: output.try_clone_fd().expect("a descriptor"),
        contact_sheet: None,
    });
    let events: Result<Vec<_>, _> = events.expect("sent").collect();
    let events = events.expect("no error");
    assert_eq!(events[0], ClipEvent::Progress(progress(1)));
    assert_eq!(events[1], ClipEvent::Preview(preview()));
    assert!(matches!(&events[2], ClipEvent::Done(done) if done.receipt.model == "rife"));
    let mut content = [0; 4];
    output.read_exact_at(&mut content, 0).expect("readable");
    assert_eq!(&content, b"clip");
    drop(client);
    daemon.join().expect("the script held");
}
