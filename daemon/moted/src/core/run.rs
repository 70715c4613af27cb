//! Jobs: from the queue through a worker to their end.

use super::job::{Job, Phase};
use super::seek::Purpose;
use super::{Core, Timer, work};
use crate::convert;
use crate::ids::{BufferId, JobId, WantId, WorkerId};
use crate::limits::{
    CANCEL_GRACE_MS, RETRIES_MAX, RETRY_AFTER_MS_MAX, RETRY_AFTER_MS_MIN, RUNNING_PER_DEVICE,
};
use crate::policy::queue::{DeviceQueue, SharedRun, Step, Ticket};
use mote_wire::limits::CREDIT_MAX;
use mote_wire::types::{
    Command, Done, EventKind, JobReply, ProviderShare, Reply, StartJob, Status, SteerJob, Tensor,
    TensorData, Work,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// Weight of the newest job in the mean.
const MEAN_WEIGHT: f64 = 0.2;

impl Job {
    /// Whether a worker computes it.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }
}

/// The runs that a job can share with others of its model, if it can.
fn shared_run(work: &Work, worker: WorkerId, jobs_max: u32) -> Option<SharedRun> {
    let shares = matches!(work, Work::Generate(generate) if !generate.deterministic);
    (shares && jobs_max > 1).then_some(SharedRun {
        worker,
        jobs_max: jobs_max as usize,
    })
}

impl Core {
    /// The refusal for want of room in the queues.
    pub(super) fn busy(&self, waiting: usize) -> Status {
        let turns = (waiting / RUNNING_PER_DEVICE + 1) as f64;
        let wait_ms = (self.job_ms_mean * turns) as u64;
        Status::Busy {
            retry_after_ms: wait_ms.clamp(RETRY_AFTER_MS_MIN, RETRY_AFTER_MS_MAX),
        }
    }

    pub(super) fn job_seeks(&mut self, id: JobId, want: WantId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.phase = Phase::Seeking(want);
            job.times.phase_began = self.now;
        }
    }

    /// The job's model is loaded: it waits for its turn.
    pub(super) fn enqueue(&mut self, id: JobId, worker: WorkerId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        instance.jobs.insert(id);
        if let Phase::Seeking(_) = job.phase {
            job.times.loading += self.now.saturating_duration_since(job.times.phase_began);
        }
        job.phase = Phase::Queued(worker);
        job.times.phase_began = self.now;
        let uid = self.connections.get(&job.key.connection);
        let ticket = Ticket {
            job: id,
            uid: uid.map_or(u32::MAX, |connection| connection.peer.uid),
            connection: job.key.connection,
            priority: job.priority(),
            run: shared_run(&job.work, worker, instance.loaded.jobs_per_run),
        };
        // They stay: there are as many as devices.
        let device = &instance.candidate.device.id;
        if !self.queues.contains_key(device) {
            self.queues.insert(device.clone(), DeviceQueue::default());
        }
        if let Some(queue) = self.queues.get_mut(device) {
            if job.retries == 0 {
                queue.push(ticket);
            } else {
                queue.push_first(ticket);
            }
        }
    }

    /// Lets all queues take their steps.
    pub(super) fn schedule(&mut self) {
        loop {
            let hold = self.hold();
            let queues = self.queues.values_mut();
            let steps: Vec<Step> = queues.flat_map(|queue| queue.schedule(hold)).collect();
            if steps.is_empty() {
                return;
            }
            for step in steps {
                match step {
                    Step::Start(job) => self.start(job),
                    Step::Pause(job) => {
                        if let Some(worker) = self.worker_of(job) {
                            self.send(worker, Command::PauseJob { job: job.0 });
                            self.timers.cancel(&Timer::StepHangs(job));
                        }
                        if let Some(job) = self.jobs.get_mut(&job) {
                            job.preemptions += 1;
                        }
                    }
                    // A client that halted it lets it go on.
                    Step::Resume(job) if self.jobs.get(&job).is_some_and(|job| job.halted) => {}
                    Step::Resume(job) => {
                        if let Some(worker) = self.worker_of(job) {
                            self.send(worker, Command::ResumeJob { job: job.0 });
                            self.watch_step(job, worker);
                        }
                    }
                }
            }
        }
    }

    fn worker_of(&self, job: JobId) -> Option<WorkerId> {
        match self.jobs.get(&job)?.phase {
            Phase::Running(worker) => Some(worker),
            Phase::Seeking(_) | Phase::Queued(_) => None,
        }
    }

    fn start(&mut self, id: JobId) {
        let throttle = self.power.throttle(self.now);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Phase::Queued(worker) = job.phase else {
            return;
        };
        job.phase = Phase::Running(worker);
        job.throttle = throttle.max(std::mem::take(&mut job.throttle));
        job.times.queued += self.now.saturating_duration_since(job.times.phase_began);
        job.times.phase_began = self.now;
        let credit = job.begin_run();
        let commands = self.buffers.map(worker, &job.buffers);
        let commands = commands.and_then(|maps| Ok((maps, work::duplicate(&job.work)?)));
        let (maps, work) = match commands {
            Ok(commands) => commands,
            Err(error) => {
                let operation = "pass descriptors to a worker".into();
                let cause = error.to_string();
                return self.finish_job(id, Err(Status::Internal { operation, cause }));
            }
        };
        let start = StartJob {
            job: id.0,
            work,
            resume_token_ids: job.sent.token_ids.clone(),
            seed: job.seed,
            credit,
        };
        let (model, client) = (job.model().to_owned(), job.key.connection);
        let (steers, halted) = (job.steers.begin_run(id.0), job.halted);
        for map in maps {
            self.send(worker, map);
        }
        self.send(worker, Command::StartJob(Box::new(start)));
        for steer in steers {
            self.send(worker, Command::SteerJob(steer));
        }
        match halted {
            true => self.halt(id, worker),
            false => self.watch_step(id, worker),
        }
        self.emit_of(client, &EventKind::JobStarted { job: id.0, model });
    }

    pub(super) fn credit_job(&mut self, id: JobId, frames: u32) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let granted = frames.min(CREDIT_MAX.saturating_sub(job.credit));
        job.credit += granted;
        let halted = job.halted;
        if let Phase::Running(worker) = job.phase
            && granted > 0
        {
            if !halted {
                self.set_stalled(id, worker, false);
            }
            self.watch_step(id, worker);
            self.send(
                worker,
                Command::CreditJob {
                    job: id.0,
                    frames: granted,
                },
            );
        }
    }

    /// Halts a job for its client, or lets it go on. Its place on the device is others' meanwhile.
    pub(super) fn pause_job(&mut self, id: JobId, paused: bool) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut job.halted, paused) == paused {
            return;
        }
        let (phase, has_credit) = (job.phase, job.credit > 0);
        let Phase::Running(worker) = phase else {
            return;
        };
        if paused {
            self.halt(id, worker);
        } else {
            // Where the queue holds it back, it goes on when the queue lets it.
            if !self.is_held_back(id, worker) {
                self.send(worker, Command::ResumeJob { job: id.0 });
            }
            if has_credit {
                self.set_stalled(id, worker, false);
                self.watch_step(id, worker);
            }
        }
        self.schedule();
    }

    fn halt(&mut self, id: JobId, worker: WorkerId) {
        self.send(worker, Command::PauseJob { job: id.0 });
        self.timers.cancel(&Timer::StepHangs(id));
        self.set_stalled(id, worker, true);
    }

    /// Whether the queue holds a started job back.
    pub(super) fn is_held_back(&self, id: JobId, worker: WorkerId) -> bool {
        let instance = self.instances.get(&worker);
        let queue = instance.and_then(|instance| self.queues.get(&instance.candidate.device.id));
        queue.is_some_and(|queue| queue.is_paused(id))
    }

    /// Sets the prompt for the shots of a clip that have not begun.
    ///
    /// # Errors
    /// [`Status::Invalid`] when the job generates no clip, [`Status::LimitExceeded`] when it has more prompts
    /// already than its workers have looked at.
    pub(super) fn steer_job(&mut self, id: JobId, prompt: String) -> Result<(), Status> {
        let Some(job) = self.jobs.get_mut(&id) else {
            return Ok(());
        };
        if !matches!(job.work, Work::GenerateClip(_)) {
            let why = "it generates no clip";
            return Err(Status::invalid("target_request_id", why));
        }
        job.steers.add(prompt.clone())?;
        if let Phase::Running(worker) = job.phase {
            let steer = SteerJob {
                job: id.0,
                prompt,
                from_segment: None,
            };
            self.send(worker, Command::SteerJob(steer));
        }
        Ok(())
    }

    fn set_stalled(&mut self, job: JobId, worker: WorkerId, stalled: bool) {
        let Some(instance) = self.instances.get(&worker) else {
            return;
        };
        if let Some(queue) = self.queues.get_mut(&instance.candidate.device.id) {
            queue.set_stalled(job, stalled);
        }
    }

    /// A worker says something about a job.
    pub(super) fn job_reply(&mut self, worker: WorkerId, id: JobId, mut reply: JobReply) {
        let running = self
            .jobs
            .get_mut(&id)
            .filter(|job| job.phase == Phase::Running(worker));
        let Some(job) = running else {
            log::debug!(worker = worker.0, job = id.0; "an answer came after its job had ended");
            return;
        };
        if let JobReply::Steered(steered) = reply {
            let key = job.key;
            if let Some(steered) = job.steers.looked_at(steered) {
                self.reply(key, Reply::Steered(steered));
            }
            return;
        }
        if !job.record(&reply) {
            // What is not passed on has taken none of the client's credit.
            if job.is_resumable() && reply.costs_credit() {
                self.send(
                    worker,
                    Command::CreditJob {
                        job: id.0,
                        frames: 1,
                    },
                );
            }
            return;
        }
        let (key, out_of_credit) = (job.key, job.credit == 0);
        match out_of_credit {
            true => self.timers.cancel(&Timer::StepHangs(id)),
            false => self.watch_step(id, worker),
        }
        let reply = match reply {
            JobReply::Done(done) => return self.finish_job(id, Ok(*done)),
            JobReply::Failed(status) => {
                return self.job_failed(worker, id, status);
            }
            JobReply::Tensor(ref mut tensor) => {
                self.name_buffer(tensor);
                reply
            }
            JobReply::Frame(ref mut frame) => {
                self.name_buffer(&mut frame.frame);
                reply
            }
            other => other,
        };
        if out_of_credit {
            self.set_stalled(id, worker, true);
        }
        self.reply(
            key,
            match reply {
                JobReply::Token(token) => Reply::Token(token),
                JobReply::Progress(progress) => Reply::Progress(progress),
                JobReply::Preview(preview) => Reply::Preview(preview),
                JobReply::Frame(frame) => Reply::Frame(frame),
                JobReply::Audio(sound) => Reply::Audio(sound),
                JobReply::Tensor(tensor) => Reply::Tensor(tensor),
                JobReply::Embeddings(embeddings) => Reply::Embeddings(embeddings),
                JobReply::Labels(labels) => Reply::Labels(labels),
                // All were handled above; a closing answer has no other way out.
                JobReply::Steered(_) | JobReply::Done(_) | JobReply::Failed(_) => return,
            },
        );
    }

    /// Puts the client's number of a buffer in place of the broker's.
    fn name_buffer(&self, tensor: &mut Tensor) {
        if let TensorData::Range(range) = &mut tensor.data {
            range.buffer = self
                .buffers
                .client_buffer(BufferId(range.buffer))
                .unwrap_or(0);
        }
    }

    /// Ends a job early: at once, or when its worker has let go of it.
    pub(super) fn cancel_job(&mut self, id: JobId, status: Status) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Phase::Running(worker) = job.phase else {
            return self.finish_job(id, Err(status));
        };
        if job.ending.replace(status).is_none() {
            self.send(worker, Command::CancelJob { job: id.0 });
            self.set_timer(Timer::CancelGrace(id), CANCEL_GRACE_MS);
        }
    }

    pub(super) fn cancel_ignored(&mut self, id: JobId) {
        if let Some(worker) = self.worker_of(id) {
            self.kill(worker, "it does not heed a cancel");
        }
    }

    /// The job is over: its client is told, and all it held is given back.
    pub(super) fn finish_job(&mut self, id: JobId, outcome: Result<Done, Status>) {
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        self.timers.cancel(&Timer::CancelGrace(id));
        self.timers.cancel(&Timer::StepHangs(id));
        let worker = match job.phase {
            Phase::Seeking(want) => {
                self.drop_want(want);
                None
            }
            Phase::Queued(worker) | Phase::Running(worker) => Some(worker),
        };
        let name = outcome
            .as_ref()
            .map_or_else(|status| status.code(), |_| "ok");
        let reply = match outcome {
            Ok(mut done) => {
                self.complete(&job, &mut done);
                if let Some((key, rejection)) = &job.suspect {
                    self.history.rejected(key, rejection.clone(), self.now);
                }
                if let Some(instance) = worker.and_then(|worker| self.instances.get(&worker)) {
                    self.history.worked(|| instance.key());
                }
                let ran = self.now.saturating_duration_since(job.times.phase_began);
                let ran_ms = ran.as_secs_f64() * 1e3;
                self.job_ms_mean += MEAN_WEIGHT * (ran_ms - self.job_ms_mean);
                Reply::Done(Box::new(done))
            }
            Err(status) => Reply::Failed(status),
        };
        let model = job.model().to_owned();
        if let Some(connection) = self.connections.get_mut(&job.key.connection) {
            let kept = work::kept_bytes(&job.work);
            connection.kept_bytes = connection.kept_bytes.saturating_sub(kept);
        }
        for steered in job.steers.untold() {
            self.reply(job.key, Reply::Steered(steered));
        }
        self.reply(job.key, reply);
        let ended = EventKind::JobEnded {
            job: id.0,
            model,
            outcome: name.to_owned(),
        };
        self.emit_of(job.key.connection, &ended);
        for (buffer, workers) in self.buffers.release(&job.buffers) {
            self.unmap(buffer, &workers);
        }
        if let Some(worker) = worker {
            self.leave_worker(id, worker);
        }
    }

    /// Takes a job off its worker and that worker's queue.
    pub(super) fn leave_worker(&mut self, id: JobId, worker: WorkerId) {
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        instance.jobs.remove(&id);
        instance.last_used = self.now;
        if let Some(queue) = self.queues.get_mut(&instance.candidate.device.id) {
            queue.remove(id);
        }
        self.tend(worker);
    }

    /// The worker of a running job is gone: it begins anew, or fails.
    pub(super) fn job_lost_worker(&mut self, id: JobId, (status, on_its_own): (Status, bool)) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(status) = job.ending.take() {
            return self.finish_job(id, Err(status));
        }
        job.deaths += u32::from(on_its_own);
        if job.deaths > RETRIES_MAX {
            return self.finish_job(id, Err(status));
        }
        job.retries += 1;
        self.want_again(id);
    }

    /// Looks for a worker for a job that has none any more.
    pub(super) fn want_again(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let model = job.model().to_owned();
        let options = work::options(&job.work).clone();
        self.want(Purpose::Job(id), &model, &options);
    }

    pub(super) fn is_running(&self, id: JobId) -> bool {
        self.jobs.get(&id).is_some_and(Job::is_running)
    }

    /// Fills in the broker's part of a receipt.
    fn complete(&self, job: &Job, done: &mut Done) {
        let receipt = &mut done.receipt;
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Phase::Running(worker) = job.phase
            && let Some(instance) = self.instances.get(&worker)
        {
            instance.describe(receipt);
            ProviderShare::divide(&mut receipt.placement, receipt.compute_us);
            for one in convert::rejected(&job.set_backs) {
                if !receipt.rejected.contains(&one) {
                    receipt.rejected.push(one);
                }
            }
        }
        receipt.local = true;
        receipt.queue_us = micros(job.times.queued);
        receipt.load_us = micros(job.times.loading);
        receipt.total_us = micros(self.now.saturating_duration_since(job.times.accepted));
        receipt.preemptions = job.preemptions;
        receipt.retries = job.retries;
        let throttle = self.power.throttle(self.now).max(job.throttle.clone());
        receipt.throttle = throttle.to_string();
    }

    /// Has workers forget a buffer.
    pub(super) fn unmap(&mut self, buffer: BufferId, workers: &BTreeSet<WorkerId>) {
        for worker in workers {
            self.send(*worker, Command::UnmapBuffer { buffer: buffer.0 });
        }
    }
}
