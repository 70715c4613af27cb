//! Power, heat and sleep: what changes for workers, queues and receipts.

use super::instance::State;
use super::{Core, Effect, Timer};
use crate::ids::WorkerId;
use crate::limits::{SLEEP_LIMIT_MS, SLEEP_SETTLE_MS};
use crate::policy::power::Observation;
use crate::policy::queue::Hold;
use mote_api::{Load, Threads};
use mote_wire::types::{Command, PowerReport};

/// What a worker is told about its threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Threads must not spin.
    pub busy: bool,
    /// Limit of threads, where it is below what the worker was loaded with.
    pub threads_max: Option<usize>,
}

impl Pace {
    /// The threads a model is to have now that may have as many as `full`.
    pub fn threads(self, full: usize) -> Threads {
        let load = if self.busy { Load::Busy } else { Load::Idle };
        let count = self.threads_max.unwrap_or(full).min(full);
        Threads::choose(full, Some(count), load)
    }
}

impl Core {
    /// The pace for all workers whose threads the requests leave open.
    pub(super) fn pace(&self) -> Pace {
        let stance = self.power.stance();
        Pace {
            busy: self.load.load() == Load::Busy || !stance.spin,
            threads_max: stance.threads_max(self.settings.cores),
        }
    }

    /// Tells a worker at what pace to compute, unless it knows.
    pub(super) fn tell_pace(&mut self, worker: WorkerId) {
        let pace = self.pace();
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        if instance.state == State::Ready && instance.pace != pace {
            instance.pace = pace;
            let threads_max = pace
                .threads_max
                .map(|max| u32::try_from(max).unwrap_or(u32::MAX));
            let busy = pace.busy;
            self.send(worker, Command::SetLoad { busy, threads_max });
        }
    }

    /// Tells a worker with streams what slows the machine down, unless it knows.
    pub(super) fn tell_throttle(&mut self, worker: WorkerId) {
        let throttle = self.power.throttle(self.now);
        let Some(instance) = self.instances.get_mut(&worker) else {
            return;
        };
        if instance.streams.is_empty() || instance.throttle == throttle {
            return;
        }
        match serde_json::to_vec(&throttle) {
            Ok(throttle_json) => {
                instance.throttle = throttle;
                self.send(worker, Command::SetThrottle { throttle_json });
            }
            Err(error) => log::error!("what slows the machine down cannot be told: {error}"),
        }
    }

    pub(super) fn tell_pace_to_all(&mut self) {
        for worker in self.instances.keys().copied().collect::<Vec<_>>() {
            self.tell_pace(worker);
        }
    }

    /// Something about profile, supply or heat was observed.
    pub(super) fn power_observed(&mut self, observation: Observation) {
        let is_new = self.power.observe(observation);
        let throttle = self.power.throttle(self.now);
        for job in self.jobs.values_mut().filter(|job| job.is_running()) {
            if job.throttle < throttle {
                job.throttle.clone_from(&throttle);
            }
        }
        for worker in self.instances.keys().copied().collect::<Vec<_>>() {
            self.tell_throttle(worker);
        }
        if !is_new {
            return;
        }
        let stance = self.power.stance();
        log::info!(
            policy:% = stance.policy, spin = stance.spin, background = stance.background;
            "power: {}", stance.why
        );
        self.tell_pace_to_all();
    }

    /// What is held back at present.
    pub(super) fn hold(&self) -> Hold {
        if self.asleep {
            Hold::All
        } else if self.power.stance().background {
            Hold::Nothing
        } else {
            Hold::Background
        }
    }

    /// The machine is about to sleep: jobs halt at their next step. What they have done so far is in
    /// the journal.
    pub(super) fn fall_asleep(&mut self) {
        if self.asleep {
            return;
        }
        log::info!(jobs = self.jobs.len(), streams = self.streams.len(); "the machine goes to sleep");
        self.asleep = true;
        self.set_timer(Timer::Awake, SLEEP_LIMIT_MS);
        if self.inhibits {
            let settle_ms = if self.runs_a_job() {
                SLEEP_SETTLE_MS
            } else {
                0
            };
            self.set_timer(Timer::Settled, settle_ms);
        }
    }

    /// The machine has slept, or will not: everything goes on. Devices may be others than before.
    pub(super) fn wake_up(&mut self) {
        if !std::mem::take(&mut self.asleep) {
            return;
        }
        log::info!("the machine is awake");
        self.timers.cancel(&Timer::Awake);
        self.timers.cancel(&Timer::Settled);
        self.load.interrupt();
        self.probe_anew();
    }

    fn runs_a_job(&self) -> bool {
        self.jobs.values().any(super::job::Job::is_running)
    }

    /// Whether there is work that sleep should wait for. It is asked at looks at the load, so that
    /// work that ends before the next one costs nobody a lock.
    pub(super) fn tend_inhibition(&mut self, computed: bool) {
        let wanted = if self.inhibits {
            computed || !self.streams.is_empty()
        } else {
            self.runs_a_job() || !self.streams.is_empty()
        };
        self.set_inhibited(wanted && !self.asleep);
    }

    pub(super) fn set_inhibited(&mut self, hold: bool) {
        if self.inhibits != hold {
            self.inhibits = hold;
            self.effects.push(Effect::Inhibit { hold });
        }
    }

    pub(super) fn power_report(&self) -> PowerReport {
        let stance = self.power.stance();
        PowerReport {
            policy: stance.policy.to_string(),
            why: stance.why.to_string(),
            throttle: self.power.throttle(self.now).to_string(),
            background_paused: !stance.background,
            sleep_delayed: self.sleep_delayed,
        }
    }
}
