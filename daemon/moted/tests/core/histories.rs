//! Random histories: whatever clients and workers do, every request is answered exactly once, and
//! nothing is left when all have gone.

use crate::harness::*;
use mote_api::Rejection;
use mote_wire::types::{
    Command, JobReply, OpenStream, Priority, Reply, Request, Status, WorkOptions, WorkerEvent,
};
use moted::core::Event;
use moted::ids::WorkerId;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MODELS: [&str; 4] = ["a", "b", "c", "unknown"];

#[derive(Clone, Debug)]
enum Act {
    Ask(u8, u8, u8),
    Cancel(u8, u8),
    Credit(u8, u8),
    Reconnect(u8),
    Pass(u16),
    Worker(u8, u8),
    Rescan,
}

fn some_acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..3u8, 0..4u8, any::<u8>()).prop_map(|(c, m, kind)| Act::Ask(c, m, kind)),
        2 => (0..3u8, any::<u8>()).prop_map(|(c, pick)| Act::Cancel(c, pick)),
        1 => (0..3u8, any::<u8>()).prop_map(|(c, pick)| Act::Credit(c, pick)),
        1 => (0..3u8).prop_map(Act::Reconnect),
        3 => any::<u16>().prop_map(Act::Pass),
        12 => (any::<u8>(), any::<u8>()).prop_map(|(w, kind)| Act::Worker(w, kind)),
        1 => Just(Act::Rescan),
    ];
    proptest::collection::vec(act, 0..200)
}

/// The stand-in for processes: knows what each worker was told and may answer it.
#[derive(Default)]
struct Workers {
    /// Workers with a process, and whether they have said hello and loaded.
    stage: BTreeMap<u64, u8>,
    jobs: BTreeMap<u64, BTreeSet<u64>>,
    sent: BTreeMap<u64, u32>,
    streams: BTreeMap<u64, BTreeSet<u64>>,
}

impl Workers {
    fn take_in(&mut self, play: &mut Play) {
        while let Some(worker) = play.spawned.pop_front() {
            self.stage.insert(worker, 0);
            play.event(Event::WorkerStarted {
                worker: WorkerId(worker),
                pid: worker as i32,
            });
        }
        let told: Vec<_> = play
            .commands
            .iter_mut()
            .map(|(w, c)| (*w, std::mem::take(c)))
            .collect();
        for (worker, commands) in told {
            for command in commands {
                match command {
                    Command::StartJob(start) => {
                        let is_new = self.jobs.entry(worker).or_default().insert(start.job);
                        assert!(
                            is_new,
                            "job {} was started twice on worker {worker}",
                            start.job
                        );
                        let elsewhere = self
                            .jobs
                            .iter()
                            .filter(|(other, jobs)| **other != worker && jobs.contains(&start.job));
                        assert_eq!(elsewhere.count(), 0, "job {} runs twice", start.job);
                        self.sent
                            .insert(start.job, start.resume_token_ids.len() as u32);
                    }
                    Command::AttachStream { stream, .. } => {
                        self.streams.entry(worker).or_default().insert(stream);
                    }
                    Command::Shutdown => drop(self.stage.insert(worker, 9)),
                    _ => {}
                }
            }
        }
    }

    fn end(&mut self, play: &mut Play, worker: u64) {
        self.stage.remove(&worker);
        self.jobs.remove(&worker);
        self.streams.remove(&worker);
        play.die(worker);
    }

    fn act(&mut self, play: &mut Play, pick: u8, kind: u8) {
        let Some(worker) = self
            .stage
            .keys()
            .nth(usize::from(pick) % self.stage.len().max(1))
        else {
            return;
        };
        let worker = *worker;
        match (self.stage[&worker], kind % 16) {
            (_, 0) | (9, _) => self.end(play, worker),
            (0, _) => {
                self.stage.insert(worker, 1);
                let build_id = moted::BUILD_ID.into();
                play.worker(worker, WorkerEvent::Hello { build_id, pid: 1 });
            }
            (1, 1) => {
                self.stage.insert(worker, 9);
                let rejection = Rejection::LoadFailed { why: "no".into() };
                play.refuse_load(worker, Status::Cancelled, Some(rejection));
            }
            (1, 2) => {
                self.stage.insert(worker, 9);
                play.refuse_load(worker, Status::Cancelled, None);
            }
            (1, _) => {
                self.stage.insert(worker, 2);
                play.loaded(worker);
            }
            (_, 3) => {
                let stream = self.streams.get_mut(&worker).and_then(BTreeSet::pop_first);
                if let Some(stream) = stream {
                    let event = WorkerEvent::StreamEnded {
                        stream,
                        steps: 0,
                        compute_us: 0,
                        bytes_copied: 0,
                    };
                    play.worker(worker, event);
                }
            }
            (_, kind) => self.work(play, worker, kind),
        }
    }

