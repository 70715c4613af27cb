//! From a wish for a model to a worker that has it loaded.

use super::connection::Open;
use super::instance::{Instance, LoadedModel, State};
use super::streams::StreamAsk;
use super::trials::Choose;
use super::{Core, Effect, Timer};
use crate::catalogue::Entry;
use crate::ids::{JobId, RequestKey, WantId, WorkerId};
use crate::limits::CHOICES_MAX;
use crate::policy::history::Key;
use crate::policy::planner::{self, Goal, Plan, Question, Requirements};
use crate::policy::power::{Policy, Throttle};
use mote_api::{Candidate, DeviceKind, Rejected, Rejection, Variant};
use mote_wire::types::{Status, WorkOptions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a model is wanted for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// A job.
    Job(JobId),
    /// Loading it was all that was asked for.
    Load(RequestKey),
    /// Its inputs and outputs are to be told.
    Inspect(RequestKey),
    /// A stream.
    Stream(RequestKey, Arc<StreamAsk>),
}

/// Something that waits for a loaded model.
#[derive(Clone, Debug)]
pub struct Want {
    /// The model's name.
    pub model: String,
    /// What the request insists on.
    pub requirements: Requirements,
    /// Limit of threads.
    pub threads_max: Option<usize>,
    /// Limit of time, for the answer when it has passed.
    pub deadline_ms: Option<u64>,
    /// A way to run it that is not to be taken if there is another.
    pub avoid: Option<Candidate>,
    /// What for.
    pub purpose: Purpose,
    /// The worker it waits for.
    pub worker: Option<WorkerId>,
}

/// An answer of the planner that lasts until an event other than a request or a job's progress.
#[derive(Clone, Debug)]
pub struct Choice {
    entry: Arc<Entry>,
    requirements: Requirements,
    threads_max: Option<usize>,
    goal: Goal,
    worker: WorkerId,
}

/// Something that waits for probes or trials.
#[derive(Clone, Debug)]
pub enum Parked {
    /// A want.
    Want(WantId),
    /// An explanation.
    Explain {
        /// The request.
        key: RequestKey,
        /// The model's name.
        model: String,
        /// What the work would ask for.
        options: WorkOptions,
        /// Try everything first.
        measure: bool,
    },
    /// A list of devices.
    Devices {
        /// The request.
        key: RequestKey,
    },
}

impl Parked {
    /// The request, unless it is a want's.
    pub fn key(&self) -> Option<RequestKey> {
        match self {
            Self::Want(_) => None,
            Self::Explain { key, .. } | Self::Devices { key } => Some(*key),
        }
    }
}

impl Core {
    /// Begins to look for a loaded model.
    pub(super) fn want(&mut self, purpose: Purpose, model: &str, options: &WorkOptions) {
        let avoid = match &purpose {
            Purpose::Job(job) => self.jobs.get(job).and_then(|job| job.avoid.clone()),
            Purpose::Stream(key, _) => self.avoided_by_streams(*key, model),
            Purpose::Load(_) | Purpose::Inspect(_) => None,
        };
        let threads_max = self.threads_max(options);
        let requirements = Requirements::from(options);
        if avoid.is_none()
            && let Some(worker) = self.chosen_before(model, &requirements, threads_max)
        {
            return self.hand_over(purpose, model, worker);
        }
        let want = Want {
            model: model.to_owned(),
            requirements,
            threads_max,
            deadline_ms: options.deadline_ms,
            avoid,
            purpose: purpose.clone(),
            worker: None,
        };
        let id = WantId(self.ids.wants.draw());
        self.wants.insert(id, want);
        match purpose {
            Purpose::Job(job) => self.job_seeks(job, id),
            Purpose::Load(key) | Purpose::Inspect(key) | Purpose::Stream(key, _) => {
                self.set_open(key, Open::Want(id));
                self.set_deadline(key, options.deadline_ms);
            }
        }
        self.seek(id);
    }

