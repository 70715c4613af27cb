//! Plays histories to the core, in place of sockets and processes.

use mote_api::{
    BackendKind, Candidate, Capability, DeviceInfo, DeviceKind, Flavour, Manifest, Placement,
    Precision, ProviderShare, Rejection, Task, Variant,
};
use mote_wire::types::{
    Command, Done, Embed, Generate, Infer, JobReply, LoadModel, Loaded, Prompt, Reply, Request,
    Status, StatusReport, Token, WorkOptions, WorkerEvent,
};
use moted::BUILD_ID;
use moted::catalogue::{Catalogue, Entry, Found, Verified};
use moted::core::{
    Attempt, Choose, CompiledRoot, Core, Effect, Event, Exit, Finding, Outcome, Peer, Settings,
    TrialLimits,
};
use moted::flavours::{Flavours, Installed};
use moted::ids::{ConnectionId, WorkerId};
use moted::policy::trials::Record;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub const MIB: u64 = 1 << 20;

/// What a test may say about a model.
pub struct Model {
    pub name: &'static str,
    pub memory_bytes: u64,
    pub backends: Vec<BackendKind>,
    /// All backends read this file; otherwise each has its own.
    pub file: Option<&'static str>,
    pub task: Task,
}

pub fn model(name: &'static str) -> Model {
    Model {
        name,
        memory_bytes: MIB,
        backends: vec![BackendKind::Tract],
        file: None,
        task: Task::Tensor,
    }
}

/// A model with two ways to run.
pub fn two_ways(name: &'static str) -> Model {
    Model {
        backends: vec![BackendKind::OnnxRuntime, BackendKind::Tract],
        ..model(name)
    }
}

