//! One caller: its calls, and all that it holds. Everything ends with its task, and its task ends
//! when the bus says that the caller has left.

mod clips;
mod dispatch;
mod holds;
mod job;
mod manager;
mod sessions;
mod steers;

use crate::bus::{Answer, Bus, Call, internal, weight};
use crate::describe::{HOLD, Interface, JOB, SESSION};
use crate::door::{Credentials, Door};
use crate::failure::Failure;
use crate::limits::{CALLERS_PER_UID_MAX, CALLS_RUNNING_MAX, CALLS_WAITING_MAX, PING_EVERY_BYTES};
use crate::mirror::{self, Mirror};
use crate::names::{self, Kind, caller_element, check_token};
use crate::options::Options;
use crate::pace::Pace;
use crate::polkit::Policy;
use crate::values::Dict;
use crate::wire::{Answers, Wire};
use mote_wire::types::Status;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use zbus::OwnedVariant;

/// What all callers share.
pub struct Shared {
    /// The way out.
    pub bus: Bus,
    /// The daemon.
    pub door: Arc<dyn Door>,
    /// Models and devices.
    pub mirror: Mirror,
    /// Who may change the machine.
    pub policy: Policy,
    /// Models by their use.
    pub uses: BTreeMap<String, String>,
    /// Where callers tell who they are.
    pub admit: mpsc::Sender<Admission>,
}

/// A caller tells its user, and asks whether it is one too many.
#[derive(Debug)]
pub struct Admission {
    /// Unique name.
    pub name: String,
    /// User.
    pub uid: u32,
    /// Whether it is served.
    pub answer: oneshot::Sender<bool>,
}

/// A caller as the gateway holds it. Its task ends with this.
#[derive(Debug)]
pub struct Handle {
    /// Tells it from earlier callers of the same name that were forgotten.
    pub generation: u64,
    /// User, when it is known.
    pub uid: Option<u32>,
    /// How far it reads.
    pub pace: Arc<Pace>,
    calls: mpsc::Sender<Call>,
    tally: Arc<Tally>,
    _present: oneshot::Sender<()>,
}

/// What a caller's task tells the gateway in passing.
#[derive(Debug, Default)]
struct Tally {
    waiting_bytes: AtomicUsize,
    idle: AtomicBool,
}

impl Handle {
    /// Bytes of calls that wait for their turn.
    pub fn waiting_bytes(&self) -> usize {
        self.tally.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Whether it holds nothing, waits for nothing, and has read about all.
    pub fn is_idle(&self) -> bool {
        self.tally.idle.load(Ordering::Relaxed)
            && self.calls.capacity() == self.calls.max_capacity()
    }

    /// Hands a call over, or gives it back when too many wait.
    pub fn give(&self, call: Call) -> Result<(), Call> {
        let bytes = call.bytes();
        self.tally.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.calls.try_send(call).map_err(|error| {
            self.tally.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            error.into_inner()
        })
    }
}

/// A caller, and the gateway's end of it.
pub fn caller(shared: Arc<Shared>, name: &str, generation: u64) -> (Handle, Caller) {
    let (calls, inbox) = mpsc::channel(CALLS_WAITING_MAX);
    let (present, gone) = oneshot::channel();
    let (pace, tally) = (Arc::new(Pace::default()), Arc::new(Tally::default()));
    let handle = Handle {
        generation,
        uid: None,
        pace: Arc::clone(&pace),
        calls,
        tally: Arc::clone(&tally),
        _present: present,
    };
    let caller = Caller {
        shared,
        name: name.to_owned(),
        element: caller_element(name),
        calls: inbox,
        gone,
        tally,
        state: State {
            pace,
            credentials: Credentials { uid: 0, pid: 0 },
            wire: None,
            jobs: BTreeMap::new(),
            sessions: BTreeMap::new(),
            holds: BTreeMap::new(),
            tokens: 0,
        },
        running: JoinSet::new(),
        work: JoinSet::new(),
    };
    (handle, caller)
}

/// One caller's task.
pub struct Caller {
    shared: Arc<Shared>,
    /// Unique name.
    name: String,
    /// The same as an element of a path.
    element: String,
    calls: mpsc::Receiver<Call>,
    gone: oneshot::Receiver<()>,
    tally: Arc<Tally>,
    state: State,
    /// Calls that wait for somebody else.
    running: JoinSet<Outcome>,
    /// Jobs, and watchers of sessions.
    work: JoinSet<Outcome>,
}

/// What a caller holds.
struct State {
    pace: Arc<Pace>,
    credentials: Credentials,
    wire: Option<Wire>,
    jobs: BTreeMap<String, job::Entry>,
    sessions: BTreeMap<String, sessions::Session>,
    holds: BTreeMap<String, holds::Hold>,
    /// Tokens made for callers that gave none.
    tokens: u64,
}

/// What became of something that ran beside the caller's task.
enum Outcome {
    /// Nothing that concerns what the caller holds.
    Nothing,
    /// The daemon has taken a job.
    JobBegun(String, Box<Answers>, Box<job::Plan>),
    /// The model is pinned.
    HoldBegun(String),
    /// The caller has its socket.
    SessionBegun(String),
    /// It came to nothing.
    Refused(Kind, String),
    /// A session's connection has ended.
    SessionOver(String),
}

/// What to do with a call.
enum Reaction {
    /// It is answered.
    Now(Answer),
    /// It is answered by what runs beside now.
    Later,
}

impl Caller {
    /// Serves until the caller leaves.
    pub async fn run(mut self) {
        let rule = format!(
            "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
             member='NameOwnerChanged',arg0='{}'",
            self.name
        );
        // Before anything that the end of the name has to undo.
        if let Err(error) = self.shared.bus.ask_bus("AddMatch", &rule).await {
            log::warn!("cannot watch a caller: {error}");
            return;
        }
        if self.identify().await {
            self.serve().await;
        }
        let bus = self.shared.bus.clone();
        // All that the caller holds ends before its name is forgotten.
        drop(self);
        if let Err(error) = bus.ask_bus("RemoveMatch", &rule).await {
            log::debug!("cannot stop watching a caller: {error}");
        }
    }

