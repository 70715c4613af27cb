//! Threads and spinning that follow what the machine is doing.

use mote_api::{Load, LoadError, Model, Threads};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The threads a model computes with, and how often that changed.
pub struct Governor {
    models: Vec<Arc<dyn Model>>,
    policy: Policy,
    now: Mutex<Threads>,
    changes: AtomicU32,
}

/// What may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The most threads there may be.
    pub limit: usize,
    /// Whether threads follow the machine's load at all.
    pub follow: bool,
    /// Whether this backend's threads can spin.
    pub can_spin: bool,
}

impl Governor {
    /// Over graphs that were loaded with `threads`.
    pub fn new(models: Vec<Arc<dyn Model>>, threads: Threads, policy: Policy) -> Self {
        let (now, changes) = (Mutex::new(threads), AtomicU32::new(0));
        Self {
            models,
            policy,
            now,
            changes,
        }
    }

    /// The threads in use.
    pub fn threads(&self) -> Threads {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes so far.
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Adapts to the machine's load, with `threads_max` threads at most. The backend may have to compile the model again for that, so
    /// it happens on a thread of its own while jobs go on with what they have.
    pub fn follow(self: &Arc<Self>, load: Load, threads_max: Option<usize>) {
        if !self.policy.follow {
            return;
        }
        let this = Arc::clone(self);
        std::thread::spawn(move || this.change(load, threads_max));
    }

    fn change(&self, load: Load, threads_max: Option<usize>) {
        // Held over the change: a second one waits for the first, and so the last one wins.
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = self.policy.limit;
        let mut wanted = Threads::choose(limit, threads_max, load);
        wanted.spin &= self.policy.can_spin;
        if *now == wanted {
            return;
        }
        let set = self.models.iter().try_fold(false, |changed, model| {
            Ok::<_, LoadError>(model.set_threads(wanted)? | changed)
        });
        match set {
            Ok(true) => {
                *now = wanted;
                self.changes.fetch_add(1, Ordering::Relaxed);
                log::info!(threads = wanted.count, spin = wanted.spin; "threads follow the load");
            }
            Ok(false) => log::debug!("this backend keeps its threads"),
            Err(error) => log::warn!("threads stay as they are: {error}"),
        }
    }
}