pub fn entry(model: &Model) -> Entry {
    let variants = model.backends.iter().map(|backend| Variant {
        name: backend.to_string(),
        backend: *backend,
        file: model
            .file
            .map_or_else(|| format!("{backend}.onnx"), str::to_owned)
            .into(),
        precision: Precision::F32,
        weights_bytes: None,
        memory_bytes: Some(model.memory_bytes),
        providers: Vec::new(),
        parts: BTreeMap::new(),
    });
    let manifest = Manifest {
        format: 1,
        name: model.name.into(),
        task: model.task,
        licence: String::new(),
        source: String::new(),
        description: String::new(),
        variants: variants.collect(),
        text: None,
        embedding: None,
        stream: None,
        clip: None,
        generation: None,
        restoration: None,
        labelling: None,
        inputs: Vec::new(),
        outputs: Vec::new(),
        check: None,
        labels: None,
        dimensions: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    Entry {
        folder: "/models".into(),
        manifest,
        manifest_toml: String::new(),
        inferred: false,
        digest: format!("digest of {}", model.name),
        bytes: 1,
        weights_bytes: BTreeMap::new(),
    }
}

pub fn catalogue(models: &[Model]) -> Catalogue {
    let found = |model| {
        (
            entry(model).manifest.name.clone(),
            Found::Model(Box::new(entry(model))),
        )
    };
    Catalogue::new(models.iter().map(found))
}

pub fn flavours() -> Flavours {
    let mut ort = Flavour::tract("1");
    (ort.name, ort.backend) = ("onnxruntime-cpu".into(), BackendKind::OnnxRuntime);
    let installed = [ort, Flavour::tract("1")];
    let installed = installed.map(|flavour| Installed {
        flavour,
        folder: "/runtimes".into(),
        drivers: "a driver".into(),
    });
    Flavours {
        installed: installed.into(),
        absent: Vec::new(),
    }
}

/// What a probe finds on a machine with an accelerator.
pub fn with_npu(flavour: &Flavour) -> Vec<Capability> {
    let named = |provider: &str, kind: DeviceKind| Capability {
        provider: provider.into(),
        device: Some(DeviceInfo {
            id: kind.to_string(),
            kind,
            name: kind.to_string(),
            simulated: false,
        }),
        ..capability(flavour)
    };
    match flavour.backend {
        BackendKind::OnnxRuntime => vec![
            named("CPUExecutionProvider", DeviceKind::Cpu),
            named("Npu", DeviceKind::Npu),
        ],
        _ => vec![named("tract-cpu", DeviceKind::Cpu)],
    }
}

fn capability(flavour: &Flavour) -> Capability {
    Capability {
        flavour: flavour.name.clone(),
        backend: flavour.backend,
        library_version: "1.0".into(),
        provider: "CPU".into(),
        device: Some(DeviceInfo {
            id: "cpu".into(),
            kind: DeviceKind::Cpu,
            name: "a cpu".into(),
            simulated: false,
        }),
        absence: None,
    }
}

pub struct Play {
    pub core: Core,
    pub now: Instant,
    pub replies: BTreeMap<(u64, u64), VecDeque<Reply>>,
    pub commands: BTreeMap<u64, VecDeque<Command>>,
    pub spawned: VecDeque<u64>,
    pub killed: BTreeSet<u64>,
    pub closed: BTreeSet<u64>,
    pub ended_streams: Vec<(OwnedFd, Status)>,
    pub probed: Vec<String>,
    /// Trials that were begun and have not ended.
    pub trying: VecDeque<(u64, Attempt)>,
    pub stopped_trials: Vec<u64>,
    pub kept: Vec<Record>,
    /// Files that were verified, as they were told last.
    pub verified: Vec<Verified>,
    /// Folders of what was compiled that stay, as they were told last.
    pub in_use: Vec<PathBuf>,
    pub rescans: usize,
    pub reloads: usize,
    pub samples: usize,
    /// Locks that delay sleep, taken and let go.
    pub locks: Vec<bool>,
    /// Probes wait for [`Play::probe`] instead of being answered at once.
    pub hold_probes: bool,
    /// What probes find.
    pub found: fn(&Flavour) -> Vec<Capability>,
    held: Vec<Event>,
}

impl Play {
    pub fn new(models: &[Model]) -> Self {
        Self::with_budget(models, 100 * MIB)
    }

    pub fn with_budget(models: &[Model], budget_bytes: u64) -> Self {
        Self::choosing(models, budget_bytes, Choose::Ranked, flavours())
    }

    pub fn choosing(
        models: &[Model],
        budget_bytes: u64,
        choose: Choose,
        flavours: Flavours,
    ) -> Self {
        Self::with(models, flavours, |settings| {
            settings.budget_bytes = budget_bytes;
            settings.choose = choose;
        })
    }

    /// A broker whose settings differ from the usual ones as `change` has it.
    pub fn with(models: &[Model], flavours: Flavours, change: impl FnOnce(&mut Settings)) -> Self {
        let now = Instant::now();
        let mut settings = Settings {
            uid: 0,
            budget_bytes: 100 * MIB,
            device_memory: BTreeMap::new(),
            cores: 4,
            started: now,
            seed: 1,
            idle_unload: Duration::from_secs(600),
            power: moted::policy::power::Setting::Auto,
            choose: Choose::Ranked,
            trial_limits: TrialLimits::default(),
            step_limit_ms: moted::limits::STEP_LIMIT_MS,
            compiled: Some(CompiledRoot {
                folder: "/compiled".into(),
                machine: "this one".into(),
            }),
            started_unix_s: 1_000_000,
        };
        change(&mut settings);
        Self {
            core: Core::new(settings, catalogue(models), flavours),
            now,
            replies: BTreeMap::new(),
            commands: BTreeMap::new(),
            spawned: VecDeque::new(),
            killed: BTreeSet::new(),
            closed: BTreeSet::new(),
            ended_streams: Vec::new(),
            probed: Vec::new(),
            trying: VecDeque::new(),
            stopped_trials: Vec::new(),
            kept: Vec::new(),
            verified: Vec::new(),
            in_use: Vec::new(),
            rescans: 0,
            reloads: 0,
            samples: 0,
            locks: Vec::new(),
            hold_probes: false,
            found: |flavour| vec![capability(flavour)],
            held: Vec::new(),
        }
    }

    pub fn event(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.core.handle(event, self.now) {
                match effect {
                    Effect::Reply {
                        connection,
                        request,
                        reply,
                    } => {
                        self.replies
                            .entry((connection.0, request))
                            .or_default()
                            .push_back(reply);
                    }
                    Effect::Report {
                        connection,
                        request,
                        report,
                    } => {
                        let reply = Reply::StatusReport(report);
                        self.replies
                            .entry((connection.0, request))
                            .or_default()
                            .push_back(reply);
                    }
                    Effect::Close { connection } => {
                        self.closed.insert(connection.0);
                        events.push_back(Event::Disconnected { connection });
                    }
                    Effect::Spawn { worker } => self.spawned.push_back(worker.0),
                    Effect::Send { worker, command } => {
                        self.commands
                            .entry(worker.0)
                            .or_default()
                            .push_back(command);
                    }
                    Effect::Kill { worker } => {
                        self.killed.insert(worker.0);
                    }
                    Effect::Probe {
                        generation,
                        installed,
                        ..
                    } => {
                        let flavour = installed.flavour.name.clone();
                        self.probed.push(flavour.clone());
                        let capabilities = (self.found)(&installed.flavour);
                        let event = Event::Probed {
                            generation,
                            flavour,
                            capabilities,
                        };
                        if self.hold_probes {
                            self.held.push(event);
                        } else {
                            events.push_back(event);
                        }
                    }
                    Effect::Try { worker, attempt } => {
                        self.trying.push_back((worker.0, *attempt));
                    }
                    Effect::StopTrial { worker } => {
                        self.trying.retain(|(trial, _)| *trial != worker.0);
                        self.stopped_trials.push(worker.0);
                    }
                    Effect::KeepTrials(records) => self.kept = records,
                    Effect::KeepVerified(models) => self.verified = models,
                    Effect::TidyCompiled { in_use } => self.in_use = in_use,
                    Effect::Rescan => self.rescans += 1,
                    Effect::Reloaded => self.reloads += 1,
                    Effect::SampleLoad { .. } => self.samples += 1,
                    Effect::Inhibit { hold } => self.locks.push(hold),
                    Effect::EndStream { socket, status } => {
                        self.ended_streams.push((socket, status));
                    }
                }
            }
        }
    }

    pub fn probe(&mut self) {
        for event in std::mem::take(&mut self.held) {
            self.event(event);
        }
    }

    pub fn connect(&mut self, connection: u64) {
        self.connect_as(connection, 0);
    }

    pub fn connect_as(&mut self, connection: u64, uid: u32) {
        let peer = Peer {
            uid,
            ..Peer::default()
        };
        self.event(Event::Connected {
            connection: ConnectionId(connection),
            peer,
        });
    }

    pub fn disconnect(&mut self, connection: u64) {
        self.event(Event::Disconnected {
            connection: ConnectionId(connection),
        });
    }

    pub fn ask(&mut self, connection: u64, request: u64, body: Request) {
        self.event(Event::Request {
            connection: ConnectionId(connection),
            request,
            body,
        });
    }

    /// Lets time pass, with all ticks that are due meanwhile.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(due) = self.core.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.event(Event::Tick);
        }
        self.now = end;
    }

    /// All answers so far.
    pub fn take(&mut self, connection: u64, request: u64) -> Vec<Reply> {
        self.replies
            .remove(&(connection, request))
            .unwrap_or_default()
            .into()
    }

    /// The one answer so far, which closes the request.
    pub fn answer(&mut self, connection: u64, request: u64) -> Reply {
        let mut replies = self.take(connection, request);
        let last = replies.pop().expect("an answer");
        assert!(last.closes(), "{last:?}");
        assert!(replies.iter().all(|reply| !reply.closes()), "{replies:?}");
        last
    }

    pub fn failure(&mut self, connection: u64, request: u64) -> Status {
        match self.answer(connection, request) {
            Reply::Failed(status) => status,
            other => panic!("{other:?}"),
        }
    }

    pub fn done(&mut self, connection: u64, request: u64) -> Done {
        match self.answer(connection, request) {
            Reply::Done(done) => *done,
            other => panic!("{other:?}"),
        }
    }

    pub fn is_open(&self, connection: u64, request: u64) -> bool {
        let replies = self.replies.get(&(connection, request));
        !replies.is_some_and(|replies| replies.iter().any(Reply::closes))
    }

    pub fn commands(&mut self, worker: u64) -> Vec<Command> {
        self.commands.remove(&worker).unwrap_or_default().into()
    }

    pub fn worker(&mut self, worker: u64, event: WorkerEvent) {
        self.event(Event::Worker {
            worker: WorkerId(worker),
            event,
        });
    }

    pub fn say(&mut self, worker: u64, job: u64, reply: JobReply) {
        self.worker(worker, WorkerEvent::Job { job, reply });
    }

    pub fn finish(&mut self, worker: u64, job: u64) {
        self.say(worker, job, JobReply::Done(Box::default()));
    }

    pub fn die(&mut self, worker: u64) {
        let exit = Exit {
            signal: 9,
            exit_code: 0,
        };
        self.event(Event::WorkerEnded {
            worker: WorkerId(worker),
            exit,
        });
    }

    /// The worker that was asked for, as a process that has said hello and been told what to load.
    pub fn begin_load(&mut self) -> (u64, LoadModel) {
        let worker = self.spawned.pop_front().expect("a worker is wanted");
        self.event(Event::WorkerStarted {
            worker: WorkerId(worker),
            pid: 1000 + worker as i32,
        });
        let hello = WorkerEvent::Hello {
            build_id: BUILD_ID.into(),
            pid: 1,
        };
        self.worker(worker, hello);
        let mut commands = self.commands(worker);
        let Some(Command::LoadModel(load)) = commands.pop() else {
            panic!("{commands:?}")
        };
        assert!(commands.is_empty());
        (worker, *load)
    }

    pub fn loaded(&mut self, worker: u64) {
        let shares = vec![ProviderShare {
            provider: "CPU".into(),
            nodes: 3,
            groups: 0,
            time_us: None,
        }];
        let placement = Placement {
            shares,
            read_back: true,
        };
        let loaded = Loaded {
            placement_json: serde_json::to_vec(&placement).expect("plain"),
            load_us: 5_000,
            library_version: "1.0".into(),
            ..Loaded::default()
        };
        self.worker(worker, WorkerEvent::Loaded(Box::new(loaded)));
    }

    /// The worker that was asked for, with its model loaded.
    pub fn load(&mut self) -> u64 {
        let (worker, _) = self.begin_load();
        self.loaded(worker);
        worker
    }

    pub fn refuse_load(&mut self, worker: u64, status: Status, rejection: Option<Rejection>) {
        let json = rejection.map(|rejection| serde_json::to_vec(&rejection).expect("plain"));
        let rejection_json = json.unwrap_or_default();
        self.worker(
            worker,
            WorkerEvent::LoadFailed {
                status,
                rejection_json,
            },
        );
    }

    /// The trial in progress and the provider that is tried.
    pub fn trial(&mut self) -> (u64, Attempt, String) {
        assert!(self.trying.len() <= 1, "trials disturb each other");
        let (worker, attempt) = self.trying.pop_front().expect("a trial");
        let candidate: Candidate =
            serde_json::from_slice(&attempt.load.candidate_json).expect("a candidate");
        (worker, attempt, candidate.provider)
    }

    pub fn tried(&mut self, worker: u64, outcome: Outcome) {
        let finding = Box::new(Finding {
            loaded: None,
            outcome,
        });
        let worker = WorkerId(worker);
        self.event(Event::Tried { worker, finding });
    }

    /// The jobs a worker was told to start since it was asked last.
    pub fn started(&mut self, worker: u64) -> Vec<Start> {
        let commands = self.commands(worker);
        let start = |command| match command {
            Command::StartJob(start) => Some(Start {
                job: start.job,
                credit: start.credit,
                resume: start.resume_token_ids,
                seed: start.seed,
            }),
            _ => None,
        };
        commands.into_iter().filter_map(start).collect()
    }

    /// Memory that is reserved, as somebody is told who asks for it.
    pub fn status_bytes(&mut self) -> u64 {
        const ASKING: u64 = 999;
        self.connect(ASKING);
        if self.closed.contains(&ASKING) {
            return 0;
        }
        self.status(ASKING, 1).reserved_bytes
    }

    pub fn status(&mut self, connection: u64, request: u64) -> StatusReport {
        self.ask(connection, request, Request::GetStatus);
        match self.answer(connection, request) {
            Reply::StatusReport(report) => *report,
            other => panic!("{other:?}"),
        }
    }
}

/// What a started job was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub job: u64,
    pub credit: u32,
    pub resume: Vec<u32>,
    pub seed: u64,
}

pub fn options() -> WorkOptions {
    WorkOptions {
        credit: 256,
        ..WorkOptions::default()
    }
}

pub fn generate_with(model: &str, options: WorkOptions) -> Request {
    Request::Generate(Box::new(Generate {
        options,
        ..Generate::new(model, Prompt::Plain("hello".into()))
    }))
}

pub fn generate(model: &str) -> Request {
    generate_with(model, options())
}

pub fn infer(model: &str) -> Request {
    Request::Infer(Infer {
        model: model.into(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        options: options(),
    })
}

pub fn embed(model: &str, texts: usize) -> Request {
    Request::Embed(Box::new(Embed {
        options: options(),
        ..Embed::new(model, vec!["text".into(); texts])
    }))
}

pub fn token(index: u32) -> JobReply {
    JobReply::Token(Token::new(index, 100 + index, "x"))
}

pub fn tokens(replies: &[Reply]) -> Vec<u32> {
    let ids = replies.iter().filter_map(|reply| match reply {
        Reply::Token(token) => Some(token.id),
        _ => None,
    });
    ids.collect()
}
