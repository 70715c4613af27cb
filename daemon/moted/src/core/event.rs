//! What the core is told, and what it wants done.

use super::trials::TrialLimits;
use crate::catalogue::{Catalogue, Verified};
use crate::flavours::{Flavours, Installed};
use crate::ids::{ConnectionId, WorkerId};
use crate::policy::load::Sample;
use crate::policy::power::Observation;
use crate::policy::trials::Record;
use mote_api::{Capability, Rejection, Samples, TrialTerms, Verdict};
use mote_wire::types::{
    Command, LoadModel, Loaded, Reply, Request, Status, StatusReport, WorkerEvent,
};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Who is at the other end of a connection, as the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its process when it connected.
    pub pid: i32,
    /// What it calls itself.
    pub client_name: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// The signal that ended it; 0 when it exited by itself.
    pub signal: i32,
    /// Its exit code otherwise.
    pub exit_code: i32,
}

impl Exit {
    /// As a status for those who waited for the process.
    pub fn status(self) -> Status {
        Status::WorkerDied {
            signal: self.signal,
            exit_code: self.exit_code,
        }
    }
}

impl Event {
    /// Whether the planner's lasting answers still hold after it; those of a worker that is told to
    /// leave do not count anyway.
    pub(super) fn leaves_choices(&self) -> bool {
        let is_job = |event: &WorkerEvent| matches!(event, WorkerEvent::Job { .. });
        match self {
            Self::Request { .. }
            | Self::LoadSampled(_)
            | Self::Power(_)
            | Self::SleepDelayed(_)
            | Self::Tick => true,
            Self::Worker { event, .. } => is_job(event),
            _ => false,
        }
    }
}

/// What a trial is to do.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The model and where it is to run.
    pub load: LoadModel,
    /// What to compare with, and when to stop.
    pub terms: TrialTerms,
    /// How long it may take.
    pub limits: TrialLimits,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was loaded, if it came so far.
    pub loaded: Option<Box<Loaded>>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a trial ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// As it should.
    Tried {
        /// What was found.
        verdict: Verdict,
        /// What the reference computed.
        samples: Option<Samples>,
    },
    /// The model was not loaded; without a reason the model itself is at fault.
    Unloadable(Option<Rejection>),
    /// The process did not get to the end.
    Broken(Rejection),
}

/// Everything that can happen to the broker.
#[derive(Debug)]
pub enum Event {
    /// A client has said hello.
    Connected {
        /// Its connection.
        connection: ConnectionId,
        /// Who it is.
        peer: Peer,
    },
    /// A client asks for something.
    Request {
        /// Its connection.
        connection: ConnectionId,
        /// Its number for the request.
        request: u64,
        /// What it asks for.
        body: Request,
    },
    /// A connection has ended.
    Disconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// A worker process was started.
    WorkerStarted {
        /// Which.
        worker: WorkerId,
        /// Its process.
        pid: i32,
    },
    /// A worker process could not be started.
    WorkerUnstartable {
        /// Which.
        worker: WorkerId,
        /// Why.
        cause: String,
    },
    /// A worker says something.
    Worker {
        /// Which.
        worker: WorkerId,
        /// What.
        event: WorkerEvent,
    },
    /// A worker process has ended, and nothing more will be heard of it.
    WorkerEnded {
        /// Which.
        worker: WorkerId,
        /// How.
        exit: Exit,
    },
    /// What a flavour can do here.
    Probed {
        /// Of which reading of the runtime folders.
        generation: u64,
        /// Name of the flavour.
        flavour: String,
        /// What was found; never empty.
        capabilities: Vec<Capability>,
    },
    /// A trial has ended, and its process too.
    Tried {
        /// Which.
        worker: WorkerId,
        /// What was found.
        finding: Box<Finding>,
    },
    /// The stores and runtime folders were read anew.
    Rescanned {
        /// The models.
        catalogue: Catalogue,
        /// The runtimes.
        flavours: Flavours,
    },
    /// What the machine is doing; `None` when the kernel did not tell.
    LoadSampled(Option<Sample>),
    /// Something about profile, supply or heat was seen or heard.
    Power(Observation),
    /// Whether a lock is held that delays sleep, as [`Effect::Inhibit`] may have it.
    SleepDelayed(bool),
    /// The machine is about to sleep.
    Sleeping,
    /// The machine has slept, or does not sleep after all.
    Resumed,
    /// The time [`super::Core::next_due`] has come.
    Tick,
    /// Stores and runtime folders are to be read anew, and everything probed; [`Effect::Reloaded`]
    /// tells when they were read.
    Reload,
    /// The broker is to end as soon as the jobs that run have ended.
    Drain {
        /// How long that may take.
        limit: Duration,
    },
    /// The broker is to end.
    Shutdown,
}

/// What the core wants done. Effects are carried out in their order.
#[derive(Debug)]
pub enum Effect {
    /// Answer a request.
    Reply {
        /// Where to.
        connection: ConnectionId,
        /// The client's number for the request.
        request: u64,
        /// The answer.
        reply: Reply,
    },
    /// Answer a request with a report, after the resident memory of broker and workers was filled
    /// in.
    Report {
        /// Where to.
        connection: ConnectionId,
        /// The client's number for the request.
        request: u64,
        /// The report.
        report: Box<StatusReport>,
    },
    /// Close a connection when everything was sent; [`Event::Disconnected`] follows.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Start a worker process; [`Event::WorkerStarted`] or [`Event::WorkerUnstartable`] follows.
    Spawn {
        /// Which.
        worker: WorkerId,
    },
    /// Tell a worker something.
    Send {
        /// Which.
        worker: WorkerId,
        /// What.
        command: Command,
    },
    /// Kill a worker process; [`Event::WorkerEnded`] follows.
    Kill {
        /// Which.
        worker: WorkerId,
    },
    /// Find out what a flavour can do here; [`Event::Probed`] follows.
    Probe {
        /// Of which reading of the runtime folders.
        generation: u64,
        /// The flavour.
        installed: Arc<Installed>,
        /// Do not believe what was found before.
        fresh: bool,
    },
    /// Try a way to run a model in a process of its own; [`Event::Tried`] follows.
    Try {
        /// The process, which is no worker.
        worker: WorkerId,
        /// What to try.
        attempt: Box<Attempt>,
    },
    /// End a trial; nothing follows.
    StopTrial {
        /// Which.
        worker: WorkerId,
    },
    /// Remove what providers compiled and nobody uses, as far as there is too much of it.
    TidyCompiled {
        /// Folders that stay.
        in_use: Vec<PathBuf>,
    },
    /// Keep what trials found, all of it.
    KeepTrials(Vec<Record>),
    /// Keep which files were verified.
    KeepVerified(Vec<Verified>),
    /// Read stores and runtime folders anew; [`Event::Rescanned`] follows.
    Rescan,
    /// What [`Event::Reload`] asked for is done.
    Reloaded,
    /// Look at what the machine is doing and how hot it is; [`Event::LoadSampled`] follows, and
    /// [`Event::Power`] if there is anything to tell.
    SampleLoad {
        /// Our workers.
        pids: Vec<i32>,
    },
    /// Hold a lock that delays sleep, or let go of it; [`Event::SleepDelayed`] follows if there is
    /// anybody to ask for one.
    Inhibit {
        /// Whether it is to be held.
        hold: bool,
    },
    /// Tell a stream's client that it is over, and shut its socket down for both ends.
    EndStream {
        /// The worker's end.
        socket: OwnedFd,
        /// Why.
        status: Status,
    },
}