    fn work(&mut self, play: &mut Play, worker: u64, kind: u8) {
        let jobs = self.jobs.entry(worker).or_default();
        let Some(job) = jobs
            .iter()
            .nth(usize::from(kind) % jobs.len().max(1))
            .copied()
        else {
            return;
        };
        match kind {
            4..=8 => {
                let index = self.sent.entry(job).or_default();
                *index += 1;
                play.say(worker, job, token(*index - 1));
            }
            9 => {
                jobs.remove(&job);
                play.say(worker, job, JobReply::Failed(Status::Cancelled));
            }
            _ => {
                jobs.remove(&job);
                play.finish(worker, job);
            }
        }
    }
}

struct Clients {
    /// Requests asked, by connection: those of a connection that was closed no longer count.
    asked: BTreeMap<u64, BTreeSet<u64>>,
    /// Connection of each of three clients; a client that comes again gets a new one.
    now: [u64; 3],
    next_connection: u64,
    next_request: u64,
}

impl Clients {
    fn new(play: &mut Play) -> Self {
        (1..=3).for_each(|connection| play.connect(connection));
        Self {
            asked: BTreeMap::new(),
            now: [1, 2, 3],
            next_connection: 4,
            next_request: 1,
        }
    }

    fn ask(&mut self, play: &mut Play, client: u8, body: Request) {
        let connection = self.now[usize::from(client)];
        let request = self.next_request;
        self.next_request += 1;
        self.asked.entry(connection).or_default().insert(request);
        play.ask(connection, request, body);
    }

    fn pick(&self, client: u8, pick: u8) -> u64 {
        let asked = self.asked.get(&self.now[usize::from(client)]);
        let asked: Vec<u64> = asked.into_iter().flatten().copied().collect();
        if asked.is_empty() {
            1
        } else {
            asked[usize::from(pick) % asked.len()]
        }
    }
}

fn some_request(model: &str, kind: u8) -> Request {
    let priority = [
        Priority::Interactive,
        Priority::Normal,
        Priority::Background,
    ];
    let options = WorkOptions {
        priority: priority[usize::from(kind / 16) % 3],
        deadline_ms: (kind.is_multiple_of(5)).then_some(2_000),
        credit: if kind.is_multiple_of(3) { 2 } else { 256 },
        ..WorkOptions::default()
    };
    let model = model.to_owned();
    match kind % 16 {
        0 => Request::ListModels,
        1 => Request::InspectModel {
            model,
            load: kind > 128,
        },
        2 => Request::ListDevices {
            refresh: kind > 128,
        },
        3 => Request::Explain {
            model,
            options,
            measure: kind.is_multiple_of(2),
        },
        4 => Request::Load { model, options },
        5 => Request::Unload { model },
        6 => Request::Pin {
            model,
            pinned: kind > 128,
        },
        7 => Request::OpenStream(OpenStream { model, options }),
        8 => Request::Watch,
        9 => Request::Rescan,
        _ => generate_with(&model, options),
    }
}

fn models() -> [Model; 3] {
    [
        Model {
            memory_bytes: 40 * MIB,
            ..two_ways("a")
        },
        Model {
            memory_bytes: 50 * MIB,
            ..model("b")
        },
        Model {
            memory_bytes: 70 * MIB,
            ..two_ways("c")
        },
    ]
}

fn act(play: &mut Play, workers: &mut Workers, clients: &mut Clients, act: &Act) {
    match *act {
        Act::Ask(client, model, kind) => {
            clients.ask(play, client, some_request(MODELS[usize::from(model)], kind));
        }
        Act::Cancel(client, pick) => {
            let target = clients.pick(client, pick);
            clients.ask(play, client, Request::Cancel { target });
        }
        Act::Credit(client, pick) => {
            let target = clients.pick(client, pick);
            clients.ask(play, client, Request::Credit { target, frames: 3 });
        }
        Act::Reconnect(client) => {
            let connection = &mut clients.now[usize::from(client)];
            play.disconnect(*connection);
            clients.asked.remove(connection);
            *connection = clients.next_connection;
            clients.next_connection += 1;
            play.connect(*connection);
        }
        Act::Pass(ms) => play.pass(u64::from(ms)),
        Act::Worker(pick, kind) => workers.act(play, pick, kind),
        Act::Rescan => rescan(play),
    }
    workers.take_in(play);
    let killed: Vec<u64> = std::mem::take(&mut play.killed).into_iter().collect();
    for worker in killed {
        if workers.stage.contains_key(&worker) {
            workers.end(play, worker);
        }
    }
    workers.take_in(play);
}

