//! Memory for models: claims, evictions, unloading, and starting what got its memory.

use super::instance::{Instance, State};
use super::{Core, Effect, Timer};
use crate::catalogue::Entry;
use crate::ids::{RequestKey, WorkerId};
use crate::limits::{HANDSHAKE_MS, WORKERS_MAX};
use crate::policy::ledger::{Idle, Pool, victims};
use mote_api::Candidate;
use mote_wire::types::{Reply, Status};
use std::collections::BTreeMap;
use std::time::Instant;

impl Core {
    /// Memory of a pool that is free or can be freed for one more model.
    pub(super) fn room_bytes(&self, pool: &Pool) -> u64 {
        let evictable: u64 = self.evictable(pool).iter().map(|idle| idle.bytes).sum();
        let have = self.ledgers.at(pool).free_bytes() + self.leaving_bytes(pool) + evictable;
        have.saturating_sub(self.awaited_bytes(pool))
    }

    /// What key and value caches of a model may take where a candidate computes.
    pub(super) fn cache_bytes(&self, entry: &Entry, candidate: &Candidate) -> u64 {
        let pool = self.ledgers.pool_of(&candidate.device);
        entry.cache_bytes(self.ledgers.at(&pool).budget_bytes())
    }

    /// Memory of a loaded copy, caches included.
    pub(super) fn need_bytes_of(&self, entry: &Entry, candidate: &Candidate) -> u64 {
        let model = entry.need_bytes_of(&candidate.variant);
        model.saturating_add(self.cache_bytes(entry, candidate))
    }