    /// The limit of threads as this machine has it.
    pub(super) fn threads_max(&self, options: &WorkOptions) -> Option<usize> {
        let cores = self.settings.cores.max(1);
        options
            .threads_max
            .map(|threads| (threads as usize).clamp(1, cores))
    }

    /// Finds or starts a worker for a want, or has it wait for probes.
    pub(super) fn seek(&mut self, id: WantId) {
        let Some(want) = self.wants.get_mut(&id) else {
            return;
        };
        want.worker = None;
        let want = want.clone();
        let entry = match self.catalogue.find(&want.model) {
            Ok(entry) => entry,
            Err(status) => return self.fail_want(id, status),
        };
        if !self.probed(Some(&entry.backends())) {
            self.parked.push(Parked::Want(id));
            return;
        }
        let plan = self.plan(&entry, &want.requirements, want.threads_max);
        if !self.is_tried(&entry, &plan, false) {
            self.parked.push(Parked::Want(id));
            return self.tell_trial(Some(id));
        }
        let other = plan
            .candidates
            .iter()
            .find(|one| Some(*one) != want.avoid.as_ref());
        let Some(candidate) = other.or(plan.candidates.first()).cloned() else {
            return self.fail_want(id, refusal(&plan));
        };
        let mut instances = self.instances.values();
        let here = instances.find(|instance| fits(instance, &entry, &want, &candidate));
        let (worker, state) = match here.map(|instance| (instance.worker, instance.state)) {
            Some(here) => here,
            None if !self.has_room_for_worker() => {
                let status = self.busy(1);
                return self.fail_want(id, status);
            }
            None => self.begin_instance(Arc::clone(&entry), candidate.clone(), &plan, &want),
        };
        if state == State::Ready {
            if plan.is_lasting() && plan.candidates.first() == Some(&candidate) {
                self.remember_choice(entry, &want, worker);
            }
            return self.deliver(id, worker);
        }
        if let Some(want) = self.wants.get_mut(&id) {
            want.worker = Some(worker);
        }
        if let Some(instance) = self.instances.get_mut(&worker) {
            instance.wants.insert(id);
        }
        if state == State::AwaitingMemory {
            self.claim_memory();
        }
    }

    /// The worker that the same question was answered with before, if nothing has changed since.
    fn chosen_before(
        &self,
        model: &str,
        requirements: &Requirements,
        threads_max: Option<usize>,
    ) -> Option<WorkerId> {
        let entry = self.catalogue.find(model).ok()?;
        let is_same = |choice: &&Choice| {
            Arc::ptr_eq(&choice.entry, &entry)
                && choice.requirements == *requirements
                && choice.threads_max == threads_max
                && choice.goal == self.goal()
        };
        let choice = self.choices.iter().find(is_same)?;
        let instance = self.instances.get(&choice.worker)?;
        (instance.state == State::Ready).then_some(choice.worker)
    }

    fn remember_choice(&mut self, entry: Arc<Entry>, want: &Want, worker: WorkerId) {
        if self.choices.len() >= CHOICES_MAX {
            self.choices.remove(0);
        }
        self.choices.push(Choice {
            entry,
            requirements: want.requirements.clone(),
            threads_max: want.threads_max,
            goal: self.goal(),
            worker,
        });
    }

    /// Whether all about these backends is known; finds it out otherwise.
    fn probed(&mut self, backends: Option<&BTreeSet<mote_api::BackendKind>>) -> bool {
        let (generation, fresh) = (self.probes.generation(), self.probes.fresh());
        for installed in self.probes.start(backends) {
            self.effects.push(Effect::Probe {
                generation,
                installed,
                fresh,
            });
        }
        self.probes.is_known(backends)
    }

