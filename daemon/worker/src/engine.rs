//! The engine: runs this worker's jobs one step at a time, round robin.
//!
//! Answers of a text model that are at their next token take it together, in one run; between two such
//! runs at most one chunk of somebody's prompt is computed.
//!
//! A job may take its next step when it is not paused and nothing it said is still waiting for the
//! client's credit. Between steps the engine obeys commands; a cancel also reaches into the run in
//! progress, from the inbox, by way of [`Running`].

use crate::buffers::Buffers;
use crate::inbox::{Gone, Inbox};
use crate::jobs::{self, Job, Progressed, Stepped};
use crate::link::{Link, LinkError};
use crate::load::{self, LoadedModel};
use crate::registry::Open;
use crate::status::Failure;
use crate::stream::{Attach, Gates, Streams, Usage};
use crate::trial;
use crate::usage::cpu_us;
use mote_api::{Canceller, Load, Rejection};
use mote_pipeline::{KvPool, SessionPool};
use mote_wire::types::{Command, JobReply, LoadModel, StartJob, Status, SteerJob, WorkerEvent};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Finished conversations kept for the next answers.
const KV_CACHES_MAX: usize = 8;
/// Jobs at once; the broker sends fewer.
const JOBS_MAX: usize = 64;

/// The job whose step is in progress: where a cancel reaches in.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The job that computes alone. What cancels one of several that compute together takes effect at
    /// its next step.
    running: Option<(u64, Option<Canceller>)>,
    /// Jobs that were started and have not ended, and whether they were cancelled.
    jobs: HashMap<u64, bool>,
}

impl Running {
    /// A job was read from the broker: cancels for it count from here on.
    pub fn expect(&self, job: u64) {
        self.lock().jobs.insert(job, false);
    }

    /// Marks a job as cancelled and stops its run, if that is in progress. A cancel that comes after
    /// the job's end leaves nothing behind.
    pub fn cancel(&self, job: u64) {
        let mut state = self.lock();
        let Some(cancelled) = state.jobs.get_mut(&job) else {
            return;
        };
        *cancelled = true;
        if let Some((running, Some(canceller))) = &state.running
            && *running == job
        {
            canceller.cancel();
        }
    }

    fn begin(&self, job: u64, canceller: Option<Canceller>) -> bool {
        let mut state = self.lock();
        if state.jobs.get(&job).copied().unwrap_or(false) {
            return false;
        }
        state.running = Some((job, canceller));
        true
    }

    fn end(&self) {
        self.lock().running = None;
    }

    fn forget(&self, job: u64) {
        self.lock().jobs.remove(&job);
    }

