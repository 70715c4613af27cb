//! Workers: what they say, how they end, and what becomes of their work then.

use super::ending::Ending;
use super::instance::{Instance, LoadedModel, State};
use super::power::Pace;
use super::{Core, Effect, Exit, Timer};
use crate::BUILD_ID;
use crate::catalogue::{Entry, Stamp, Verified};
use crate::ids::{JobId, StreamId, WorkerId};
use crate::limits::{COMPILING_TOLD_MS, DRAIN_MS, LOAD_SILENCE_MS_MAX, RETRIES_MAX};
use crate::logging::brief;
use mote_api::{Candidate, DeviceKind, Load, Placement, Rejection, Threads};
use mote_wire::types::{
    Command, EventKind, LoadModel, Loaded, Progress, Reply, Sandbox, SandboxState, Stage, Status,
    WorkerEvent,
};

impl Core {
    pub(super) fn worker_started(&mut self, worker: WorkerId, pid: i32) {
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        instance.pid = Some(pid);
        let model = instance.model().to_owned();
        let flavour = instance.candidate.flavour.clone();
        log::info!(worker = worker.0, pid = pid, model = model, flavour = flavour; "worker started");
        self.emit(EventKind::WorkerStarted {
            pid,
            model,
            flavour,
        });
    }

    pub(super) fn worker_unstartable(&mut self, worker: WorkerId, cause: String) {
        log::error!(worker = worker.0; "cannot start a worker: {cause}");
        self.abandon(
            worker,
            Status::Internal {
                operation: "start a worker".into(),
                cause,
            },
        );
        self.claim_memory();
    }

    pub(super) fn worker_event(&mut self, worker: WorkerId, event: WorkerEvent) {
        let Some(instance) = self.instances.get(&worker) else {
            return;
        };
        match (instance.state, event) {
            (State::Starting, WorkerEvent::Hello { build_id, .. }) => self.hello(worker, &build_id),
            (State::Loading, WorkerEvent::LoadProgress(progress)) => {
                self.load_progress(worker, progress);
            }
            (State::Loading, WorkerEvent::Loaded(loaded)) => self.loaded(worker, *loaded),
            (
                State::Loading,
                WorkerEvent::LoadFailed {
                    status,
                    rejection_json,
                },
            ) => {
                self.load_failed(worker, status, &rejection_json);
            }
            (_, WorkerEvent::Job { job, reply }) => self.job_reply(worker, JobId(job), reply),
            (
                _,
                WorkerEvent::Faulted {
                    job,
                    rejection_json,
                },
            ) => {
                let rejection = serde_json::from_slice(&rejection_json).ok();
                if let Some(instance) = self.instances.get_mut(&worker) {
                    instance.fault =
                        rejection.map(|rejection: Rejection| (JobId(job), rejection.bounded()));
                }
            }
            (_, WorkerEvent::StreamEnded { stream, .. }) => {
                self.stream_ended(worker, StreamId(stream));
            }
            (
                _,
                WorkerEvent::StreamFaulted {
                    stream,
                    rejection_json,
                },
            ) => self.stream_faulted(worker, StreamId(stream), &rejection_json),
            (State::Stopping, _) => {}
            _ => self.condemn(worker, "it said something out of turn"),
        }
    }

    fn hello(&mut self, worker: WorkerId, build_id: &str) {
        self.timers.cancel(&Timer::Handshake(worker));
        if build_id != BUILD_ID {
            let cause = format!("it is of build {build_id}, this is {BUILD_ID}");
            let status = Status::Internal {
                operation: "start a worker".into(),
                cause,
            };
            self.fail_wants(worker, &status);
            return self.kill(worker, "it is of another build");
        }
        match self.load_command(worker) {
            Some(command) => {
                if let Some(instance) = self.instances.get_mut(&worker) {
                    instance.state = State::Loading;
                    instance.load_began = self.now;
                }
                self.set_timer(Timer::LoadSilence(worker), LOAD_SILENCE_MS_MAX);
                self.set_timer(Timer::Compiling(worker), COMPILING_TOLD_MS);
                self.send(worker, Command::LoadModel(Box::new(command)));
            }
            None => self.retry_wants_without(worker, "its runtime is gone"),
        }
    }

    fn load_command(&mut self, worker: WorkerId) -> Option<LoadModel> {
        let pace = self.pace();
        let instance = self.instances.get_mut(&worker)?;
        instance.pace = pace;
        instance.verifying = Stamp::of(&instance.entry);
        let conditions = Conditions {
            pace,
            threads_max: instance.threads_max,
            forbid_cpu: instance.cpu_free,
        };
        let instance = self.instances.get(&worker)?;
        self.load_model(&instance.entry, &instance.candidate, &conditions)
    }