    /// The plan for a model as things stand.
    pub(super) fn plan(
        &self,
        entry: &Entry,
        require: &Requirements,
        threads_max: Option<usize>,
    ) -> Plan {
        let is_here = |candidate: &Candidate| {
            self.instances.values().any(|instance| {
                instance.state != State::Stopping
                    && instance.entry.digest == entry.digest
                    && instance.candidate == *candidate
                    && instance.threads_max == threads_max
            })
        };
        let need_bytes = |variant: &Variant, candidate: &Candidate| {
            if is_here(candidate) {
                0
            } else {
                let cache_bytes = self.cache_bytes(entry, candidate);
                entry.need_bytes(variant).saturating_add(cache_bytes)
            }
        };
        let verdict = |candidate: &Candidate| {
            let key = Key {
                digest: entry.digest.clone(),
                candidate: candidate.clone(),
            };
            let of_runs = self.history.verdict(&key, require.forbid_cpu, self.now);
            of_runs.or_else(|| match self.settings.choose {
                Choose::Measured => self.trial_rejection(&key),
                Choose::Ranked => None,
            })
        };
        let standing = |candidate: &Candidate| self.standing(entry, candidate);
        planner::plan(&Question {
            manifest: &entry.manifest,
            need_bytes: &need_bytes,
            capabilities: self.probes.capabilities(),
            require,
            room_bytes: &|candidate| self.room_bytes(&self.ledgers.pool_of(&candidate.device)),
            verdict: &verdict,
            standing: &standing,
            goal: self.goal(),
        })
    }

    /// What is wanted of the best way to run a model, as work may cost now.
    fn goal(&self) -> Goal {
        match self.power.stance().policy {
            Policy::Efficient => Goal::Thrift,
            Policy::Balanced | Policy::Performance => Goal::Speed,
        }
    }

    fn begin_instance(
        &mut self,
        entry: Arc<Entry>,
        candidate: Candidate,
        plan: &Plan,
        want: &Want,
    ) -> (WorkerId, State) {
        let worker = WorkerId(self.ids.workers.draw());
        let mut rejected = plan.set_backs();
        let best = plan.candidates.first().filter(|best| **best != candidate);
        // A stream's receipt names what it avoids itself.
        if let (Some(best), Purpose::Job(_)) = (best, &want.purpose) {
            // It is not taken because workers died of this very job.
            let key = Key {
                digest: entry.digest.clone(),
                candidate: best.clone(),
            };
            rejected.push(Rejected {
                flavour: best.flavour.clone(),
                provider: best.provider.clone(),
                variant: best.variant.clone(),
                rejection: Rejection::Quarantined {
                    crashes: self.history.crashes(&key),
                },
            });
        }
        let instance = Instance {
            trial: self.trial_note(&entry, &candidate, plan),
            fault: None,
            worker,
            need_bytes: self.need_bytes_of(&entry, &candidate),
            pool: self.ledgers.pool_of(&candidate.device),
            entry,
            candidate,
            rejected: crate::convert::rejected(&rejected),
            threads_max: want.threads_max,
            cpu_free: want.requirements.forbid_cpu,
            state: State::AwaitingMemory,
            pid: None,
            pace: self.pace(),
            throttle: Throttle::Unknown,
            verifying: None,
            was_ready: false,
            loaded: LoadedModel::default(),
            wants: BTreeSet::new(),
            jobs: BTreeSet::new(),
            streams: BTreeSet::new(),
            load_began: self.now,
            last_used: self.now,
        };
        self.instances.insert(worker, instance);
        (worker, State::AwaitingMemory)
    }

    /// The worker has what was wanted.
    pub(super) fn deliver(&mut self, id: WantId, worker: WorkerId) {
        let Some(want) = self.wants.remove(&id) else {
            return;
        };
        if let Some(instance) = self.instances.get_mut(&worker) {
            instance.wants.remove(&id);
        }
        self.hand_over(want.purpose, &want.model, worker);
    }

