//! Work that a device gives up on goes on elsewhere.

use super::{Core, Timer};
use crate::ids::{JobId, WorkerId};
use crate::limits::{CRASHES_MAX, RETRIES_MAX, STEP_PATIENCE_FACTOR};
use crate::logging::brief;
use crate::policy::history::Key;
use crate::policy::planner::Requirements;
use crate::policy::trials;
use mote_api::{DeviceKind, Rejection, Verdict};
use mote_wire::types::Status;

impl Core {
    /// A worker could not carry out a job: another candidate takes it, if the request allows one and
    /// it is not the work that is at fault.
    pub(super) fn job_failed(&mut self, worker: WorkerId, id: JobId, status: Status) {
        let instance = self.instances.get_mut(&worker);
        let fault = instance.and_then(|instance| {
            let (job, rejection) = instance.fault.take()?;
            // On the plain CPU there is nothing to blame but the work.
            let blames = job == id && instance.candidate.device.kind != DeviceKind::Cpu;
            blames.then(|| (instance.key(), rejection))
        });
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if let Some(status) = job.ending.take() {
            return self.finish_job(id, Err(status));
        }
        match fault {
            Some((key, rejection)) if job.deaths < RETRIES_MAX && self.has_another(id, &key) => {
                self.move_on(worker, id, key, rejection);
            }
            Some((_, rejection @ Rejection::DeviceLost { .. })) => {
                self.finish_job(id, Err(status));
                self.lose_streams(worker, &rejection);
                self.kill(worker, "its device is lost");
            }
            _ => self.finish_job(id, Err(status)),
        }
    }

    /// Whether the request allows another way to run its model.
    fn has_another(&self, id: JobId, key: &Key) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        let Ok(entry) = self.catalogue.find(job.model()) else {
            return false;
        };
        let options = super::work::options(&job.work);
        let threads_max = self.threads_max(options);
        let plan = self.plan(&entry, &Requirements::from(options), threads_max);
        plan.candidates.iter().any(|one| *one != key.candidate)
    }

    fn move_on(&mut self, worker: WorkerId, id: JobId, key: Key, rejection: Rejection) {
        log::warn!(
            worker = worker.0, job = id.0, provider = key.candidate.provider;
            "a job goes on elsewhere: {}", brief(&rejection)
        );
        let is_lost = matches!(rejection, Rejection::DeviceLost { .. });
        if let Some(job) = self.jobs.get_mut(&id) {
            job.note_set_back(&key.candidate, rejection.clone());
            job.avoid = Some(key.candidate.clone());
            job.deaths += 1;
            job.retries += 1;
            if !is_lost {
                job.suspect = Some((key.clone(), rejection.clone()));
            }
        }
        if is_lost {
            self.history.rejected(&key, rejection.clone(), self.now);
            self.lose_streams(worker, &rejection);
        }
        self.timers.cancel(&Timer::CancelGrace(id));
        self.timers.cancel(&Timer::StepHangs(id));
        self.leave_worker(id, worker);
        self.want_again(id);
        if is_lost {
            self.kill(worker, "its device is lost");
        }
    }

    /// A step of this job has begun: on a device it may take only so long. A job that is halted takes none.
    pub(super) fn watch_step(&mut self, id: JobId, worker: WorkerId) {
        let is_halted = self.jobs.get(&id).is_some_and(|job| job.halted);
        if is_halted || self.is_held_back(id, worker) {
            self.timers.cancel(&Timer::StepHangs(id));
            return;
        }
        if let Some(limit_ms) = self.step_limit_ms(worker) {
            self.set_timer(Timer::StepHangs(id), limit_ms);
        }
    }

    /// How long a step may take on what this worker computes on; there is no limit on the processor.
    pub(super) fn step_limit_ms(&self, worker: WorkerId) -> Option<u64> {
        let instance = self.instances.get(&worker)?;
        let run_us = instance.trial.run_us;
        let patience_ms = run_us.saturating_mul(STEP_PATIENCE_FACTOR) / 1_000;
        let is_device = instance.candidate.device.kind != DeviceKind::Cpu;
        is_device.then(|| patience_ms.max(self.settings.step_limit_ms))
    }

    /// A device hangs: its worker is killed, and its jobs go on elsewhere.
    pub(super) fn step_hangs(&mut self, id: JobId) {
        let phase = self.jobs.get(&id).map(|job| job.phase);
        let Some(super::job::Phase::Running(worker)) = phase else {
            return;
        };
        let Some(limit_ms) = self.step_limit_ms(worker) else {
            return;
        };
        let rejection = Rejection::StepTimedOut { limit_ms };
        if let Some(instance) = self.instances.get(&worker)
            && let Some(job) = self.jobs.get_mut(&id)
        {
            job.note_set_back(&instance.candidate, rejection.clone());
            job.avoid = Some(instance.candidate.clone());
        }
        self.hangs(worker, rejection);
    }

    /// What keeps crashing is on record beyond the life of this broker.
    pub(super) fn record_quarantine(&mut self, key: &Key) {
        let crashes = self.history.crashes(key);
        let rejection = Rejection::Quarantined { crashes };
        if crashes >= CRASHES_MAX && trials::is_worth_a_record(&key.candidate, &rejection) {
            self.record_trial(key.clone(), Verdict::Rejected(rejection));
        }
    }
}
