//! The one owner of the broker's state: a state machine over a closed set of events.
//!
//! [`Core::handle`] takes an event and the time and answers effects; it reads no clock, no socket
//! and no process, so that tests can play any history to it. Its only system calls make and
//! duplicate descriptors and look at file metadata.

mod buffers;
mod compiled;
mod connection;
mod ending;
mod event;
mod failover;
mod instance;
mod job;
mod memory;
mod power;
mod probes;
mod quota;
mod report;
mod requests;
mod run;
mod seek;
mod steers;
mod stream_faults;
mod streams;
mod supervise;
mod trials;
mod watch;
mod work;

pub use compiled::CompiledRoot;
pub use event::{Attempt, Effect, Event, Exit, Finding, Outcome, Peer};
pub use trials::{Choose, TrialLimits};

use crate::catalogue::{Catalogue, Stamp};
use crate::flavours::Flavours;
use crate::ids::{ConnectionId, Counter, JobId, RequestKey, StreamId, WantId, WorkerId};
use crate::limits::LOAD_SAMPLE_MS;
use crate::policy::history::History;
use crate::policy::ledger::Ledgers;
use crate::policy::load::LoadMonitor;
use crate::policy::power::{Monitor, Setting};
use crate::policy::queue::DeviceQueue;
use crate::policy::timers::Timers;
use connection::Connection;
use ending::Ending;
use instance::{Instance, State};
use job::Job;
use mote_wire::types::{Command, Reply, Status};
use seek::{Choice, Parked, Want};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};
use streams::Stream;

/// What the broker was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The user it runs as, who may hear of everybody's work.
    pub uid: u32,
    /// Memory that models may take together.
    pub budget_bytes: u64,
    /// Of devices with memory of their own, by id: how much of it models may take together.
    pub device_memory: BTreeMap<String, u64>,
    /// Cores to compute with.
    pub cores: usize,
    /// When it was started.
    pub started: Instant,
    /// Where seeds for samplers come from.
    pub seed: u64,
    /// An unused model is unloaded after this.
    pub idle_unload: Duration,
    /// What the user says about power.
    pub power: Setting,
    /// Whether ways to run a model are tried before they are used.
    pub choose: Choose,
    /// How long trials may take.
    pub trial_limits: TrialLimits,
    /// How long a step on a device may take at least before it counts as hung, in milliseconds.
    pub step_limit_ms: u64,
    /// Where what providers compile is kept; nothing is kept without.
    pub compiled: Option<CompiledRoot>,
    /// When it was started, in seconds since 1970.
    pub started_unix_s: u64,
}

/// Something that waits for a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Deadline(RequestKey),
    CancelGrace(JobId),
    StepHangs(JobId),
    Handshake(WorkerId),
    LoadSilence(WorkerId),
    Compiling(WorkerId),
    Backoff(WorkerId),
    IdleUnload(WorkerId),
    StopGrace(WorkerId),
    SampleLoad,
    Drained,
    Settled,
    Awake,
}

/// The broker's state.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    now: Instant,
    catalogue: Catalogue,
    probes: probes::Probes,
    history: History,
    trials: trials::Trialling,
    /// Files whose digests were verified, by the model's digest.
    verified: HashMap<String, Stamp>,
    ledgers: Ledgers,
    load: LoadMonitor,
    /// Whether anything has computed since the last look at the machine's load.
    computed: bool,
    power: Monitor,
    /// The machine sleeps, or is about to.
    asleep: bool,
    /// A lock that delays sleep was asked for.
    inhibits: bool,
    /// There is one.
    sleep_delayed: bool,
    connections: BTreeMap<ConnectionId, Connection>,
    jobs: BTreeMap<JobId, Job>,
    wants: BTreeMap<WantId, Want>,
    /// Answers of the planner that still hold.
    choices: Vec<Choice>,
    parked: Vec<Parked>,
    rescans: Rescans,
    unloads: Vec<(RequestKey, BTreeSet<WorkerId>)>,
    instances: BTreeMap<WorkerId, Instance>,
    queues: BTreeMap<String, DeviceQueue>,
    buffers: buffers::Buffers,
    streams: BTreeMap<StreamId, Stream>,
    timers: Timers<Timer>,
    ids: Ids,
    /// Mean time of a job, for refused clients.
    job_ms_mean: f64,
    ending: Ending,
    effects: Vec<Effect>,
}

#[derive(Debug, Default)]
struct Ids {
    jobs: Counter,
    wants: Counter,
    workers: Counter,
    streams: Counter,
    seeds: Counter,
}