fn rescan(play: &mut Play) {
    if play.rescans > 0 {
        play.rescans -= 1;
        play.event(Event::Rescanned {
            catalogue: catalogue(&models()),
            flavours: flavours(),
        });
    }
}

fn check_answers(play: &Play, clients: &Clients) {
    for (connection, requests) in &clients.asked {
        for request in requests {
            let Some(replies) = play.replies.get(&(*connection, *request)) else {
                continue;
            };
            let closing = replies.iter().filter(|reply| reply.closes()).count();
            assert!(
                closing <= 1,
                "request {request} was closed {closing} times: {replies:?}"
            );
            if closing == 1 {
                assert!(
                    replies.back().is_some_and(Reply::closes),
                    "{request}: {replies:?}"
                );
            }
            let mut expected = 0;
            for reply in replies {
                if let Reply::Token(token) = reply {
                    assert_eq!(token.index, expected, "request {request}");
                    expected += 1;
                }
            }
        }
    }
}

/// Lets workers finish everything, whatever it takes.
fn settle(play: &mut Play, workers: &mut Workers, clients: &mut Clients) {
    for round in 0..2_000u32 {
        for client in 0..3 {
            let connection = clients.now[client];
            for request in clients.asked.get(&connection).cloned().unwrap_or_default() {
                if play.is_open(connection, request) {
                    let credit = Request::Credit {
                        target: request,
                        frames: 256,
                    };
                    play.ask(connection, 1_000_000 + u64::from(round), credit);
                }
            }
        }
        for pick in 0..workers.stage.len() as u8 {
            // Neither deaths nor refusals any more.
            act(play, workers, clients, &Act::Worker(pick, 10));
        }
        act(play, workers, clients, &Act::Rescan);
        play.pass(50);
        workers.take_in(play);
        let open = |play: &Play| {
            clients.asked.iter().any(|(connection, requests)| {
                requests
                    .iter()
                    .any(|request| play.is_open(*connection, *request))
            })
        };
        if !open(play) {
            return;
        }
        if round == 100 {
            // What is left waits for the client to end it: watches.
            for client in 0..3u8 {
                let connection = clients.now[usize::from(client)];
                for request in clients.asked.get(&connection).cloned().unwrap_or_default() {
                    if play.is_open(connection, request) {
                        clients.ask(play, client, Request::Cancel { target: request });
                    }
                }
            }
        }
    }
    panic!("requests were never answered");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_once_and_nothing_is_left(acts in some_acts()) {
        let mut play = Play::new(&models());
        let mut workers = Workers::default();
        let mut clients = Clients::new(&mut play);
        for one in &acts {
            act(&mut play, &mut workers, &mut clients, one);
            check_answers(&play, &clients);
        }
        settle(&mut play, &mut workers, &mut clients);
        check_answers(&play, &clients);

        for connection in clients.now {
            play.disconnect(connection);
        }
        // Workers still let go of what was cancelled.
        for _ in 0..100 {
            for pick in 0..workers.stage.len() as u8 {
                act(&mut play, &mut workers, &mut clients, &Act::Worker(pick, 10));
            }
        }
        play.connect(1_000);
        let report = play.status(1_000, 1);
        prop_assert_eq!((report.jobs_running, report.jobs_queued), (0, 0));
        prop_assert_eq!((report.streams, report.connections), (0, 1));
        let reserved: u64 = report.workers.iter().map(|worker| worker.reserved_bytes).sum();
        prop_assert_eq!(report.reserved_bytes, reserved);
        prop_assert!(report.reserved_bytes <= report.budget_bytes);
        prop_assert!(report.workers.iter().all(|worker| worker.jobs + worker.streams == 0));

        play.event(Event::Shutdown);
        play.pass(10_000);
        for worker in workers.stage.keys().copied().collect::<Vec<_>>() {
            workers.end(&mut play, worker);
        }
        prop_assert!(play.core.is_over());
        prop_assert_eq!(play.core.next_due(), None);
    }
}
