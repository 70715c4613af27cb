//! What is known about the runtimes' abilities; found out when it is needed first.

use crate::flavours::{Flavours, Installed};
use mote_api::{Absence, BackendKind, Capability, Digest};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown,
    Running,
    Known,
}

#[derive(Debug)]
struct Slot {
    installed: Arc<Installed>,
    /// State of its files when they were read.
    stamp: Digest,
    state: State,
    capabilities: Vec<Capability>,
}

/// All flavours and what they can do.
#[derive(Debug)]
pub struct Probes {
    generation: u64,
    fresh: bool,
    slots: Vec<Slot>,
    absent: Vec<Capability>,
    known: Vec<Capability>,
}

impl Probes {
    /// Nothing known yet.
    pub fn new(flavours: Flavours) -> Self {
        let mut probes = Self {
            generation: 0,
            fresh: false,
            slots: Vec::new(),
            absent: Vec::new(),
            known: Vec::new(),
        };
        probes.reset(flavours, false);
        probes
    }

    /// The runtime folders were read anew. With `fresh`, what was found before is not believed.
    pub fn reset(&mut self, flavours: Flavours, fresh: bool) {
        self.generation += 1;
        self.fresh = fresh;
        let slot = |installed: Installed| Slot {
            stamp: installed.stamp(),
            installed: Arc::new(installed),
            state: State::Unknown,
            capabilities: Vec::new(),
        };
        self.slots = flavours.installed.into_iter().map(slot).collect();
        self.absent = flavours.absent;
        self.collect();
    }

    /// The present reading of the runtime folders.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether results from before are not to be believed.
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// The flavours to probe before all about these backends (of all, without any) is known; each
    /// is answered once.
    pub fn start(&mut self, backends: Option<&BTreeSet<BackendKind>>) -> Vec<Arc<Installed>> {
        let mut started = Vec::new();
        for slot in &mut self.slots {
            if slot.state == State::Unknown && concerns(slot, backends) {
                slot.state = State::Running;
                started.push(Arc::clone(&slot.installed));
            }
        }
        started
    }

    /// Whether all about these backends (of all, without any) is known.
    pub fn is_known(&self, backends: Option<&BTreeSet<BackendKind>>) -> bool {
        self.slots
            .iter()
            .all(|slot| slot.state == State::Known || !concerns(slot, backends))
    }

    /// Takes in what was found; answers whether it was asked for.
    pub fn found(&mut self, generation: u64, flavour: &str, found: Vec<Capability>) -> bool {
        let slot = self
            .slots
            .iter_mut()
            .find(|slot| slot.installed.flavour.name == flavour);
        let Some(slot) =
            slot.filter(|slot| generation == self.generation && slot.state == State::Running)
        else {
            return false;
        };
        (slot.state, slot.capabilities) = (State::Known, found);
        self.collect();
        true
    }

    fn collect(&mut self) {
        let found = self.slots.iter().flat_map(|slot| &slot.capabilities);
        self.known = found.chain(&self.absent).cloned().collect();
    }

    /// All that is known.
    pub fn capabilities(&self) -> &[Capability] {
        &self.known
    }

    /// Whether somebody may count on it: the runtime was installed for this provider, or is there
    /// and does not even load.
    pub fn is_expected(&self, capability: &Capability) -> bool {
        if matches!(capability.absence, Some(Absence::NotFetched { .. })) {
            return false;
        }
        let installed = self.installed(&capability.flavour);
        let expects = |installed: &Installed| {
            let expects = &installed.flavour.expects;
            expects.contains(&capability.provider)
        };
        capability.provider.is_empty() || installed.is_some_and(expects)
    }

    /// A flavour by name.
    pub fn installed(&self, flavour: &str) -> Option<&Installed> {
        let mut installed = self.slots.iter().map(|slot| &*slot.installed);
        installed.find(|installed| installed.flavour.name == flavour)
    }

    /// State of a flavour's files when they were read.
    pub fn stamp(&self, flavour: &str) -> Option<&Digest> {
        let mut slots = self.slots.iter();
        let slot = slots.find(|slot| slot.installed.flavour.name == flavour)?;
        Some(&slot.stamp)
    }

    /// The library's version as probed.
    pub fn library_version(&self, flavour: &str, provider: &str) -> String {
        let mut known = self.known.iter();
        let found = known.find(|one| one.flavour == flavour && one.provider == provider);
        found
            .map(|one| one.library_version.clone())
            .unwrap_or_default()
    }
}

fn concerns(slot: &Slot, backends: Option<&BTreeSet<BackendKind>>) -> bool {
    backends.is_none_or(|backends| backends.contains(&slot.installed.flavour.backend))
}
