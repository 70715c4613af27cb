//! Questions with one answer, the greeting, and the end.

mod common;

use common::{Server, done, serve};
use mote_client::{
    Capability, Client, ClientError, Event, EventKind, Explanation, ModelDetails, ModelInfo,
    Progress, ProtocolError, Stage, Status, WorkOptions,
};
use mote_wire::types::{Reply, Request};
use mote_wire::{Frame, reply_to_frame};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Barrier;
use std::thread;

#[test]
fn every_question_gets_its_answer() {
    let (client, daemon) = serve(|server| {
        for _ in 0..14 {
            let (id, request) = server.next();
            let reply = match request {
                Request::ListModels => Reply::ModelList(vec![ModelInfo {
                    name: "chat".into(),
                    ..ModelInfo::default()
                }]),
                Request::InspectModel { load, .. } => Reply::ModelDetails(Box::new(ModelDetails {
                    inferred: load,
                    ..ModelDetails::default()
                })),
                Request::ListDevices { refresh } => Reply::DeviceList(vec![Capability {
                    flavour: refresh.to_string(),
                    ..Capability::default()
                }]),
                Request::Explain {
                    model,
                    options,
                    measure,
                } => {
                    assert!(options.forbid_cpu);
                    Reply::Explanation(Box::new(Explanation {
                        model,
                        notes: measure.then(|| "measured".into()).into_iter().collect(),
                        ..Explanation::default()
                    }))
                }
                Request::GetStatus => Reply::StatusReport(Box::default()),
                Request::Load { model, .. } => {
                    assert_eq!(model, "chat");
                    let progress = |done| Progress {
                        stage: Stage::Loading,
                        done,
                        total: None,
                        remaining_ms: None,
                    };
                    server.reply(id, Reply::Accepted { queue_position: 1 });
                    server.reply(id, Reply::Progress(progress(7)));
                    Reply::Ok
                }
                Request::Unload { model } => {
                    assert_eq!(model, "chat");
                    Reply::Ok
                }
                Request::Pin { model, pinned } => {
                    assert_eq!(
                        (&*model, pinned),
                        if pinned { ("a", true) } else { ("b", false) }
                    );
                    Reply::Ok
                }
                Request::Rescan => Reply::Ok,
                other => panic!("{other:?}"),
            };
            server.reply(id, reply);
        }
        server.expect_end();
    });
    assert_eq!(client.server_version(), "9.9.9");
    assert_eq!(client.limits(), mote_client::Limits::CURRENT);
    assert_eq!(client.models().expect("models")[0].name, "chat");
    assert!(!client.inspect("chat").expect("details").inferred);
    assert!(client.inspect_loaded("chat").expect("details").inferred);
    assert_eq!(client.devices().expect("devices")[0].flavour, "false");
    assert_eq!(client.probe_devices().expect("devices")[0].flavour, "true");
    let options = WorkOptions {
        forbid_cpu: true,
        ..WorkOptions::default()
    };
    assert_eq!(
        client.explain("chat", &options).expect("explained").model,
        "chat"
    );
    let measured = client.measure("chat", &options).expect("measured");
    assert_eq!(measured.notes, ["measured"]);
    client.status().expect("a status");
    let mut reports = Vec::new();
    client
        .load_with("chat", &WorkOptions::default(), |progress| {
            reports.push(progress.done)
        })
        .expect("loaded");
    assert!(reports.ends_with(&[7]));
    client
        .load("chat", &WorkOptions::default())
        .expect("loaded");
    client.unload("chat").expect("unloaded");
    client.pin("a").expect("pinned");
    client.unpin("b").expect("unpinned");
    client.rescan().expect("read again");
    drop(client);
    daemon.join().expect("the script held");
}

#[test]
fn a_question_may_be_refused_or_answered_amiss() {
    let (client, daemon) = serve(|server| {
        let (id, _) = server.next();
        let status = Status::ModelNotFound {
            model: "chta".into(),
            similar: vec!["chat".into()],
        };
        server.reply(id, Reply::Failed(status));
        let (id, _) = server.next();
        server.reply(id, done("chat"));
        // An answer that does not hold: a model's details without the model.
        let (id, _) = server.next();
        let id = u8::try_from(id).expect("a small id");
        let frame = Frame {
            bytes: vec![0x08, id, 0xa2, 0x01, 0x00],
            fds: Vec::new(),
        };
        server.connection.send(frame).expect("the client is there");
        let (id, _) = server.next();
        server.reply(id, Reply::ModelList(Vec::new()));
    });
    let refused = client.unload("chta").expect_err("a refusal");
    assert!(matches!(
        refused.status(),
        Some(Status::ModelNotFound { similar, .. }) if similar[..] == ["chat"]
    ));
    assert!(matches!(
        client.unload("chat"),
        Err(ClientError::Protocol(ProtocolError::OtherAnswer {
            request: "unload"
        }))
    ));
    assert!(matches!(
        client.inspect("chat"),
        Err(ClientError::Protocol(ProtocolError::Answer(_)))
    ));
    client.models().expect("the connection goes on");
    daemon.join().expect("the script held");
}

