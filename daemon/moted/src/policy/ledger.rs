//! Memory of loaded models against the budget, and which models go first when it is short.

use crate::ids::WorkerId;
use mote_api::DeviceInfo;
use std::collections::BTreeMap;

/// Whose memory a model takes. A device that shares the machine's memory, as on most boards, has none
/// of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    /// The machine's.
    #[default]
    Machine,
    /// That of the device of this id.
    Device(String),
}

/// A ledger for each pool.
#[derive(Clone, Debug)]
pub struct Ledgers {
    machine: Ledger,
    devices: BTreeMap<String, Ledger>,
}

impl Ledgers {
    /// Empty ledgers: of the machine, and of devices with memory of their own, by id.
    pub fn new(budget_bytes: u64, devices: &BTreeMap<String, u64>) -> Self {
        let devices = devices.iter();
        Self {
            machine: Ledger::new(budget_bytes),
            devices: devices
                .map(|(id, &bytes)| (id.clone(), Ledger::new(bytes)))
                .collect(),
        }
    }

    /// Whose memory a model on this device takes.
    pub fn pool_of(&self, device: &DeviceInfo) -> Pool {
        match self.devices.contains_key(&device.id) {
            true => Pool::Device(device.id.clone()),
            false => Pool::Machine,
        }
    }

    /// The ledger of a pool; for a device without memory of its own, the machine's.
    pub fn at(&self, pool: &Pool) -> &Ledger {
        match pool {
            Pool::Machine => &self.machine,
            Pool::Device(id) => self.devices.get(id).unwrap_or(&self.machine),
        }
    }

    /// As [`Ledgers::at`], to reserve from.
    pub fn at_mut(&mut self, pool: &Pool) -> &mut Ledger {
        match pool {
            Pool::Machine => &mut self.machine,
            Pool::Device(id) => self.devices.get_mut(id).unwrap_or(&mut self.machine),
        }
    }

    /// What a worker has reserved, of whichever.
    pub fn of(&self, worker: WorkerId) -> u64 {
        let all = self.devices.values().chain([&self.machine]);
        all.map(|ledger| ledger.of(worker)).sum()
    }

    /// Gives back what a worker had reserved.
    pub fn release(&mut self, worker: WorkerId) {
        let all = self.devices.values_mut().chain([&mut self.machine]);
        all.for_each(|ledger| {
            ledger.release(worker);
        });
    }
}

/// Reservations against a budget; their sum never exceeds it.
#[derive(Clone, Debug)]
pub struct Ledger {
    budget_bytes: u64,
    reserved: BTreeMap<WorkerId, u64>,
}

/// There is not enough room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes asked for.
    pub need_bytes: u64,
    /// Bytes that are free.
    pub have_bytes: u64,
}

/// An idle model that may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Its worker.
    pub worker: WorkerId,
    /// What its end frees.
    pub bytes: u64,
    /// Time since it was used last.
    pub idle_ms: u64,
    /// Time it took to load.
    pub reload_ms: u64,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            reserved: BTreeMap::new(),
        }
    }

    /// The budget.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// The sum of all reservations.
    pub fn reserved_bytes(&self) -> u64 {
        self.reserved.values().sum()
    }

    /// What is left.
    pub fn free_bytes(&self) -> u64 {
        self.budget_bytes - self.reserved_bytes()
    }

    /// What a worker has reserved.
    pub fn of(&self, worker: WorkerId) -> u64 {
        self.reserved.get(&worker).copied().unwrap_or(0)
    }

    /// Reserves memory for a worker that has none reserved.
    ///
    /// # Errors
    /// [`Shortage`] when it does not fit; nothing is reserved then.
    pub fn reserve(&mut self, worker: WorkerId, need_bytes: u64) -> Result<(), Shortage> {
        debug_assert!(
            !self.reserved.contains_key(&worker),
            "a worker reserves once"
        );
        let have_bytes = self.free_bytes();
        if need_bytes > have_bytes {
            return Err(Shortage {
                need_bytes,
                have_bytes,
            });
        }
        self.reserved.insert(worker, need_bytes);
        Ok(())
    }

    /// Gives back what a worker had reserved; 0 when it had nothing, or gave it back already.
    pub fn release(&mut self, worker: WorkerId) -> u64 {
        self.reserved.remove(&worker).unwrap_or(0)
    }
}

/// The models to evict so that `missing_bytes` become free: those first that were idle for the
/// longest time measured in their own time to reload. `None` when all together do not suffice.
pub fn victims(missing_bytes: u64, idle: &[Idle]) -> Option<Vec<WorkerId>> {
    let mut order: Vec<&Idle> = idle.iter().filter(|one| one.bytes > 0).collect();
    // idle/reload > idle'/reload', without division; the worker's number breaks ties.
    let weight = |one: &Idle, other: &Idle| {
        (u128::from(one.idle_ms) + 1) * (u128::from(other.reload_ms) + 1)
    };
    order.sort_by(|a, b| {
        weight(b, a)
            .cmp(&weight(a, b))
            .then(a.worker.cmp(&b.worker))
    });
    let mut chosen: Vec<&Idle> = Vec::new();
    let mut freed_bytes = 0u64;
    for one in order {
        if freed_bytes >= missing_bytes {
            break;
        }
        freed_bytes += one.bytes;
        chosen.push(one);
    }
    if freed_bytes < missing_bytes {
        return None;
    }
    // A large one chosen late may make small ones chosen early needless; the latest chosen are
    // the dearest, so they are spared first.
    for index in (0..chosen.len()).rev() {
        if freed_bytes - chosen[index].bytes >= missing_bytes {
            freed_bytes -= chosen.remove(index).bytes;
        }
    }
    Some(chosen.into_iter().map(|one| one.worker).collect())
}