    fn is_cancelled(&self, job: u64) -> bool {
        self.lock().jobs.get(&job).copied().unwrap_or(false)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Active {
    id: u64,
    job: Box<dyn Job>,
    /// Said, but not sent for want of credit.
    held: VecDeque<JobReply>,
    credit: u32,
    paused: bool,
    /// Processor time of its steps.
    host_cpu_us: u64,
    /// Ended; leaves when everything it said is sent.
    last: Option<JobReply>,
}

/// Tells the broker that another candidate may do what this one failed at.
fn blame(link: &Link, job: u64, rejection: Option<Box<Rejection>>) -> Result<(), LinkError> {
    let Some(rejection) = rejection else {
        return Ok(());
    };
    let rejection_json = load::json_of(&rejection);
    link.send(WorkerEvent::Faulted {
        job,
        rejection_json,
    })
}

/// Everything this worker owns.
pub struct Engine {
    link: Link,
    open: Open,
    running: Running,
    streams: Streams,
    loaded: Option<LoadedModel>,
    kv: KvPool,
    sessions: SessionPool,
    buffers: Buffers,
    jobs: VecDeque<Active>,
    /// Whether the last step was a chunk of somebody's prompt.
    last_was_prompt: bool,
}

impl Engine {
    /// With nothing loaded.
    pub fn new(link: Link, open: Open, running: Running, gates: Gates) -> Self {
        Self {
            streams: Streams::new(link.clone(), gates),
            link,
            open,
            running,
            loaded: None,
            kv: KvPool::new(0),
            sessions: SessionPool::new(),
            buffers: Buffers::default(),
            jobs: VecDeque::new(),
            last_was_prompt: false,
        }
    }

    /// Works until the broker says [`Command::Shutdown`] or is gone.
    pub fn run(mut self, inbox: &Inbox) -> Result<(), LinkError> {
        loop {
            let command = if self.jobs.iter().any(|job| self.may_step(job)) {
                inbox.try_next()
            } else {
                match inbox.next() {
                    Ok(command) => Some(command),
                    Err(Gone) => return Ok(()),
                }
            };
            match command {
                Some(command) => {
                    if !self.obey(command)? {
                        return Ok(());
                    }
                }
                None => self.step()?,
            }
        }
    }

    fn may_step(&self, job: &Active) -> bool {
        let due = !job.paused && job.held.is_empty() && job.last.is_none();
        due || self.running.is_cancelled(job.id)
    }

    fn obey(&mut self, command: Command) -> Result<bool, LinkError> {
        match command {
            Command::LoadModel(command) => self.load(&command)?,
            Command::TryModel { load, terms_json } => {
                trial::run(&load, &terms_json, self.open, &self.link)?;
            }
            Command::StartJob(start) => self.start(*start)?,
            // The inbox has marked it; the next step ends it.
            Command::CancelJob { .. } => {}
            // The inbox has done it.
            Command::HoldStream { .. } => {}
            Command::CreditJob { job, frames } => self.credit(job, frames)?,
            Command::PauseJob { job } => self.set_paused(job, true),
            Command::ResumeJob { job } => self.set_paused(job, false),
            Command::SteerJob(SteerJob {
                job,
                prompt,
                from_segment,
            }) => {
                if let Some(active) = self.jobs.iter_mut().find(|active| active.id == job) {
                    let steered = active.job.steer(prompt, from_segment);
                    self.link.reply(job, JobReply::Steered(steered))?;
                }
            }
            Command::MapBuffer {
                buffer,
                bytes,
                writable,
                fd,
            } => {
                if let Err(status) = self.buffers.map(buffer, fd, bytes, writable) {
                    // Jobs that name it fail with `buffer … is not registered`.
                    log::warn!(buffer = buffer; "cannot map a buffer: {status}");
                }
            }
            Command::UnmapBuffer { buffer } => {
                if let Err(status) = self.buffers.unmap(buffer) {
                    log::debug!(buffer = buffer; "cannot unmap a buffer: {status}");
                }
            }
            Command::AttachStream {
                stream,
                socket,
                step_limit_ms,
                receipt,
            } => self.attach(Attach {
                id: stream,
                socket,
                step_limit: step_limit_ms.map(Duration::from_millis),
                receipt: *receipt,
            })?,
            Command::SetLoad { busy, threads_max } => {
                if let Some(loaded) = &self.loaded {
                    let load = if busy { Load::Busy } else { Load::Idle };
                    let threads_max = threads_max.map(|threads| threads as usize);
                    loaded.governor.follow(load, threads_max);
                }
            }
            Command::SetThrottle { throttle_json } => {
                match (&self.loaded, serde_json::from_slice(&throttle_json)) {
                    (Some(loaded), Ok(throttle)) => loaded.throttle.set(throttle, Instant::now()),
                    (None, _) => {}
                    (_, Err(error)) => log::error!("cannot read what slows it down: {error}"),
                }
            }
            Command::Shutdown => return Ok(false),
        }
        Ok(true)
    }

    fn load(&mut self, command: &LoadModel) -> Result<(), LinkError> {
        match load::load(command, self.open, &self.link) {
            Ok((model, loaded)) => {
                self.kv = KvPool::new(KV_CACHES_MAX)
                    .with_rows(model.rows_max)
                    .with_bytes(model.cache_bytes_max);
                self.loaded = Some(model);
                self.link.send(WorkerEvent::Loaded(Box::new(loaded)))
            }
            Err(failure) => load::tell_failure(failure, &self.link),
        }
    }

    fn start(&mut self, start: StartJob) -> Result<(), LinkError> {
        let (id, credit) = (start.job, start.credit);
        let made = match &self.loaded {
            _ if self.jobs.len() >= JOBS_MAX => Err(Failure::from(Status::Busy {
                retry_after_ms: 100,
            })),
            None => Err(Failure::from(Status::Internal {
                operation: "start".into(),
                cause: "no model".into(),
            })),
            Some(loaded) => {
                let mut pools = jobs::Pools {
                    kv: &mut self.kv,
                    sessions: &mut self.sessions,
                };
                jobs::start(start, loaded, &self.buffers, &mut pools)
            }
        };
        match made {
            Ok(job) => {
                let held = VecDeque::new();
                self.jobs.push_back(Active {
                    id,
                    job,
                    held,
                    credit,
                    paused: false,
                    host_cpu_us: 0,
                    last: None,
                });
                Ok(())
            }
            Err(Failure { status, rejection }) => {
                self.running.forget(id);
                blame(&self.link, id, rejection)?;
                self.link.reply(id, JobReply::Failed(status))
            }
        }
    }

    fn credit(&mut self, id: u64, frames: u32) -> Result<(), LinkError> {
        if let Some(index) = self.jobs.iter().position(|job| job.id == id) {
            let job = &mut self.jobs[index];
            job.credit = job.credit.saturating_add(frames);
            self.flush(index)?;
        }
        Ok(())
    }

    fn set_paused(&mut self, id: u64, paused: bool) {
        if let Some(job) = self.jobs.iter_mut().find(|job| job.id == id) {
            job.paused = paused;
        }
    }

    fn attach(&mut self, attach: Attach) -> Result<(), LinkError> {
        let Some(loaded) = &self.loaded else {
            log::error!("a stream came before a model");
            return self.streams.ended(attach.id, Usage::default());
        };
        self.streams.attach(attach, loaded)
    }

    /// One step of the job whose turn it is, or of all that can take theirs together.
    fn step(&mut self) -> Result<(), LinkError> {
        let turn = self.turn();
        match turn[..] {
            [] => return Ok(()),
            [only] => self.step_alone(only)?,
            _ => self.step_together(&turn)?,
        }
        Ok(())
    }

    /// Whose turn it is, by place in the line.
    fn turn(&self) -> Vec<usize> {
        let due = |job: &&Active| self.may_step(job);
        let cancelled = |job: &Active| self.running.is_cancelled(job.id);
        let joins = |job: &Active| self.may_step(job) && job.job.may_join() && !cancelled(job);
        let places = || self.jobs.iter().enumerate();
        let Some((first, job)) = places().find(|(_, job)| due(job)) else {
            return Vec::new();
        };
        let together = || {
            let joining = places().filter(|(_, job)| joins(job));
            joining.map(|(place, _)| place).collect::<Vec<_>>()
        };
        if joins(job) {
            return together();
        }
        // Who waits for a token does not wait for several chunks of prompts.
        let waiting = match self.last_was_prompt && !cancelled(job) {
            true => together(),
            false => Vec::new(),
        };
        match waiting.is_empty() {
            true => vec![first],
            false => waiting,
        }
    }

    fn step_alone(&mut self, index: usize) -> Result<(), LinkError> {
        let job = &mut self.jobs[index];
        self.last_was_prompt = job.job.text().is_some() && !job.job.may_join();
        let mut said = Vec::new();
        let progressed = if self.running.begin(job.id, job.job.canceller()) {
            let began_us = cpu_us();
            let progressed = job.job.step(&mut said);
            job.host_cpu_us += cpu_us().saturating_sub(began_us);
            self.running.end();
            progressed
        } else {
            Err(Failure::from(Status::Cancelled))
        };
        let id = job.id;
        self.settle(id, (said, progressed))
    }

    fn step_together(&mut self, turn: &[usize]) -> Result<(), LinkError> {
        self.last_was_prompt = false;
        let began_us = cpu_us();
        let joining = self.jobs.iter_mut().enumerate();
        let mut joining: Vec<&mut Active> = joining
            .filter_map(|(place, job)| turn.contains(&place).then_some(job))
            .collect();
        let mut jobs: Vec<_> = joining.iter_mut().map(|active| &mut active.job).collect();
        let steps = jobs::step_together(&mut jobs);
        let share_us = cpu_us().saturating_sub(began_us) / turn.len() as u64;
        let mut stepped = Vec::with_capacity(turn.len());
        for (active, step) in joining.into_iter().zip(steps) {
            active.host_cpu_us += share_us;
            stepped.push((active.id, step));
        }
        for (id, step) in stepped {
            self.settle(id, step)?;
        }
        Ok(())
    }

    /// Deals with what a step gave, and puts the job at the end of the line.
    fn settle(&mut self, id: u64, (said, progressed): Stepped) -> Result<(), LinkError> {
        let Some(index) = self.jobs.iter().position(|job| job.id == id) else {
            return Ok(());
        };
        let job = &mut self.jobs[index];
        job.held.extend(said);
        match progressed {
            Ok(Progressed::More) => {}
            Ok(Progressed::Done(mut done)) => {
                if let Some(loaded) = &self.loaded {
                    let threads = loaded.governor.threads();
                    done.receipt.threads = u32::try_from(threads.count).unwrap_or(u32::MAX);
                    done.receipt.spin = threads.spin;
                    done.receipt.thread_changes = loaded.governor.changes();
                }
                done.receipt.host_cpu_us = job.host_cpu_us;
                job.last = Some(JobReply::Done(done));
            }
            Err(Failure { status, rejection }) => {
                blame(&self.link, job.id, rejection)?;
                // What is still held is not worth waiting for: its client is gone or told.
                if status == Status::Cancelled {
                    job.held.clear();
                }
                job.last = Some(JobReply::Failed(status));
            }
        }
        let ended = self.flush(index)?;
        if !ended && let Some(job) = self.jobs.remove(index) {
            self.jobs.push_back(job);
        }
        Ok(())
    }

    /// Sends what credit allows. Answers whether the job is gone.
    fn flush(&mut self, index: usize) -> Result<bool, LinkError> {
        let job = &mut self.jobs[index];
        let mut ready = Vec::new();
        while let Some(reply) = job.held.front() {
            if reply.costs_credit() {
                if job.credit == 0 {
                    break;
                }
                job.credit -= 1;
            }
            ready.extend(job.held.pop_front());
        }
        let id = job.id;
        let last = if job.held.is_empty() {
            job.last.take()
        } else {
            None
        };
        let Some(last) = last else {
            self.link.replies(id, ready)?;
            return Ok(false);
        };
        let went_well = matches!(last, JobReply::Done(_));
        ready.push(last);
        let ended = self.jobs.remove(index);
        self.running.forget(id);
        self.link.replies(id, ready)?;
        // A cancelled session may have a cancel left over: it is dropped, not pooled.
        if let Some(active) = ended.filter(|_| went_well) {
            let mut pools = jobs::Pools {
                kv: &mut self.kv,
                sessions: &mut self.sessions,
            };
            active.job.give_back(&mut pools);
        }
        Ok(true)
    }
}