    /// What a process is told to load.
    pub(super) fn load_model(
        &self,
        entry: &Entry,
        candidate: &Candidate,
        conditions: &Conditions,
    ) -> Option<LoadModel> {
        let installed = self.probes.installed(&candidate.flavour)?;
        let (full, threads) = conditions.threads(self.settings.cores);
        let number = |threads| u32::try_from(threads).unwrap_or(u32::MAX);
        let stamp = Stamp::of(entry);
        let verified = stamp.is_some() && self.verified.get(&entry.digest) == stamp.as_ref();
        Some(LoadModel {
            folder: entry.folder.to_str()?.to_owned(),
            manifest_json: serde_json::to_vec(&entry.manifest).ok()?,
            candidate_json: serde_json::to_vec(candidate).ok()?,
            flavour_json: serde_json::to_vec(&installed.flavour).ok()?,
            flavour_folder: installed.folder.to_str()?.to_owned(),
            threads: number(full),
            threads_at_first: (threads.count < full).then(|| number(threads.count)),
            spin: threads.spin,
            threads_follow_load: conditions.threads_max.is_none(),
            model_digest: entry.digest.clone(),
            forbid_cpu: conditions.forbid_cpu,
            verify_digests: !entry.manifest.files.is_empty() && !verified,
            cache_bytes_max: self.cache_bytes(entry, candidate),
            compiled_folder: match self.compiled_folder(entry, candidate) {
                Some(folder) => folder.to_str()?.to_owned(),
                None => String::new(),
            },
        })
    }

    fn load_progress(&mut self, worker: WorkerId, progress: Progress) {
        self.set_timer(Timer::LoadSilence(worker), LOAD_SILENCE_MS_MAX);
        self.set_timer(Timer::Compiling(worker), COMPILING_TOLD_MS);
        self.tell_load(worker, progress);
    }

    /// A worker has been silent for a while: it has read the files and compiles.
    pub(super) fn tell_compiling(&mut self, worker: WorkerId) {
        let Some(instance) = self.instances.get(&worker) else {
            return;
        };
        let passed = self.now.saturating_duration_since(instance.load_began);
        let done = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let total = Some(instance.trial.load_us / 1_000).filter(|&total| total > done);
        let progress = Progress {
            stage: Stage::Compiling,
            done,
            total,
            remaining_ms: total.map(|total| total - done),
        };
        self.set_timer(Timer::Compiling(worker), COMPILING_TOLD_MS);
        self.tell_load(worker, progress);
    }

    fn tell_load(&mut self, worker: WorkerId, progress: Progress) {
        let Some(instance) = self.instances.get(&worker) else {
            return;
        };
        for want in instance.wants.clone() {
            if let Some(key) = self.key_of_want(want) {
                self.reply(key, Reply::Progress(progress));
            }
        }
    }

    /// Files that were verified by a daemon before this one.
    pub fn recall_verified(&mut self, models: Vec<Verified>) {
        self.verified.extend(models);
    }

    pub(super) fn note_verified(&mut self, digest: String, stamp: Stamp) {
        self.verified.insert(digest, stamp);
        let models = self.verified.iter();
        let models = models.map(|(digest, stamp)| (digest.clone(), stamp.clone()));
        self.effects.push(Effect::KeepVerified(models.collect()));
    }

    fn loaded(&mut self, worker: WorkerId, loaded: Loaded) {
        self.timers.cancel(&Timer::LoadSilence(worker));
        self.timers.cancel(&Timer::Compiling(worker));
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        let mut placement: Placement = match serde_json::from_slice(&loaded.placement_json) {
            Ok(placement) => placement,
            Err(_) => return self.condemn(worker, "it described a placement that cannot be read"),
        };
        let candidate = &instance.candidate;
        for share in &mut placement.shares {
            let mut tried = instance.trial.shares.iter();
            let tried = tried.find(|one| one.provider == share.provider);
            share.time_us = tried.and_then(|one| one.time_us);
        }
        instance.cpu_free |= candidate.device.kind != DeviceKind::Cpu
            && placement.read_back
            && placement.nodes_on(&candidate.provider) == placement.nodes();
        self.history.loaded(&instance.key(), placement.clone());
        let verified = instance.verifying.take();
        let verified = verified.filter(|stamp| Stamp::of(&instance.entry).as_ref() == Some(stamp));
        let digest = instance.entry.digest.clone();
        instance.loaded = LoadedModel {
            placement,
            inputs: loaded.inputs,
            outputs: loaded.outputs,
            load_us: loaded.load_us,
            library_version: loaded.library_version,
            sandbox: loaded.sandbox,
            jobs_per_run: loaded.jobs_per_run,
        };
        warn_of_gaps(worker, instance.loaded.sandbox.as_ref());
        (instance.state, instance.was_ready) = (State::Ready, true);
        let (model, load_us) = (instance.model().to_owned(), loaded.load_us);
        let wants = instance.wants.clone();
        log::info!(worker = worker.0, model = model, load_us = load_us; "model loaded");
        self.emit(EventKind::ModelLoaded { model, load_us });
        if let Some(stamp) = verified {
            self.note_verified(digest, stamp);
        }
        self.tell_pace(worker);
        self.tidy_compiled();
        for want in wants {
            self.deliver(want, worker);
        }
        self.tend(worker);
    }