/// Who waits for stores and runtimes to be read.
#[derive(Debug, Default)]
struct Rescans {
    /// For the reading in progress.
    now: Vec<RequestKey>,
    /// For the one after: what they know of may have changed since this one began.
    next: Vec<RequestKey>,
    running: bool,
    /// The one in progress is followed by probes that believe nothing from before.
    fresh: bool,
    /// The one after is.
    fresh_next: bool,
    /// The service manager waits for the one in progress.
    reload_now: bool,
    /// It waits for the one after.
    reload_next: bool,
}

impl Core {
    /// With nothing loaded and nobody connected.
    pub fn new(settings: Settings, catalogue: Catalogue, flavours: Flavours) -> Self {
        Self {
            now: settings.started,
            ledgers: Ledgers::new(settings.budget_bytes, &settings.device_memory),
            power: Monitor::new(settings.power),
            asleep: false,
            inhibits: false,
            sleep_delayed: false,
            settings,
            catalogue,
            probes: probes::Probes::new(flavours),
            history: History::default(),
            trials: trials::Trialling::default(),
            verified: HashMap::new(),
            load: LoadMonitor::default(),
            computed: false,
            connections: BTreeMap::new(),
            jobs: BTreeMap::new(),
            wants: BTreeMap::new(),
            choices: Vec::new(),
            parked: Vec::new(),
            rescans: Rescans::default(),
            unloads: Vec::new(),
            instances: BTreeMap::new(),
            queues: BTreeMap::new(),
            buffers: buffers::Buffers::default(),
            streams: BTreeMap::new(),
            timers: Timers::default(),
            ids: Ids::default(),
            job_ms_mean: 0.0,
            ending: Ending::No,
            effects: Vec::new(),
        }
    }

