//! The loop: carries events to the core and its effects out.

use crate::bus::{self, BusOptions, Visitor};
use crate::catalogue::VerifiedStore;
use crate::core::{Attempt, Choose, CompiledRoot, Core, Effect, Event, Settings, TrialLimits};
use crate::flavours::{self, Installed};
use crate::ids::{ConnectionId, Counter, WorkerId};
use crate::limits::{
    ACCEPT_PAUSE_MS, BATCHES_IN_A_ROW_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_UID_MAX, DRAIN_JOBS_MS,
    EVENTS_AT_ONCE_MAX, EVENTS_MAX, FLUSH_LIMIT_MS,
};
use crate::listen::{ListenError, Listener};
use crate::logging::Limiter;
use crate::power::{Power, PowerOptions};
use crate::probe::{ProbeCache, Prober, machine_stamp};
use crate::service::{Order, Service};
use crate::session::{self, Credentials, Session};
use crate::trial::{self, TrialStore};
use crate::way::WayOut;
use crate::workers::{self, Handle, Launcher};
use crate::{catalogue, compiled, machine, streams};
use mote_wire::codec::command_to_frame;
use mote_wire::types::{Command, JobReply, Reply, Status, StatusReport, WorkerEvent};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep_until, timeout};

/// What the daemon is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub socket: PathBuf,
    /// Model stores, the first one counts most.
    pub stores: Vec<PathBuf>,
    /// Folders of runtime flavours, the first one counts most.
    pub runtimes: Vec<PathBuf>,
    /// Where probe results are kept.
    pub state: PathBuf,
    /// The worker program.
    pub worker: PathBuf,
    /// Whether workers are kept in their sandbox.
    pub sandbox: bool,
    /// Memory that models may take together.
    pub budget_bytes: u64,
    /// Of devices with memory of their own, by id: how much of it models may take together.
    pub device_memory: BTreeMap<String, u64>,
    /// An unused model is unloaded after this.
    pub idle_unload: Duration,
    /// How long a probe of a flavour, or of one of its providers alone, may take.
    pub probe_limit: Duration,
    /// How long jobs that run may go on once the daemon is to end; by default none without a service
    /// manager, [`DRAIN_JOBS_MS`] with one.
    pub drain: Option<Duration>,
    /// The service on D-Bus, if there is to be one.
    pub bus: Option<BusOptions>,
    /// How power is dealt with.
    pub power: PowerOptions,
    /// Whether ways to run a model are tried before they are used.
    pub choose: Choose,
    /// How long trials may take.
    pub trial_limits: TrialLimits,
    /// How long a step on a device may take at least before it counts as hung, in milliseconds.
    pub step_limit_ms: u64,
    /// Folder for what providers compile.
    pub compiled: PathBuf,
    /// How much of that is kept; with 0 nothing is.
    pub compiled_bytes_max: u64,
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No socket.
    #[error("cannot serve")]
    Listen(#[from] ListenError),
    /// No descriptors.
    #[error("cannot prepare to start workers")]
    Launcher(#[source] io::Error),
}

/// Connections that were refused, and the like: what any peer can cause.
static PEER_LINES: Limiter = Limiter::new(5, 10_000);

struct Daemon {
    options: Options,
    started: Instant,
    core: Core,
    events: mpsc::Sender<Event>,
    /// Events of the effects being carried out, taken before any others.
    at_once: VecDeque<Event>,
    sessions: HashMap<ConnectionId, Session>,
    closing: JoinSet<()>,
    /// Ways out with something queued.
    touched: Vec<WayOut>,
    connections: Counter,
    launcher: Arc<Launcher>,
    workers: HashMap<WorkerId, Handle>,
    probes: ProbeCache,
    probing: HashMap<String, Arc<Installed>>,
    prober: JoinSet<()>,
    trials: TrialStore,
    verified: VerifiedStore,
    trying: HashMap<WorkerId, AbortHandle>,
    service: Service,
    power: Power,
}

/// Where connections and orders come from.
struct WaysIn {
    /// Until the daemon is to end.
    listener: Option<Listener>,
    visitors: mpsc::Receiver<Visitor>,
    orders: mpsc::Receiver<Order>,
}

impl WaysIn {
    async fn accept(listener: Option<&Listener>) -> io::Result<(UnixStream, Credentials)> {
        match listener {
            Some(listener) => listener.accept().await,
            None => std::future::pending().await,
        }
    }
}

/// Serves until it is ordered to stop, and then until all workers have ended.
///
/// `inherited` is the socket that the service manager listens on.
///
/// # Errors
/// When it cannot listen.
pub async fn run(
    options: Options,
    inherited: Option<UnixListener>,
    orders: mpsc::Receiver<Order>,
) -> Result<(), DaemonError> {
    let started = Instant::now();
    let listener = match inherited {
        Some(inherited) => Listener::inherit(inherited)?,
        None => Listener::bind(&options.socket)?,
    };
    let launcher =
        Launcher::new(options.worker.clone(), options.sandbox).map_err(DaemonError::Launcher)?;
    let launcher = Arc::new(launcher);
    let (events, mut inbox) = mpsc::channel(EVENTS_MAX);
    let settings = Settings {
        uid: nix::unistd::getuid().as_raw(),
        budget_bytes: options.budget_bytes,
        device_memory: options.device_memory.clone(),
        cores: machine::cores(),
        started,
        seed: machine::random_seed(),
        idle_unload: options.idle_unload,
        power: options.power.setting,
        choose: options.choose,
        trial_limits: options.trial_limits,
        step_limit_ms: options.step_limit_ms,
        compiled: (options.compiled_bytes_max > 0).then(|| CompiledRoot {
            folder: options.compiled.clone(),
            machine: machine_stamp(&options.worker),
        }),
        started_unix_s: machine::unix_s(),
    };
    let models = catalogue::scan(&options.stores);
    let flavours = flavours::scan(&options.runtimes);
    log::info!(
        socket = listener.path().display().to_string(), models = models.len(),
        budget_bytes = options.budget_bytes, cores = settings.cores; "serving"
    );
    let mut daemon = Daemon {
        started,
        core: Core::new(settings, models, flavours),
        power: Power::start(options.power.clone(), events.clone()),
        events,
        at_once: VecDeque::new(),
        sessions: HashMap::new(),
        closing: JoinSet::new(),
        touched: Vec::new(),
        connections: Counter::default(),
        launcher,
        workers: HashMap::new(),
        probes: ProbeCache::new(&options.state, options.worker.clone()),
        probing: HashMap::new(),
        prober: JoinSet::new(),
        trials: TrialStore::new(&options.state, &options.worker),
        verified: VerifiedStore::new(&options.state),
        trying: HashMap::new(),
        service: Service::find(started),
        options,
    };
    let found = daemon.trials.read();
    daemon.core.recall_trials(found);
    let verified = daemon.verified.read();
    daemon.core.recall_verified(verified);
    let (visitors, gateway) = bus::start(daemon.options.bus.clone());
    daemon.service.ready();
    let ways_in = WaysIn {
        listener: Some(listener),
        visitors,
        orders,
    };
    daemon.serve(ways_in, &mut inbox).await;
    daemon.leave().await;
    if let Some(gateway) = gateway {
        gateway.abort();
    }
    Ok(())
}

impl Daemon {
    async fn serve(&mut self, mut ways_in: WaysIn, inbox: &mut mpsc::Receiver<Event>) {
        let mut accept_from: Option<Instant> = None;
        let mut in_a_row = 0;
        // One timer, set anew only when what is due has changed: making one costs more than an event.
        let mut alarm = pin!(sleep_until(self.started.into()));
        while !self.core.is_over() {
            self.service.sign(Instant::now());
            let due = [self.core.next_due(), accept_from, self.service.next_sign()]
                .into_iter()
                .flatten()
                .min();
            if let Some(due) = due.map(tokio::time::Instant::from)
                && alarm.deadline() != due
            {
                alarm.as_mut().reset(due);
            }
            // Events go ahead of all other sources, which then need not be looked at; but not for ever.
            let batches = std::mem::take(&mut in_a_row);
            let accept = WaysIn::accept(ways_in.listener.as_ref());
            let event = tokio::select! {
                biased;
                Some(event) = inbox.recv(), if batches < BATCHES_IN_A_ROW_MAX => {
                    in_a_row = batches + 1;
                    event
                }
                accepted = accept, if accept_from.is_none() => {
                    match accepted {
                        Ok((socket, peer)) => self.accept(socket, peer),
                        Err(error) => {
                            if PEER_LINES.allows(self.started) {
                                log::warn!("cannot accept a connection: {error}");
                            }
                            accept_from =
                                Some(Instant::now() + Duration::from_millis(ACCEPT_PAUSE_MS));
                        }
                    }
                    continue;
                }
                Some((socket, peer)) = ways_in.visitors.recv() => {
                    self.accept(socket, peer);
                    continue;
                }
                Some(order) = ways_in.orders.recv() => self.obey(order, &mut ways_in.listener),
                Some(_) = self.closing.join_next() => continue,
                Some(_) = self.prober.join_next() => continue,
                () = &mut alarm, if due.is_some() => {
                    accept_from = accept_from.filter(|at| *at > Instant::now());
                    Event::Tick
                }
                () = std::future::ready(()), if batches >= BATCHES_IN_A_ROW_MAX => continue,
            };
            self.step(event);
            // What one read of a socket has brought leaves together, too.
            for _ in 1..EVENTS_AT_ONCE_MAX {
                let Ok(event) = inbox.try_recv() else { break };
                self.step(event);
            }
            self.flush();
            self.service.loaded(self.core.models_loaded());
        }
    }

    fn obey(&mut self, order: Order, listener: &mut Option<Listener>) -> Event {
        let drain = self.options.drain.unwrap_or_else(|| {
            let is_service = self.service.is_there();
            Duration::from_millis(if is_service { DRAIN_JOBS_MS } else { 0 })
        });
        match order {
            Order::Reload => {
                self.service.reloading();
                Event::Reload
            }
            Order::Stop if listener.take().is_some() && !drain.is_zero() => {
                self.service.stopping();
                Event::Drain { limit: drain }
            }
            Order::Stop => Event::Shutdown,
        }
    }

    /// Sends what the events have caused, in the order in which it was caused.
    fn flush(&mut self) {
        for way in self.touched.drain(..) {
            way.flush();
        }
    }

    /// Gives clients the time to hear why, and ends everything that still runs.
    async fn leave(mut self) {
        self.prober.shutdown().await;
        for (_, session) in self.sessions.drain() {
            self.closing.spawn(session.close());
        }
        let closed = async { while self.closing.join_next().await.is_some() {} };
        let _ = timeout(Duration::from_millis(2 * FLUSH_LIMIT_MS), closed).await;
        log::info!("good bye");
    }

    fn step(&mut self, event: Event) {
        self.at_once.push_back(event);
        while let Some(event) = self.at_once.pop_front() {
            match &event {
                Event::Disconnected { connection } => self.close(*connection),
                Event::WorkerEnded { worker, .. } => drop(self.workers.remove(worker)),
                Event::Tried { worker, .. } => drop(self.trying.remove(worker)),
                Event::Probed {
                    flavour,
                    capabilities,
                    ..
                } => {
                    if let Some(installed) = self.probing.remove(flavour) {
                        self.probes.keep(&installed, capabilities);
                    }
                }
                _ => {}
            }
            for effect in self.core.handle(event, Instant::now()) {
                self.carry_out(effect);
            }
        }
    }

    fn accept(&mut self, socket: UnixStream, peer: Credentials) {
        let of_user = self
            .sessions
            .values()
            .filter(|session| session.uid == peer.uid)
            .count();
        let limits = [
            ("connections", self.sessions.len(), CONNECTIONS_MAX),
            ("connections of one user", of_user, CONNECTIONS_PER_UID_MAX),
        ];
        let over = limits.into_iter().find(|(_, have, limit)| have >= limit);
        if let Some((what, have, limit)) = over {
            if PEER_LINES.allows(self.started) {
                log::warn!(uid = peer.uid, limit = limit; "too many {what}");
            }
            let (what, have, limit) = (what.to_owned(), have as u64 + 1, limit as u64);
            let status = Status::LimitExceeded { what, have, limit };
            self.closing.spawn(session::refuse(socket, status));
            return;
        }
        let connection = ConnectionId(self.connections.draw());
        let session = match Session::open(socket, connection, peer, self.events.clone()) {
            Ok(session) => session,
            Err(error) => {
                log::warn!("cannot serve a connection: {error}");
                return;
            }
        };
        log::debug!(connection = connection.0, uid = peer.uid, pid = peer.pid; "connected");
        self.sessions.insert(connection, session);
    }

    fn close(&mut self, connection: ConnectionId) {
        if let Some(session) = self.sessions.remove(&connection) {
            self.closing.spawn(session.close());
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Reply {
                connection,
                request,
                reply,
            } => {
                self.reply(connection, request, reply);
            }
            Effect::Report {
                connection,
                request,
                report,
            } => {
                let reply = Reply::StatusReport(Box::new(with_memory(*report)));
                self.reply(connection, request, reply);
            }
            Effect::Close { connection } => {
                self.close(connection);
                self.at_once.push_back(Event::Disconnected { connection });
            }
            Effect::Spawn { worker } => self.spawn(worker),
            Effect::Send { worker, command } => self.send(worker, command),
            Effect::Kill { worker } => {
                if let Some(handle) = self.workers.get(&worker) {
                    handle.kill();
                }
            }
            Effect::Probe {
                generation,
                installed,
                fresh,
            } => {
                self.probe(generation, installed, fresh);
            }
            Effect::Try { worker, attempt } => self.attempt(worker, *attempt),
            Effect::StopTrial { worker } => {
                if let Some(task) = self.trying.remove(&worker) {
                    task.abort();
                }
            }
            Effect::TidyCompiled { in_use } => self.tidy_compiled(in_use),
            Effect::KeepTrials(records) => self.trials.keep(&records),
            Effect::KeepVerified(models) => self.verified.keep(&models),
            Effect::Rescan => self.rescan(),
            Effect::SampleLoad { pids } => {
                self.power.look();
                self.at_once
                    .push_back(Event::LoadSampled(machine::sample_load(&pids)));
            }
            Effect::Inhibit { hold } => self.power.work_lasts(hold),
            Effect::EndStream { socket, status } => streams::end(&socket, status),
            Effect::Reloaded => self.service.ready(),
        }
    }

    fn reply(&mut self, connection: ConnectionId, request: u64, reply: Reply) {
        let Some(outbox) = self.sessions.get(&connection).map(Session::outbox) else {
            return;
        };
        let Err(overflow) = outbox.push(request, reply) else {
            return self.touched.push(outbox.way().clone());
        };
        if PEER_LINES.allows(self.started) {
            log::warn!(connection = connection.0; "connection is cut: {overflow}");
        }
        if let Some(session) = self.sessions.remove(&connection) {
            session.abort();
        }
        self.at_once.push_back(Event::Disconnected { connection });
    }

    fn spawn(&mut self, worker: WorkerId) {
        let launched = self.launcher.launch(&[]).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        });
        let supervised = launched.and_then(|launched| {
            let pid = launched
                .child
                .id()
                .and_then(|pid| i32::try_from(pid).ok())
                .unwrap_or(0);
            let handle = workers::supervise(launched, worker, self.events.clone());
            handle
                .map(|handle| (handle, pid))
                .map_err(|error| error.to_string())
        });
        self.at_once.push_back(match supervised {
            Ok((handle, pid)) => {
                self.workers.insert(worker, handle);
                Event::WorkerStarted { worker, pid }
            }
            Err(cause) => Event::WorkerUnstartable { worker, cause },
        });
    }

    fn send(&mut self, worker: WorkerId, command: Command) {
        let job = match &command {
            Command::StartJob(start) => Some(start.job),
            _ => None,
        };
        let frame = match (command_to_frame(command), job) {
            (Ok(frame), _) => frame,
            (Err(error), Some(job)) => {
                let status = Status::Internal {
                    operation: "start a job".into(),
                    cause: error.to_string(),
                };
                let event = WorkerEvent::Job {
                    job,
                    reply: JobReply::Failed(status),
                };
                return self.at_once.push_back(Event::Worker { worker, event });
            }
            (Err(error), None) => {
                log::error!(worker = worker.0; "a command cannot be encoded: {error}");
                if let Some(handle) = self.workers.get(&worker) {
                    handle.kill();
                }
                return;
            }
        };
        if let Some(handle) = self.workers.get(&worker) {
            handle.push(frame);
            self.touched.push(handle.way().clone());
        }
    }

    fn probe(&mut self, generation: u64, installed: Arc<Installed>, fresh: bool) {
        let flavour = installed.flavour.name.clone();
        let kept = if fresh {
            None
        } else {
            self.probes.find(&installed)
        };
        if let Some(capabilities) = kept {
            let event = Event::Probed {
                generation,
                flavour,
                capabilities,
            };
            return self.at_once.push_back(event);
        }
        log::info!(flavour = flavour; "probing");
        let prober = Prober {
            launcher: Arc::clone(&self.launcher),
            limit: self.options.probe_limit,
        };
        let found = prober.probe(Arc::clone(&installed));
        self.probing.insert(flavour.clone(), installed);
        let events = self.events.clone();
        self.prober.spawn(async move {
            let capabilities = found.await;
            // The daemon is ending when nobody listens.
            let _ = events
                .send(Event::Probed {
                    generation,
                    flavour,
                    capabilities,
                })
                .await;
        });
    }

    fn attempt(&mut self, worker: WorkerId, attempt: Attempt) {
        let launched = self.launcher.launch(&[]);
        let events = self.events.clone();
        let task = self.prober.spawn(async move {
            let finding = Box::new(trial::attempt(launched, attempt).await);
            // The daemon is ending when nobody listens.
            let _ = events.send(Event::Tried { worker, finding }).await;
        });
        self.trying.insert(worker, task);
    }

    fn tidy_compiled(&self, in_use: Vec<PathBuf>) {
        let (root, bytes_max) = (
            self.options.compiled.clone(),
            self.options.compiled_bytes_max,
        );
        tokio::task::spawn_blocking(move || {
            if let Err(error) = compiled::tidy(&root, bytes_max, &in_use) {
                let path = root.display().to_string();
                log::warn!(path = path; "cannot look through what was compiled: {error}");
            }
        });
    }

    fn rescan(&mut self) {
        let (stores, runtimes) = (self.options.stores.clone(), self.options.runtimes.clone());
        self.power.forget_sensors();
        let events = self.events.clone();
        // Disks may be slow.
        tokio::task::spawn_blocking(move || {
            let (catalogue, flavours) = (catalogue::scan(&stores), flavours::scan(&runtimes));
            let _ = events.blocking_send(Event::Rescanned {
                catalogue,
                flavours,
            });
        });
    }
}

fn with_memory(mut report: StatusReport) -> StatusReport {
    report.rss_bytes = machine::resident_bytes(nix::unistd::getpid().as_raw());
    for worker in report.workers.iter_mut().filter(|worker| worker.pid > 0) {
        worker.rss_bytes = machine::resident_bytes(worker.pid);
    }
    report
}