#[test]
fn bytes_that_are_no_answer_end_the_connection() {
    let (client, daemon) = serve(|server| {
        server.next();
        let frame = Frame {
            bytes: vec![0xff; 9],
            fds: Vec::new(),
        };
        server.connection.send(frame).expect("the client is there");
        server.expect_end();
    });
    for _ in 0..2 {
        assert!(matches!(
            client.models(),
            Err(ClientError::Protocol(ProtocolError::Answer(_)))
        ));
    }
    daemon.join().expect("the script held");
}

#[test]
fn watching_tells_events_until_it_is_dropped() {
    let (client, daemon) = serve(|server| {
        let (id, request) = server.next();
        assert!(matches!(request, Request::Watch));
        for at_ms in 0..3 {
            let kind = EventKind::ModelUnloaded {
                model: "chat".into(),
            };
            server.reply(id, Reply::Event(Event { at_ms, kind }));
        }
        let (_, request) = server.next();
        assert!(matches!(request, Request::Cancel { target } if target == id));
        server.expect_end();
    });
    let mut watch = client.watch().expect("sent");
    for at_ms in 0..3 {
        assert_eq!(
            watch.next().expect("an event").expect("no error").at_ms,
            at_ms
        );
    }
    drop(watch);
    drop(client);
    daemon.join().expect("the script held");
}

#[test]
fn nobody_there_is_told_with_the_path() {
    let path = std::env::temp_dir().join(format!("mote-nobody-{}.sock", std::process::id()));
    let Err(ClientError::Connect { path: told, cause }) = Client::connect(&path, "test") else {
        panic!("somebody is there");
    };
    assert_eq!((told, cause.kind()), (path, io::ErrorKind::NotFound));
}

#[test]
fn a_daemon_may_refuse_the_greeting_or_leave() {
    let greeted = |answer: Option<Reply>| {
        let (here, there) = UnixStream::pair().expect("a pair");
        let daemon = thread::spawn(move || {
            let mut server = Server::new(there);
            let (id, _) = server.next();
            if let Some(reply) = answer {
                server.reply(id, reply);
            }
        });
        let client = Client::from_socket(here, "test");
        daemon.join().expect("the script held");
        client.expect_err("no welcome")
    };
    let refusal = Status::VersionUnsupported {
        version_min: 2,
        version_max: 3,
    };
    let error = greeted(Some(Reply::Failed(refusal.clone())));
    assert_eq!(error.status(), Some(&refusal));
    assert!(matches!(greeted(None), ClientError::Closed));
    assert!(matches!(
        greeted(Some(Reply::Ok)),
        ClientError::Protocol(ProtocolError::OtherAnswer { request: "hello" })
    ));
}

#[test]
fn a_client_connects_to_a_path() {
    let folder = std::env::temp_dir();
    let path = folder.join(format!("mote-client-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    let daemon = thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a client");
        let mut server = Server::new(socket);
        let (id, _) = server.next();
        server.reply(id, Reply::Failed(Status::ShuttingDown));
    });
    let error = Client::connect(&path, "test").expect_err("no welcome");
    assert!(matches!(error, ClientError::Refused(Status::ShuttingDown)));
    daemon.join().expect("the script held");
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn a_question_too_long_for_a_frame_is_not_sent() {
    let (client, daemon) = serve(Server::expect_end);
    let error = client.unload(&"m".repeat(5 << 20)).expect_err("too long");
    assert!(matches!(error, ClientError::Encode(_)));
    drop(client);
    daemon.join().expect("the script held");
}

#[test]
fn threads_that_wait_on_one_connection_each_get_their_own_answer() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 200;
    let (client, daemon) = serve(|server| {
        // Every round is answered backwards, and in one piece: whoever reads, reads for all.
        for _ in 0..ROUNDS {
            let asked: Vec<_> = (0..THREADS).map(|_| server.next()).collect();
            let answers = asked.into_iter().rev().map(|(id, request)| {
                let Request::InspectModel { model, .. } = request else {
                    panic!("another question")
                };
                let status = Status::ModelNotFound {
                    model,
                    similar: Vec::new(),
                };
                reply_to_frame(id, Reply::Failed(status)).expect("it fits")
            });
            let answers: Vec<_> = answers.collect();
            for answer in answers {
                server.connection.send(answer).expect("the client is there");
            }
        }
    });
    let round = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (client, round) = (&client, &round);
            scope.spawn(move || {
                for number in 0..ROUNDS {
                    round.wait();
                    let name = format!("{thread}-{number}");
                    let refused = client.inspect(&name).expect_err("a refusal");
                    assert!(matches!(
                        refused.status(),
                        Some(Status::ModelNotFound { model, .. }) if *model == name
                    ));
                }
            });
        }
    });
    drop(client);
    daemon.join().expect("the script held");
}

#[test]
fn what_is_open_hears_of_the_end_whoever_reads() {
    let (client, daemon) = serve(|server| {
        for _ in 0..4 {
            server.next();
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(matches!(client.models(), Err(ClientError::Closed))));
        }
    });
    assert!(matches!(client.models(), Err(ClientError::Closed)));
    daemon.join().expect("the script held");
}