    /// Takes an event and answers what is to be done, in this order.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        self.now = now;
        if !event.leaves_choices() {
            self.choices.clear();
        }
        match event {
            Event::Connected { connection, peer } => self.connected(connection, peer),
            Event::Request {
                connection,
                request,
                body,
            } => {
                self.request(
                    RequestKey {
                        connection,
                        request,
                    },
                    body,
                );
            }
            Event::Disconnected { connection } => self.disconnected(connection),
            Event::WorkerStarted { worker, pid } => self.worker_started(worker, pid),
            Event::WorkerUnstartable { worker, cause } => self.worker_unstartable(worker, cause),
            Event::Worker { worker, event } => self.worker_event(worker, event),
            Event::WorkerEnded { worker, exit } => self.worker_ended(worker, exit),
            Event::Probed {
                generation,
                flavour,
                capabilities,
            } => {
                if self.probes.found(generation, &flavour, capabilities) {
                    self.unpark();
                }
            }
            Event::Tried { worker, finding } => self.trial_ended(worker, *finding),
            Event::Rescanned {
                catalogue,
                flavours,
            } => self.rescanned(catalogue, flavours),
            Event::LoadSampled(sample) => self.load_sampled(sample),
            Event::Power(observation) => self.power_observed(observation),
            Event::SleepDelayed(held) => self.sleep_delayed = held,
            Event::Sleeping => self.fall_asleep(),
            Event::Resumed => self.wake_up(),
            Event::Tick => {}
            Event::Reload => self.reload(),
            Event::Drain { limit } => self.drain(limit),
            Event::Shutdown => self.shut_down(),
        }
        while let Some(timer) = self.timers.pop_due(now) {
            self.fire(timer);
        }
        self.answer_trial();
        self.schedule();
        self.tend_streams();
        self.tend_drain();
        self.tend_load_samples();
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is due; `None` when nothing waits for a point in time.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.next_due()
    }

    /// Models that are loaded.
    pub fn models_loaded(&self) -> usize {
        let ready = |instance: &&Instance| instance.state == State::Ready;
        self.instances.values().filter(ready).count()
    }

    /// Whether it was shut down and all workers have ended.
    pub fn is_over(&self) -> bool {
        self.ending == Ending::Stopping && self.instances.is_empty()
    }

    fn fire(&mut self, timer: Timer) {
        if timer != Timer::SampleLoad {
            self.choices.clear();
        }
        match timer {
            Timer::Deadline(key) => self.deadline_passed(key),
            Timer::CancelGrace(job) => self.cancel_ignored(job),
            Timer::StepHangs(job) => self.step_hangs(job),
            Timer::Handshake(worker) => self.condemn(worker, "it did not say hello in time"),
            Timer::LoadSilence(worker) => self.condemn(worker, "it loads without a sign of life"),
            Timer::Compiling(worker) => self.tell_compiling(worker),
            Timer::Backoff(worker) => self.launch(worker),
            Timer::IdleUnload(worker) => self.stop(worker, "it was not used"),
            Timer::StopGrace(worker) => self.effects.push(Effect::Kill { worker }),
            Timer::SampleLoad => self.sample_due(),
            Timer::Drained => self.shut_down(),
            Timer::Settled => self.set_inhibited(false),
            Timer::Awake => self.wake_up(),
        }
    }

    fn set_timer(&mut self, timer: Timer, after_ms: u64) {
        self.timers
            .set(timer, self.now + Duration::from_millis(after_ms));
    }

    fn send(&mut self, worker: WorkerId, command: Command) {
        self.effects.push(Effect::Send { worker, command });
    }

    /// Sends an answer; a closing one closes the request.
    fn reply(&mut self, key: RequestKey, reply: Reply) {
        let Some(connection) = self.connections.get_mut(&key.connection) else {
            return;
        };
        if reply.closes() {
            connection.open.remove(&key.request);
            self.timers.cancel(&Timer::Deadline(key));
        }
        let RequestKey {
            connection,
            request,
        } = key;
        self.effects.push(Effect::Reply {
            connection,
            request,
            reply,
        });
    }

    fn fail(&mut self, key: RequestKey, status: Status) {
        self.reply(key, Reply::Failed(status));
    }

    fn connected(&mut self, connection: ConnectionId, peer: Peer) {
        if self.ending != Ending::No {
            self.effects.push(Effect::Close { connection });
            return;
        }
        log::debug!(
            connection = connection.0, uid = peer.uid, pid = peer.pid,
            client:? = peer.client_name; "client said hello"
        );
        self.connections.insert(connection, Connection::new(peer));
    }

    fn disconnected(&mut self, connection: ConnectionId) {
        let Some(gone) = self.connections.remove(&connection) else {
            return;
        };
        log::debug!(
            connection = connection.0, client:? = gone.peer.client_name, open = gone.open.len();
            "client has gone"
        );
        for (request, open) in gone.open {
            let key = RequestKey {
                connection,
                request,
            };
            self.timers.cancel(&Timer::Deadline(key));
            self.cancel_open(key, open, Status::Cancelled);
        }
        let of_client = self
            .streams
            .iter()
            .filter(|(_, one)| one.connection == connection);
        let streams: Vec<StreamId> = of_client.map(|(id, _)| *id).collect();
        for stream in streams {
            let why = "the connection that opened it was closed".to_owned();
            self.end_stream(stream, Status::Revoked { why });
        }
        for (buffer, workers) in self.buffers.forget_connection(connection) {
            self.unmap(buffer, &workers);
        }
        for worker in self.instances.keys().copied().collect::<Vec<_>>() {
            self.tend(worker);
        }
    }

    fn load_sampled(&mut self, sample: Option<crate::policy::load::Sample>) {
        let Some(load) = sample.and_then(|sample| self.load.observe(sample)) else {
            return;
        };
        log::info!(load:? = load; "the rest of the machine changed its mind");
        self.tell_pace_to_all();
    }

    fn sample_load(&mut self) {
        let pids = self
            .instances
            .values()
            .filter_map(|instance| instance.pid)
            .collect();
        self.effects.push(Effect::SampleLoad { pids });
    }

    /// Samples are taken at intervals while something computes, and at no other time. A job alone
    /// pays for none: a look at the machine costs as much as a small job.
    fn tend_load_samples(&mut self) {
        let computes = |instance: &Instance| match instance.state {
            State::Starting | State::Loading => true,
            State::Ready => !instance.jobs.is_empty() || !instance.streams.is_empty(),
            State::AwaitingMemory | State::BackingOff | State::Stopping => false,
        };
        if !self.computed && self.instances.values().any(computes) {
            self.computed = true;
            if !self.timers.is_set(&Timer::SampleLoad) {
                self.set_timer(Timer::SampleLoad, LOAD_SAMPLE_MS);
            }
        }
    }

    fn sample_due(&mut self) {
        let computed = std::mem::take(&mut self.computed);
        self.tend_inhibition(computed);
        if computed {
            self.sample_load();
            self.set_timer(Timer::SampleLoad, LOAD_SAMPLE_MS);
        } else {
            self.load.interrupt();
        }
    }
}
