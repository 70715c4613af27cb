//! Reports: models, devices, explanations, status, and reading stores anew.

use super::connection::Open;
use super::instance::State;
use super::seek::{Parked, Purpose};
use super::{Core, Effect};
use crate::catalogue::{Catalogue, Entry};
use crate::convert;
use crate::flavours::Flavours;
use crate::ids::{RequestKey, WantId};
use crate::policy::history::Key;
use crate::policy::ledger::Pool;
use crate::policy::planner::Requirements;
use mote_api::{Load, Rejected, Rejection};
use mote_wire::types::{Explanation, Reply, Status, StatusReport, WorkOptions, WorkerInfo};

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Core {
    fn is_loaded(&self, model: &str) -> bool {
        let mut ready = self
            .instances
            .values()
            .filter(|one| one.state == State::Ready);
        ready.any(|one| one.model() == model)
    }

    pub(super) fn list_models(&mut self, key: RequestKey) {
        let infos = self.catalogue.infos().map(|mut info| {
            info.loaded = self.is_loaded(&info.name);
            info.pinned = self.is_pinned(&info.name);
            info
        });
        let reply = Reply::ModelList(infos.collect());
        self.reply(key, reply);
    }

    pub(super) fn inspect(
        &mut self,
        key: RequestKey,
        model: &str,
        load: bool,
    ) -> Result<(), Status> {
        self.catalogue.find(model)?;
        if load {
            self.want(Purpose::Inspect(key), model, &WorkOptions::default());
        } else {
            self.reply_details(key, model);
        }
        Ok(())
    }

    pub(super) fn reply_details(&mut self, key: RequestKey, model: &str) {
        let entry = match self.catalogue.find(model) {
            Ok(entry) => entry,
            Err(status) => return self.fail(key, status),
        };
        let mut details = entry.details();
        details.model.loaded = self.is_loaded(model);
        details.model.pinned = self.is_pinned(model);
        let mut here = self.instances.values();
        let here = here.find(|one| one.state == State::Ready && one.entry.digest == entry.digest);
        if let Some(instance) = here {
            details.inputs.clone_from(&instance.loaded.inputs);
            details.outputs.clone_from(&instance.loaded.outputs);
        }
        self.reply(key, Reply::ModelDetails(Box::new(details)));
    }

    pub(super) fn list_devices(&mut self, key: RequestKey, refresh: bool) {
        if !refresh {
            return self.park(Parked::Devices { key });
        }
        self.parked.push(Parked::Devices { key });
        self.set_open(key, Open::Probes);
        self.rescans.fresh_next = true;
        self.begin_rescan();
    }

    pub(super) fn reply_devices(&mut self, key: RequestKey) {
        let probes = &self.probes;
        let known = probes.capabilities().iter();
        let capabilities = known.map(|one| convert::capability(one, probes.is_expected(one)));
        let reply = Reply::DeviceList(capabilities.collect());
        self.reply(key, reply);
    }

    pub(super) fn reply_explanation(
        &mut self,
        key: RequestKey,
        entry: &Entry,
        options: &WorkOptions,
    ) {
        let threads_max = self.threads_max(options);
        let plan = self.plan(entry, &Requirements::from(options), threads_max);
        let rejected = plan.not_taken();
        let mut explanation = Explanation {
            model: entry.manifest.name.clone(),
            model_digest: entry.digest.clone(),
            notes: notes(&rejected),
            rejected: convert::rejected(&rejected),
            budget_bytes: self.ledgers.at(&Pool::Machine).budget_bytes(),
            trials: self.trial_infos(entry, &plan),
            ..Explanation::default()
        };
        if let Some(candidate) = plan.candidates.first() {
            let version = self
                .probes
                .library_version(&candidate.flavour, &candidate.provider);
            explanation.chosen = Some(convert::candidate(candidate, version));
            explanation.need_bytes = self.need_bytes_of(entry, candidate);
            let pool = self.ledgers.pool_of(&candidate.device);
            explanation.budget_bytes = self.ledgers.at(&pool).budget_bytes();
            let on_record = Key {
                digest: entry.digest.clone(),
                candidate: candidate.clone(),
            };
            if let Some(placement) = self.history.placement(&on_record) {
                explanation.placement = convert::shares(placement);
                explanation.placement_read_back = placement.read_back;
            }
            let crashes = self.history.crashes(&on_record);
            if crashes > 0 {
                explanation
                    .notes
                    .push(format!("it crashed {crashes} times in a row"));
            }
        }
        if let Some(lost) = self.stream_set_back(key.connection, &entry.manifest.name) {
            explanation.notes.push(format!(
                "a stream of this connection was lost with {}: {}; the next one runs elsewhere, if it can",
                lost.provider, lost.rejection
            ));
        }
        self.reply(key, Reply::Explanation(Box::new(explanation)));
    }

    pub(super) fn status(&mut self, key: RequestKey) {
        let running = self.jobs.values().filter(|job| job.is_running()).count();
        let workers = self.instances.values().map(|instance| WorkerInfo {
            pid: instance.pid.unwrap_or(0),
            model: instance.model().to_owned(),
            flavour: instance.candidate.flavour.clone(),
            state: instance.wire_state(),
            reserved_bytes: self.ledgers.of(instance.worker),
            rss_bytes: 0,
            jobs: count(instance.jobs.len()),
            streams: count(instance.streams.len()),
            sandbox: instance.loaded.sandbox.clone(),
        });
        let machine = self.ledgers.at(&Pool::Machine);
        let report = StatusReport {
            server_version: crate::BUILD_ID.to_owned(),
            uptime_ms: self.uptime_ms(),
            rss_bytes: 0,
            connections: count(self.connections.len()),
            jobs_running: count(running),
            jobs_queued: count(self.jobs.len() - running),
            streams: count(self.streams.len()),
            buffers: count(self.buffers.len()),
            budget_bytes: machine.budget_bytes(),
            reserved_bytes: machine.reserved_bytes(),
            machine_load: match self.load.load() {
                Load::Idle => "idle".into(),
                Load::Busy => "busy".into(),
            },
            workers: workers.collect(),
            pid: i32::try_from(std::process::id()).ok(),
            power: Some(self.power_report()),
        };
        let RequestKey {
            connection,
            request,
        } = key;
        self.effects.push(Effect::Report {
            connection,
            request,
            report: Box::new(report),
        });
    }

    pub(super) fn rescan(&mut self, key: RequestKey) {
        self.set_open(key, Open::Rescan);
        self.rescans.next.push(key);
        self.begin_rescan();
    }

    /// Has everything read and probed anew because the service manager says so.
    pub(super) fn reload(&mut self) {
        self.rescans.reload_next = true;
        self.probe_anew();
    }

    /// Has everything read and probed anew, as devices may have changed.
    pub(super) fn probe_anew(&mut self) {
        self.rescans.fresh_next = true;
        self.begin_rescan();
    }

    /// Begins to read stores and runtimes, unless that is in progress: what was asked for during
    /// it may have missed what changed, and is begun after it.
    fn begin_rescan(&mut self) {
        let rescans = &mut self.rescans;
        if rescans.running || (rescans.next.is_empty() && !rescans.fresh_next) {
            return;
        }
        rescans.running = true;
        rescans.fresh = std::mem::take(&mut rescans.fresh_next);
        rescans.now = std::mem::take(&mut rescans.next);
        rescans.reload_now = std::mem::take(&mut rescans.reload_next);
        self.effects.push(Effect::Rescan);
    }

    pub(super) fn rescanned(&mut self, catalogue: Catalogue, flavours: Flavours) {
        log::info!(models = catalogue.len(), runtimes = flavours.installed.len(); "stores were read");
        self.catalogue = catalogue;
        self.rescans.running = false;
        self.probes
            .reset(flavours, std::mem::take(&mut self.rescans.fresh));
        self.history.forgive();
        self.forgive_trials();
        self.history
            .retain(|digest| self.catalogue.has_digest(digest));
        self.verified
            .retain(|digest, _| self.catalogue.has_digest(digest));
        for key in std::mem::take(&mut self.rescans.now) {
            self.reply(key, Reply::Ok);
        }
        for worker in self.instances.keys().copied().collect::<Vec<_>>() {
            self.tend(worker);
        }
        if std::mem::take(&mut self.rescans.reload_now) {
            self.effects.push(Effect::Reloaded);
        }
        self.begin_rescan();
        if !self.rescans.running {
            self.unpark();
        }
    }

    /// The request that waits for this, when it is to hear of progress.
    pub(super) fn key_of_want(&self, want: WantId) -> Option<RequestKey> {
        match &self.wants.get(&want)?.purpose {
            Purpose::Job(job) => self.jobs.get(job).map(|job| job.key),
            Purpose::Load(key) | Purpose::Inspect(key) | Purpose::Stream(key, _) => Some(*key),
        }
    }
}

/// What was on record against ways to run a model, for people.
fn notes(rejected: &[Rejected]) -> Vec<String> {
    let on_record = |one: &&Rejected| {
        let was_open = !matches!(
            one.rejection,
            Rejection::Absent { .. } | Rejection::OverBudget { .. }
        );
        was_open && !one.rejection.is_by_design()
    };
    let note = |one: &Rejected| {
        format!(
            "{} on {} {}: {}",
            one.variant, one.flavour, one.provider, one.rejection
        )
    };
    rejected.iter().filter(on_record).map(note).collect()
}
