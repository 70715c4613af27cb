//! Who computes next on one device.
//!
//! * More urgent work goes first: it starts at once and pauses what is less urgent.
//! * Among equals, users take turns, and each user's connections, whatever the number of their jobs.
//! * At most [`RUNNING_PER_DEVICE`] jobs compute at the same time, but each user one: a step cannot
//!   be interrupted, and nobody waits for the end of another user's. Jobs that share a worker's runs
//!   count as one, up to as many as one run can serve. A job that waits for its client
//!   to read (*stalled*) does not compute and keeps nobody from it.

use super::turns::{ByConnection, ByUser, Line, Turns};
use crate::ids::{ConnectionId, JobId, WorkerId};
use crate::limits::{RUNNING_PER_DEVICE, STARTED_PER_DEVICE_MAX};
use mote_wire::types::Priority;
use std::collections::{BTreeMap, VecDeque};

/// A job as the queue sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The job.
    pub job: JobId,
    /// Whose it is.
    pub uid: u32,
    /// By which connection it came.
    pub connection: ConnectionId,
    /// How urgent it is.
    pub priority: Priority,
    /// The runs that it can share with others.
    pub run: Option<SharedRun>,
}

/// Runs of a worker that serve several jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedRun {
    /// The worker.
    pub worker: WorkerId,
    /// How many jobs one run can serve.
    pub jobs_max: usize,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin the job.
    Start(JobId),
    /// Halt the job at its next step, for more urgent work or because it is held back.
    Pause(JobId),
    /// Let it go on.
    Resume(JobId),
}

/// What does not compute for now, however free the device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Nothing is held back.
    #[default]
    Nothing,
    /// Work that nobody waits for.
    Background,
    /// Everything.
    All,
}

impl Hold {
    /// Whether it holds back work of this urgency.
    pub fn holds(self, priority: Priority) -> bool {
        match self {
            Self::Nothing => false,
            Self::Background => priority == Priority::Background,
            Self::All => true,
        }
    }
}

/// The queue of one device.
#[derive(Clone, Debug, Default)]
pub struct DeviceQueue {
    waiting: BTreeMap<Priority, Class>,
    started: Vec<Started>,
    /// Under what nothing is left to be done until a job comes, goes or stalls.
    settled: Option<Hold>,
}

/// Waiting jobs of one priority.
type Class = Turns<ByUser, Turns<ByConnection, VecDeque<Ticket>>>;

#[derive(Clone, Copy, Debug)]
struct Started {
    ticket: Ticket,
    paused: bool,
    stalled: bool,
}

impl DeviceQueue {
    /// Adds a job behind the others of its connection.
    pub fn push(&mut self, ticket: Ticket) {
        self.settled = None;
        let class = self.waiting.entry(ticket.priority).or_default();
        class.push(ticket, false);
    }

    /// Adds a job that had begun already and lost its worker: it is next.
    pub fn push_first(&mut self, ticket: Ticket) {
        self.settled = None;
        let class = self.waiting.entry(ticket.priority).or_default();
        class.push(ticket, true);
    }

    /// Takes a job out, waiting or started. Answers whether it was there.
    pub fn remove(&mut self, job: JobId) -> bool {
        self.settled = None;
        let started = self.started.len();
        self.started.retain(|one| one.ticket.job != job);
        self.started.len() < started || self.waiting.values_mut().any(|class| class.remove(job))
    }

    /// Says that a started job waits for its client to read, or no longer does.
    pub fn set_stalled(&mut self, job: JobId, stalled: bool) {
        self.settled = None;
        if let Some(one) = self.started.iter_mut().find(|one| one.ticket.job == job) {
            one.stalled = stalled;
        }
    }

    /// Whether a started job is held back, for more urgent work or by [`Hold`].
    pub fn is_paused(&self, job: JobId) -> bool {
        let mut started = self.started.iter();
        started.any(|one| one.ticket.job == job && one.paused)
    }

    /// Jobs that wait.
    pub fn waiting_len(&self) -> usize {
        self.waiting.values().map(Line::len).sum()
    }

    /// Jobs that have begun.
    pub fn started_len(&self) -> usize {
        self.started.len()
    }

    /// How urgent the work is that computes.
    pub fn computing(&self) -> Option<Priority> {
        let computing = self.started.iter();
        let computing = computing.filter(|one| !one.stalled && !one.paused);
        computing.map(|one| one.ticket.priority).min()
    }

    /// Waiting jobs that are at least as urgent as `priority`.
    pub fn ahead_of(&self, priority: Priority) -> usize {
        self.waiting
            .range(..=priority)
            .map(|(_, class)| class.len())
            .sum()
    }

    /// What is to be done now; asking again at once answers nothing new.
    pub fn schedule(&mut self, hold: Hold) -> Vec<Step> {
        if self.settled == Some(hold) {
            return Vec::new();
        }
        self.settled = Some(hold);
        self.waiting.retain(|_, class| !class.is_empty());
        let active = self.started.iter().filter(|one| !one.stalled);
        let active = active.map(|one| one.ticket.priority);
        let wanted = active.chain(self.waiting.keys().copied());
        let top = wanted.filter(|priority| !hold.holds(*priority)).min();
        let mut steps = Vec::new();
        for one in self.started.iter_mut().filter(|one| !one.stalled) {
            let priority = one.ticket.priority;
            let pause = hold.holds(priority) || top.is_some_and(|top| priority > top);
            if pause != one.paused {
                one.paused = pause;
                let job = one.ticket.job;
                steps.push(if pause {
                    Step::Pause(job)
                } else {
                    Step::Resume(job)
                });
            }
        }
        while let Some(ticket) = top.and_then(|top| self.take(top)) {
            self.started.push(Started {
                ticket,
                paused: false,
                stalled: false,
            });
            steps.push(Step::Start(ticket.job));
        }
        steps
    }

    /// The next job that may start.
    fn take(&mut self, priority: Priority) -> Option<Ticket> {
        let equals = self
            .started
            .iter()
            .filter(|one| one.ticket.priority == priority);
        if equals.clone().count() >= STARTED_PER_DEVICE_MAX {
            return None;
        }
        let computing: Vec<Ticket> = equals
            .filter(|one| !one.stalled)
            .map(|one| one.ticket)
            .collect();
        let has_room = places(&computing) < RUNNING_PER_DEVICE;
        let class = self.waiting.get_mut(&priority)?;
        class.pop_of(|ticket| {
            let is_other = |one: &Ticket| one.uid != ticket.uid;
            has_room || joins(ticket, &computing) || computing.iter().all(is_other)
        })
    }
}

/// How many places jobs take: those that one run can serve take one together.
fn places(computing: &[Ticket]) -> usize {
    let mut shared: BTreeMap<WorkerId, (usize, usize)> = BTreeMap::new();
    for run in computing.iter().filter_map(|ticket| ticket.run) {
        let (jobs, _) = shared.entry(run.worker).or_insert((0, run.jobs_max));
        *jobs += 1;
    }
    let alone = computing.iter().filter(|ticket| ticket.run.is_none());
    let runs = shared
        .values()
        .map(|(jobs, jobs_max)| jobs.div_ceil(*jobs_max));
    alone.count() + runs.sum::<usize>()
}

/// Whether runs that go on anyway can serve a job, too.
fn joins(ticket: &Ticket, computing: &[Ticket]) -> bool {
    let Some(run) = ticket.run else {
        return false;
    };
    let is_of_it = |one: &&Ticket| one.run.is_some_and(|other| other.worker == run.worker);
    let jobs = computing.iter().filter(is_of_it).count();
    !jobs.is_multiple_of(run.jobs_max)
}