    fn load_failed(&mut self, worker: WorkerId, status: Status, rejection_json: &[u8]) {
        self.timers.cancel(&Timer::LoadSilence(worker));
        self.timers.cancel(&Timer::Compiling(worker));
        log::warn!(worker = worker.0; "a model did not load: {}", brief(&status));
        let rejection = match rejection_json {
            [] => None,
            json => Some(
                serde_json::from_slice(json).unwrap_or_else(|_| Rejection::LoadFailed {
                    why: status.to_string(),
                }),
            ),
        };
        match rejection {
            None => {
                self.fail_wants(worker, &status);
                self.stop(worker, "its model is not in order");
            }
            Some(rejection) => {
                if let Some(instance) = self.instances.get(&worker) {
                    let rejection = rejection.bounded();
                    self.history.rejected(&instance.key(), rejection, self.now);
                }
                self.retry_wants_without(worker, "it cannot load its model");
            }
        }
    }

    fn fail_wants(&mut self, worker: WorkerId, status: &Status) {
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        for want in std::mem::take(&mut instance.wants) {
            self.fail_want(want, status.clone());
        }
    }

    /// Ends a worker that is of no use and looks for another way for all that waited for it.
    fn retry_wants_without(&mut self, worker: WorkerId, why: &str) {
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        let wants = std::mem::take(&mut instance.wants);
        self.stop(worker, why);
        for want in wants {
            self.seek(want);
        }
    }

    /// Has a worker leave; what still needs it is not asked.
    pub(super) fn stop(&mut self, worker: WorkerId, why: &str) {
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        match instance.state {
            State::Stopping => {}
            State::AwaitingMemory | State::BackingOff => {
                let wants = self.remove_instance(worker).map(|instance| instance.wants);
                debug_assert!(
                    wants.is_none_or(|wants| wants.is_empty() || self.ending == Ending::Stopping)
                );
            }
            State::Starting | State::Loading => self.kill(worker, why),
            State::Ready => {
                log::info!(worker = worker.0, model = instance.model(); "worker told to leave: {why}");
                instance.state = State::Stopping;
                self.cancel_timers(worker);
                self.send(worker, Command::Shutdown);
                self.set_timer(Timer::StopGrace(worker), DRAIN_MS);
            }
        }
    }

    /// Kills a worker's process; that it dies is expected from here on. What it has not begun is
    /// done elsewhere at once, what it computes when it is dead.
    pub(super) fn kill(&mut self, worker: WorkerId, why: &str) {
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        log::info!(worker = worker.0, model = instance.model(); "worker is killed: {why}");
        instance.state = State::Stopping;
        let wants = std::mem::take(&mut instance.wants);
        let jobs = instance.jobs.clone();
        self.cancel_timers(worker);
        self.effects.push(Effect::Kill { worker });
        for job in jobs
            .into_iter()
            .filter(|job| !self.is_running(*job))
            .collect::<Vec<_>>()
        {
            self.leave_worker(job, worker);
            self.want_again(job);
        }
        for want in wants {
            self.seek(want);
        }
    }

    /// Kills a worker that does not do as it should; that counts as a crash.
    pub(super) fn condemn(&mut self, worker: WorkerId, why: &str) {
        if let Some(instance) = self.instances.get(&worker) {
            log::warn!(worker = worker.0, model = instance.model(); "worker is at fault: {why}");
            self.history.crashed(&instance.key(), self.now);
        }
        self.kill(worker, why);
    }

    fn cancel_timers(&mut self, worker: WorkerId) {
        for timer in [
            Timer::Handshake(worker),
            Timer::LoadSilence(worker),
            Timer::Compiling(worker),
            Timer::Backoff(worker),
            Timer::IdleUnload(worker),
            Timer::StopGrace(worker),
        ] {
            self.timers.cancel(&timer);
        }
    }