    /// Asks the bus who the caller is, and the gateway whether it is one too many.
    async fn identify(&mut self) -> bool {
        let name = self.name.as_str();
        let told = self.shared.bus.ask_bus("GetConnectionCredentials", &name);
        let Ok(reply) = told.await else {
            // It has left.
            return false;
        };
        let body = reply.body();
        let credentials: BTreeMap<String, OwnedVariant> = body.deserialize().unwrap_or_default();
        let number = |name: &str| {
            let value = credentials.get(name)?;
            u32::try_from(value).ok()
        };
        let Some(uid) = number("UnixUserID") else {
            log::warn!("the bus does not tell a caller's user");
            return false;
        };
        let pid = number("ProcessID").and_then(|pid| i32::try_from(pid).ok());
        self.state.credentials = Credentials {
            uid,
            pid: pid.unwrap_or(0),
        };
        let (answer, admitted) = oneshot::channel();
        let admission = Admission {
            name: self.name.clone(),
            uid,
            answer,
        };
        if self.shared.admit.send(admission).await.is_err() {
            return false;
        }
        let admitted = admitted.await.unwrap_or(false);
        if !admitted {
            let limit = CALLERS_PER_UID_MAX;
            let over = Failure::over("callers of one user", limit + 1, limit);
            while let Ok(call) = self.calls.try_recv() {
                self.reply(&call, Err(over.clone())).await;
            }
        }
        admitted
    }

    async fn serve(&mut self) {
        let pace = Arc::clone(&self.state.pace);
        loop {
            self.tally.idle.store(self.is_idle(), Ordering::Relaxed);
            let may_call = self.running.len() < CALLS_RUNNING_MAX;
            tokio::select! {
                _ = &mut self.gone => return,
                Some(outcome) = self.running.join_next() => self.settle_joined(outcome).await,
                Some(outcome) = self.work.join_next() => self.settle_joined(outcome).await,
                () = pace.opened(), if !pace.is_open() => {}
                Some(call) = self.calls.recv(), if may_call && pace.is_open() => {
                    self.tally.idle.store(false, Ordering::Relaxed);
                    self.tally.waiting_bytes.fetch_sub(call.bytes(), Ordering::Relaxed);
                    if let Reaction::Now(answer) = self.react(&call).await {
                        self.reply(&call, answer).await;
                    }
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        let state = &self.state;
        state.jobs.is_empty()
            && state.sessions.is_empty()
            && state.holds.is_empty()
            && self.running.is_empty()
            && state.pace.unread() < PING_EVERY_BYTES
    }

    async fn settle_joined(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) {
        match outcome {
            Ok(outcome) => self.settle(outcome).await,
            // A session's watcher ends with it.
            Err(error) if error.is_cancelled() => {}
            Err(error) => log::error!("a call's task failed: {error}"),
        }
    }

    async fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::JobBegun(token, answers, plan) => self.begin_job(token, *answers, *plan).await,
            Outcome::HoldBegun(token) => self.begin_hold(&token).await,
            Outcome::SessionBegun(token) => self.begin_session(token).await,
            Outcome::Refused(kind, token) => self.forget(kind, &token),
            Outcome::SessionOver(token) => {
                if self.state.sessions.remove(&token).is_some() {
                    self.tell_removed(Kind::Session, &token, &SESSION).await;
                }
            }
        }
    }

    /// Drops an object that nobody was told of.
    fn forget(&mut self, kind: Kind, token: &str) {
        match kind {
            Kind::Job => drop(self.state.jobs.remove(token)),
            Kind::Hold => drop(self.state.holds.remove(token)),
            Kind::Session => drop(self.state.sessions.remove(token)),
        }
    }

    async fn reply(&self, call: &Call, answer: Answer) {
        let replier = self.replier();
        replier.reply(call, answer).await;
    }

    /// For what runs beside the caller's task.
    fn replier(&self) -> Replier {
        Replier {
            bus: self.shared.bus.clone(),
            name: self.name.clone(),
            pace: Arc::clone(&self.state.pace),
        }
    }

    /// Answers a call by what has to be waited for, beside the caller's task.
    fn beside<F>(&mut self, call: &Call, made: impl FnOnce(Call) -> F) -> Reaction
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let (replier, replied) = (self.replier(), call.clone());
        let made = made(call.clone());
        self.running.spawn(async move {
            let answer = made.await;
            replier.reply(&replied, answer).await;
            Outcome::Nothing
        });
        Reaction::Later
    }

