//! A worker that computes nothing and behaves as its model's name says.
#![allow(
    unsafe_code,
    reason = "takes over the descriptor the broker left for it"
)]

use mote_api::{
    Candidate, Capability, DeviceInfo, DeviceKind, Flavour, Manifest, Placement, Rejection,
};
use mote_wire::codec::{event_to_frame, frame_to_command, frame_to_request, reply_to_frame};
use mote_wire::types::{
    Command, Done, JobReply, Loaded, Progress, Reply, Stage, StreamResult, Token, WorkerEvent,
};
use mote_wire::{Connection, Link};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Providers of a flavour that ends its probe.
pub const TORN: [&str; 4] = ["crashes", "works", "leaves", "hangs"];
/// A provider on the processor, on which all models run.
pub const PLAIN: &str = "plain";
/// A provider on a device, for models that name it: the device is lost with the first push of a stream.
pub const FRAIL: &str = "frail";
/// Tokens of an answer.
pub const TOKENS: u32 = 6;

struct Worker {
    broker: Connection,
    model: String,
    provider: String,
    folder: PathBuf,
}

pub fn run(arguments: &[String]) {
    // SAFETY: the broker left the descriptor for this process; nothing else here knows of it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(3) });
    let broker = Connection::new(socket, Link::Worker);
    let mut worker = Worker {
        broker,
        model: String::new(),
        provider: String::new(),
        folder: PathBuf::new(),
    };
    let pid = std::process::id() as i32;
    worker.tell(WorkerEvent::Hello {
        build_id: moted::BUILD_ID.into(),
        pid,
    });
    eprintln!("a scripted worker begins");
    if arguments.iter().any(|argument| argument == "--probe") {
        let after = |name: &str| {
            let mut arguments = arguments.iter().skip_while(|argument| *argument != name);
            arguments.nth(1).map(String::as_str)
        };
        return match after("--flavour-folder") {
            None => worker.probe(),
            Some(folder) => worker.probe_torn(folder, after("--provider")),
        };
    }
    while let Ok(Some(frame)) = worker.broker.recv() {
        match frame_to_command(frame).expect("the broker speaks the wire") {
            Command::Shutdown => break,
            command => worker.obey(command),
        }
    }
}

impl Worker {
    fn tell(&mut self, event: WorkerEvent) {
        let frame = event_to_frame(event).expect("it fits");
        if self.broker.send(frame).is_err() {
            std::process::exit(1);
        }
    }

    fn say(&mut self, job: u64, reply: JobReply) {
        self.tell(WorkerEvent::Job { job, reply });
    }

    fn probe(&mut self) {
        let capability = |provider: &str, kind: DeviceKind| Capability {
            flavour: Flavour::tract("").name,
            backend: mote_api::BackendKind::Tract,
            library_version: "0".into(),
            provider: provider.into(),
            device: Some(DeviceInfo {
                id: kind.to_string(),
                kind,
                name: kind.to_string(),
                simulated: false,
            }),
            absence: None,
        };
        let capabilities = [
            capability(PLAIN, DeviceKind::Cpu),
            capability(FRAIL, DeviceKind::Npu),
        ];
        let capabilities_json = serde_json::to_vec(&capabilities).expect("plain");
        self.tell(WorkerEvent::Probed { capabilities_json });
    }

    /// Of a flavour whose providers do as their names say: tried together, they end the process.
    fn probe_torn(&mut self, folder: &str, provider: Option<&str>) {
        if !folder.ends_with("early") {
            let names =
                provider.map_or(TORN.map(str::to_owned).into(), |name| vec![name.to_owned()]);
            self.tell(WorkerEvent::Probing { providers: names });
        }
        match provider {
            Some("works") => {}
            Some("leaves") => std::process::exit(3),
            Some("hangs") => loop {
                std::thread::park();
            },
            _ => std::process::abort(),
        }
        let capability = Capability {
            flavour: "torn".into(),
            backend: mote_api::BackendKind::Fake,
            library_version: "7".into(),
            provider: "works".into(),
            device: None,
            absence: Some(mote_api::Absence::NoDevice),
        };
        let capabilities_json = serde_json::to_vec(&[capability]).expect("plain");
        self.tell(WorkerEvent::Probed { capabilities_json });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::LoadModel(load) => {
                let manifest: Manifest = serde_json::from_slice(&load.manifest_json).expect("JSON");
                (self.model, self.folder) = (manifest.name, load.folder.into());
                let candidate: Candidate =
                    serde_json::from_slice(&load.candidate_json).expect("JSON");
                self.provider = candidate.provider;
                let placement_json = serde_json::to_vec(&Placement::default()).expect("plain");
                let loaded = Loaded {
                    placement_json,
                    load_us: 1,
                    ..Loaded::default()
                };
                self.tell(WorkerEvent::Loaded(Box::new(loaded)));
            }
            Command::StartJob(start) => {
                let from = start.resume_token_ids.len() as u32;
                self.answer(start.job, from);
            }
            Command::CancelJob { job } => {
                self.say(job, JobReply::Failed(mote_wire::types::Status::Cancelled));
            }
            Command::AttachStream { stream, socket, .. } => self.stream(stream, socket.into()),
            _ => {}
        }
    }

    fn answer(&mut self, job: u64, from: u32) {
        for index in from..TOKENS {
            let once = || std::fs::File::create_new(self.folder.join("died")).is_ok();
            match self.model.as_str() {
                "dies-once" if index == 3 && once() => std::process::abort(),
                "dies" if index == 3 => std::process::abort(),
                "slow" => std::thread::sleep(std::time::Duration::from_millis(100)),
                // The rest comes when it is cancelled, or never.
                "hangs" if index == 3 => return,
                "deaf" if index == 3 => loop {
                    std::thread::park();
                },
                _ => {}
            }
            let progress = Progress {
                stage: Stage::Decode,
                done: u64::from(index),
                total: None,
                remaining_ms: None,
            };
            self.say(job, JobReply::Progress(progress));
            self.say(job, JobReply::Token(Token::new(index, index, "x")));
        }
        self.say(job, JobReply::Done(Box::<Done>::default()));
    }

    /// Answers every push with an empty result, until the client leaves or, by name, at once never.
    fn stream(&mut self, stream: u64, socket: UnixStream) {
        let mut client = Connection::new(socket, Link::Client);
        while let Ok(Some(frame)) = client.recv() {
            let (id, _) = frame_to_request(frame).expect("the client speaks the wire");
            if self.model == "dies" {
                std::process::abort();
            }
            if self.provider == FRAIL {
                let rejection = Rejection::DeviceLost { why: "gone".into() };
                return self.tell(WorkerEvent::StreamFaulted {
                    stream,
                    rejection_json: serde_json::to_vec(&rejection).expect("plain"),
                });
            }
            let result = StreamResult {
                outputs: Vec::new(),
                compute_us: 1,
                bytes_copied: 0,
                bytes_converted: 0,
            };
            let frame = reply_to_frame(id, Reply::StreamResult(result)).expect("it fits");
            if client.send(frame).is_err() {
                break;
            }
        }
        self.tell(WorkerEvent::StreamEnded {
            stream,
            steps: 1,
            compute_us: 1,
            bytes_copied: 0,
        });
    }
}