    fn instances_in<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = &'a Instance> {
        self.instances.values().filter(move |one| one.pool == *pool)
    }

    /// What comes free by itself.
    pub(super) fn leaving_bytes(&self, pool: &Pool) -> u64 {
        let leaving = self
            .instances_in(pool)
            .filter(|one| one.state == State::Stopping);
        let (_, of_trial) = self.trial_bytes(pool);
        of_trial + leaving.map(|one| self.ledgers.of(one.worker)).sum::<u64>()
    }

    /// What models that were promised memory still wait for.
    fn awaited_bytes(&self, pool: &Pool) -> u64 {
        let waiting = self
            .instances_in(pool)
            .filter(|one| one.state == State::AwaitingMemory);
        let (of_trial, _) = self.trial_bytes(pool);
        of_trial + waiting.map(|one| one.need_bytes).sum::<u64>()
    }

    /// Models with memory of a pool that nobody needs at the moment.
    pub(super) fn evictable(&self, pool: &Pool) -> Vec<Idle> {
        self.instances_in(pool)
            .filter_map(|one| self.idle(one))
            .collect()
    }

    fn idle(&self, one: &Instance) -> Option<Idle> {
        let may_go = one.state == State::Ready && one.is_idle() && !self.is_pinned(one.model());
        may_go.then(|| Idle {
            worker: one.worker,
            bytes: self.ledgers.of(one.worker),
            idle_ms: millis_between(one.last_used, self.now),
            reload_ms: one.loaded.load_us / 1_000,
        })
    }

    /// Whether there may be one more worker; an idle one makes room if need be.
    pub(super) fn has_room_for_worker(&mut self) -> bool {
        let staying = self
            .instances
            .values()
            .filter(|one| one.state != State::Stopping);
        if staying.count() < WORKERS_MAX {
            return true;
        }
        let idle = self.instances.values().filter_map(|one| self.idle(one));
        let victim = victims(1, &idle.collect::<Vec<_>>())
            .unwrap_or_default()
            .first()
            .copied();
        if let Some(victim) = victim {
            self.stop(victim, "there are too many workers");
        }
        victim.is_some()
    }

    /// Gives memory to those that wait for it, first come, first served in each pool; evicts idle models
    /// where that helps.
    pub(super) fn claim_memory(&mut self) {
        self.claim_for_trial();
        let waiting = self.instances.values();
        let waiting: Vec<(WorkerId, Pool, u64)> = waiting
            .filter(|one| one.state == State::AwaitingMemory)
            .map(|one| (one.worker, one.pool.clone(), one.need_bytes))
            .collect();
        let mut ahead_bytes: BTreeMap<Pool, u64> = BTreeMap::new();
        for (worker, pool, need_bytes) in waiting {
            let (of_trial, _) = self.trial_bytes(&pool);
            let ahead = ahead_bytes.entry(pool.clone()).or_insert(of_trial);
            if *ahead == 0
                && self
                    .ledgers
                    .at_mut(&pool)
                    .reserve(worker, need_bytes)
                    .is_ok()
            {
                self.back_off_or_launch(worker);
                continue;
            }
            let wanted = ahead.saturating_add(need_bytes);
            if self.make_room(&pool, wanted) {
                *ahead = wanted;
                continue;
            }
            let have_bytes = self.room_bytes(&pool);
            let what = match &pool {
                Pool::Machine => "memory of models".to_owned(),
                Pool::Device(id) => format!("memory of models on {id}"),
            };
            self.abandon(
                worker,
                Status::OverBudget {
                    what,
                    need_bytes,
                    have_bytes,
                },
            );
        }
    }

    /// Sees to it that so many bytes of a pool will be free; whether they can be.
    fn make_room(&mut self, pool: &Pool, wanted_bytes: u64) -> bool {
        let coming = self.ledgers.at(pool).free_bytes() + self.leaving_bytes(pool);
        let missing = wanted_bytes.saturating_sub(coming);
        if missing == 0 {
            return true;
        }
        let Some(victims) = victims(missing, &self.evictable(pool)) else {
            return false;
        };
        for victim in victims {
            self.stop(victim, "its memory is needed for another model");
        }
        true
    }

    fn back_off_or_launch(&mut self, worker: WorkerId) {
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        match self.history.not_before(&instance.key()) {
            Some(at) if at > self.now => {
                instance.state = State::BackingOff;
                self.timers.set(Timer::Backoff(worker), at);
            }
            _ => self.launch(worker),
        }
    }

    pub(super) fn launch(&mut self, worker: WorkerId) {
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        instance.state = State::Starting;
        self.set_timer(Timer::Handshake(worker), HANDSHAKE_MS);
        self.effects.push(Effect::Spawn { worker });
        if !self.load.is_watching() {
            // Starting takes long enough that this look costs nobody anything.
            self.sample_load();
        }
    }

    /// Ends a worker that has no process, and tells all that waited for it.
    pub(super) fn abandon(&mut self, worker: WorkerId, status: Status) {
        let Some(instance) = self.remove_instance(worker) else {
            return;
        };
        for want in instance.wants {
            self.fail_want(want, status.clone());
        }
    }

    /// Unloads a model that nobody computes with.
    pub(super) fn unload(&mut self, key: RequestKey, model: &str) -> Result<(), Status> {
        self.catalogue.find(model)?;
        let others = self
            .connections
            .iter()
            .filter(|(id, _)| **id != key.connection);
        if others
            .map(|(_, connection)| connection)
            .any(|other| other.pins.contains(model))
        {
            return Err(Status::invalid("model", "another client has pinned it"));
        }
        let here = self
            .instances
            .values()
            .filter(|instance| instance.model() == model);
        let busy = here
            .clone()
            .any(|one| !one.wants.is_empty() || !one.jobs.is_empty());
        if busy {
            return Err(self.busy(1));
        }
        let loaded: Vec<_> = here
            .map(|one| (one.worker, one.state, one.streams.clone()))
            .collect();
        for (worker, state, streams) in &loaded {
            for stream in streams {
                let why = "the model was unloaded".to_owned();
                self.end_stream(*stream, Status::Revoked { why });
            }
            if *state != State::Stopping {
                self.stop(*worker, "a client unloads its model");
            }
        }
        let ending = loaded.into_iter().map(|(worker, ..)| worker);
        let ending = ending
            .filter(|worker| self.instances.contains_key(worker))
            .collect();
        self.set_open(key, super::connection::Open::Unload);
        self.unloads.push((key, ending));
        self.unloads_progress(WorkerId(0));
        Ok(())
    }

    /// Answers those that waited for this worker, and no other, to end.
    pub(super) fn unloads_progress(&mut self, ended: WorkerId) {
        for (_, workers) in &mut self.unloads {
            workers.remove(&ended);
        }
        let unloads = std::mem::take(&mut self.unloads);
        for (key, workers) in unloads {
            if workers.is_empty() {
                self.reply(key, Reply::Ok);
            } else {
                self.unloads.push((key, workers));
            }
        }
    }
}

fn millis_between(earlier: Instant, later: Instant) -> u64 {
    u64::try_from(later.saturating_duration_since(earlier).as_millis()).unwrap_or(u64::MAX)
}