    fn path(&self, kind: Kind, token: &str) -> String {
        names::own_path(kind, &self.element, token)
    }

    /// Tells the caller of an object of its own.
    async fn tell_added(&self, kind: Kind, token: &str, interface: &Interface) {
        let path = self.path(kind, token);
        let properties = self.own_properties(kind, token).unwrap_or_default();
        let caller = Some(self.name.as_str());
        mirror::added(&self.shared.bus, caller, (&path, interface), properties).await;
    }

    async fn tell_removed(&self, kind: Kind, token: &str, interface: &Interface) {
        let path = self.path(kind, token);
        mirror::removed(&self.shared.bus, Some(&self.name), &path, interface).await;
    }

    /// Properties of an object of the caller's own.
    fn own_properties(&self, kind: Kind, token: &str) -> Option<Dict> {
        match kind {
            Kind::Job => self.state.jobs.get(token).map(job::Entry::properties),
            Kind::Session => self.state.sessions.get(token).map(|one| one.properties()),
            Kind::Hold => self.state.holds.get(token).map(holds::Hold::properties),
        }
    }

    fn own_interface(kind: Kind) -> &'static Interface {
        match kind {
            Kind::Job => &JOB,
            Kind::Session => &SESSION,
            Kind::Hold => &HOLD,
        }
    }

    /// A token that is free: the caller's own or, without one, a new one.
    fn token(&mut self, kind: Kind, options: &mut Options) -> Result<String, Status> {
        let token = match options.text("token")? {
            Some(token) => {
                check_token(&token)?;
                token
            }
            None => {
                self.state.tokens += 1;
                // A caller's own tokens may look the same, but hardly by chance.
                format!("auto_{}", self.state.tokens)
            }
        };
        let state = &self.state;
        let taken = match kind {
            Kind::Job => state.jobs.contains_key(&token),
            Kind::Session => state.sessions.contains_key(&token),
            Kind::Hold => state.holds.contains_key(&token),
        };
        if taken {
            return Err(crate::options::invalid("token", "it is in use"));
        }
        Ok(token)
    }

    /// The name of the model in the store.
    fn resolve(&self, model: String) -> Result<String, Failure> {
        let Some(name) = model.strip_prefix("use:") else {
            return Ok(model);
        };
        let uses = &self.shared.uses;
        uses.get(name).cloned().ok_or_else(|| Failure::UseNotFound {
            name: name.chars().take(64).collect(),
            known: uses.keys().cloned().collect(),
        })
    }

    /// A connection to the daemon in the caller's name.
    fn connect(&self) -> Result<(UnixStream, UnixStream), Failure> {
        let (ours, theirs) =
            UnixStream::pair().map_err(|error| internal("make a socket pair", &error))?;
        let kept = theirs
            .try_clone()
            .map_err(|error| internal("duplicate a socket", &error))?;
        self.shared
            .door
            .serve(theirs, self.state.credentials)
            .map_err(|error| internal("connect to the daemon", &error))?;
        Ok((ours, kept))
    }

    /// The connection that the caller's calls and jobs share.
    fn wire(&mut self) -> Result<Wire, Failure> {
        if let Some(wire) = &self.state.wire
            && !wire.has_ended()
        {
            return Ok(wire.clone());
        }
        let (ours, _) = self.connect()?;
        let name = format!("D-Bus {}", self.name);
        let wire =
            Wire::open(ours, &name).map_err(|error| internal("connect to the daemon", &error))?;
        self.state.wire = Some(wire.clone());
        Ok(wire)
    }
}

/// Answers calls, and counts what the caller has to read.
#[derive(Clone)]
struct Replier {
    bus: Bus,
    name: String,
    pace: Arc<Pace>,
}

impl Replier {
    async fn reply(&self, call: &Call, answer: Answer) {
        if !call.wants_reply() {
            return;
        }
        let message = match answer {
            Ok(message) => message,
            Err(failure) => match call.refusal(&failure) {
                Ok(message) => message,
                Err(error) => return log::error!("an error cannot be encoded: {error}"),
            },
        };
        self.bus.send(&message).await;
        self.pace
            .sent(&self.bus, &self.name, weight(&message))
            .await;
    }
}