    /// Takes a worker out of all books.
    pub(super) fn remove_instance(&mut self, worker: WorkerId) -> Option<Instance> {
        let instance = self.instances.remove(&worker)?;
        self.cancel_timers(worker);
        self.ledgers.release(worker);
        self.buffers.forget_worker(worker);
        Some(instance)
    }

    pub(super) fn worker_ended(&mut self, worker: WorkerId, exit: Exit) {
        let Some(instance) = self.remove_instance(worker) else {
            return;
        };
        let expected = instance.state == State::Stopping;
        let (key, model) = (instance.key(), instance.model().to_owned());
        let Exit { signal, exit_code } = exit;
        if expected {
            log::info!(worker = worker.0, model = model; "worker ended");
        } else {
            self.history.crashed(&key, self.now);
            let crashes = self.history.crashes(&key);
            self.record_quarantine(&key);
            log::warn!(
                worker = worker.0, model = model, signal = signal, exit_code = exit_code,
                crashes = crashes; "worker died"
            );
        }
        let pid = instance.pid.unwrap_or(0);
        let ended = EventKind::WorkerEnded {
            pid,
            model: model.clone(),
            signal,
            exit_code,
            expected,
        };
        self.emit(ended);
        if instance.was_ready {
            self.emit(EventKind::ModelUnloaded { model });
        }
        for stream in instance.streams.iter().copied() {
            self.stream_lost_worker(stream, &key, exit, expected);
        }
        self.rehouse_jobs(&instance, exit, expected);
        for want in instance.wants {
            self.seek(want);
        }
        self.unloads_progress(worker);
        self.claim_memory();
    }

    /// Finds other workers for the jobs of one that is gone.
    fn rehouse_jobs(&mut self, instance: &Instance, exit: Exit, expected: bool) {
        // The last one first: each goes to the front of the queue.
        for id in instance.jobs.iter().rev().copied() {
            if let Some(queue) = self.queues.get_mut(&instance.candidate.device.id) {
                queue.remove(id);
            }
            self.timers.cancel(&Timer::CancelGrace(id));
            self.timers.cancel(&Timer::StepHangs(id));
            if !self.is_running(id) {
                self.want_again(id);
                continue;
            }
            let is_device = instance.candidate.device.kind != DeviceKind::Cpu;
            if let Some(job) = self.jobs.get_mut(&id)
                && (job.deaths + 1 >= RETRIES_MAX || is_device)
                && !expected
            {
                job.avoid = Some(instance.candidate.clone());
                if is_device {
                    let why = format!("its worker died: {}", exit.status());
                    job.note_set_back(&instance.candidate, Rejection::RunFailed { why });
                }
            }
            self.job_lost_worker(id, (exit.status(), !expected));
        }
    }

    /// Looks after a worker that something has let go of, or taken hold of.
    pub(super) fn tend(&mut self, worker: WorkerId) {
        let Some(instance) = self.instances.get(&worker) else {
            return;
        };
        let timer = Timer::IdleUnload(worker);
        if instance.state != State::Ready {
            return;
        }
        if !instance.is_idle() || self.is_pinned(instance.model()) {
            self.timers.cancel(&timer);
        } else if !self.catalogue.has_digest(&instance.entry.digest) {
            self.stop(worker, "its model is no longer in the catalogue");
        } else if !self.timers.is_set(&timer) {
            self.timers.set(timer, self.now + self.settings.idle_unload);
        }
    }
}

/// What a model is loaded under.
pub(super) struct Conditions {
    /// What work may cost.
    pub pace: Pace,
    /// Limit of threads.
    pub threads_max: Option<usize>,
    /// No node on the CPU.
    pub forbid_cpu: bool,
}

impl Conditions {
    /// The most threads it may ever have, and those to begin with.
    fn threads(&self, cores: usize) -> (usize, Threads) {
        let full = Threads::choose(cores, self.threads_max, Load::Busy).count;
        let mut pace = self.pace;
        if self.threads_max.is_some() {
            pace.threads_max = None;
        }
        (full, pace.threads(full))
    }
}

/// A worker that is free to do harm is said to be.
fn warn_of_gaps(worker: WorkerId, sandbox: Option<&Sandbox>) {
    let Some(sandbox) = sandbox.filter(|sandbox| sandbox.enabled) else {
        log::warn!(worker = worker.0; "worker runs without its sandbox");
        return;
    };
    let missing = sandbox.parts.iter();
    for part in missing.filter(|part| part.state == SandboxState::Inactive) {
        log::warn!(worker = worker.0, part = part.name; "worker's sandbox has a gap: {}", part.detail);
    }
}