    /// The model is there: what it was wanted for goes on.
    fn hand_over(&mut self, purpose: Purpose, model: &str, worker: WorkerId) {
        self.timers.cancel(&Timer::IdleUnload(worker));
        if let Some(instance) = self.instances.get_mut(&worker) {
            instance.last_used = self.now;
        }
        match purpose {
            Purpose::Job(job) => self.enqueue(job, worker),
            Purpose::Load(key) => self.reply(key, mote_wire::types::Reply::Ok),
            Purpose::Inspect(key) => self.reply_details(key, model),
            Purpose::Stream(key, ask) => {
                if let Err(status) = self.open_stream(key, &ask, worker) {
                    self.fail(key, status);
                }
            }
        }
        self.tend(worker);
    }

    /// What was wanted cannot be had.
    pub(super) fn fail_want(&mut self, id: WantId, status: Status) {
        let Some(want) = self.wants.get(&id).cloned() else {
            return;
        };
        self.drop_want(id);
        match want.purpose {
            Purpose::Job(job) => self.finish_job(job, Err(status)),
            Purpose::Load(key) | Purpose::Inspect(key) | Purpose::Stream(key, _) => {
                self.fail(key, status);
            }
        }
    }

    /// Nobody waits for this any more.
    pub(super) fn drop_want(&mut self, id: WantId) {
        let Some(want) = self.wants.remove(&id) else {
            return;
        };
        self.parked
            .retain(|parked| !matches!(parked, Parked::Want(other) if *other == id));
        let Some(instance) = want
            .worker
            .and_then(|worker| self.instances.get_mut(&worker))
        else {
            return;
        };
        instance.wants.remove(&id);
        let (worker, idle) = (instance.worker, instance.is_idle());
        if idle && !instance.has_process() {
            // Nothing was begun that would be of use later.
            self.stop(worker, "nobody waits for it any more");
            self.claim_memory();
        }
        self.tend(worker);
    }

    /// Has a request wait until all it needs to know is known.
    pub(super) fn park(&mut self, parked: Parked) {
        if let Some(key) = parked.key() {
            self.set_open(key, Open::Probes);
        }
        self.parked.push(parked);
        self.unpark();
    }

    /// Whether all was tried that an explanation is to tell of.
    fn is_explicable(&mut self, entry: &Arc<Entry>, options: &WorkOptions) -> bool {
        let threads_max = self.threads_max(options);
        let plan = self.plan(entry, &Requirements::from(options), threads_max);
        self.is_tried(entry, &plan, true)
    }

    /// Goes on with what waited for probes and trials that are done.
    pub(super) fn unpark(&mut self) {
        for parked in std::mem::take(&mut self.parked) {
            match parked {
                Parked::Want(id) => self.seek(id),
                Parked::Devices { key } if self.probed(None) => self.reply_devices(key),
                Parked::Explain {
                    key,
                    ref model,
                    ref options,
                    measure,
                } => match self.catalogue.find(model) {
                    Err(status) => self.fail(key, status),
                    Ok(entry)
                        if self.probed(Some(&entry.backends()))
                            && (!measure || self.is_explicable(&entry, options)) =>
                    {
                        self.reply_explanation(key, &entry, options);
                    }
                    Ok(_) => self.parked.push(parked),
                },
                Parked::Devices { .. } => self.parked.push(parked),
            }
        }
    }
}

/// Whether a worker is, or will be, what is wanted.
fn fits(instance: &Instance, entry: &Entry, want: &Want, candidate: &Candidate) -> bool {
    let forbidden = want.requirements.forbid_cpu && candidate.device.kind != DeviceKind::Cpu;
    instance.state != State::Stopping
        && instance.entry.digest == entry.digest
        && instance.candidate == *candidate
        && instance.threads_max == want.threads_max
        && (instance.cpu_free || !forbidden)
}

/// Why a plan without candidates is refused.
fn refusal(plan: &Plan) -> Status {
    match plan.over_budget() {
        Some((need_bytes, have_bytes)) => Status::OverBudget {
            what: "memory of models".into(),
            need_bytes,
            have_bytes,
        },
        None => Status::NoBackend {
            rejected: crate::convert::rejected(&plan.rejected),
        },
    }
}
