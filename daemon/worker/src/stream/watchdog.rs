//! Pushes that take too long on a device: the thread that computes cannot tell that it hangs.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Called with a stream whose push takes too long, and how long it might.
pub type Tell = dyn Fn(u64, Duration) + Send + Sync;

/// Watches over the pushes of all streams of this process, on a thread that is started with the first
/// of them and sleeps while there are none. Clones share it.
#[derive(Clone)]
pub struct Watchdog(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    tell: Box<Tell>,
}

#[derive(Default)]
struct State {
    /// When the push in progress is late, by its stream; and how long it may take.
    running: HashMap<u64, (Instant, Duration)>,
    /// Whether there is a thread.
    begun: bool,
    /// When it looks next, unless somebody wakes it.
    looks_at: Option<Instant>,
}

/// A push in progress; it is over when this is dropped.
pub struct Watched<'a>(&'a Watchdog, u64);

impl Watchdog {
    /// With nothing to watch; what is late is told to `tell`, once.
    pub fn new(tell: impl Fn(u64, Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            tell: Box::new(tell),
        }))
    }

    /// A push of this stream begins, which may take so long.
    pub fn watch(&self, stream: u64, limit: Duration) -> Watched<'_> {
        let due = Instant::now() + limit;
        let mut state = self.0.lock();
        state.running.insert(stream, (due, limit));
        if !state.begun {
            state.begun = true;
            let shared = Arc::clone(&self.0);
            std::thread::spawn(move || shared.look());
        } else if state.looks_at.is_none_or(|at| due < at) {
            // It looks often enough otherwise: waking it each time would cost more than it is worth.
            state.looks_at = Some(due);
            self.0.changed.notify_one();
        }
        drop(state);
        Watched(self, stream)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.0.lock().running.remove(&self.1);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let late = state.running.extract_if(|_, (due, _)| *due <= now);
            let late: Vec<_> = late.collect();
            if !late.is_empty() {
                drop(state);
                for (stream, (_, limit)) in late {
                    (self.tell)(stream, limit);
                }
                state = self.lock();
                continue;
            }
            state.looks_at = state.running.values().map(|(due, _)| *due).min();
            state = match state.looks_at {
                Some(at) => {
                    let waited = self.changed.wait_timeout(state, at - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{RecvTimeoutError, channel};

    const SOON: Duration = Duration::from_millis(50);
    const NEVER: Duration = Duration::from_secs(3600);

    #[test]
    fn a_late_push_is_told_once_and_others_are_not() {
        let (tell, told) = channel();
        let watchdog = Watchdog::new(move |stream, limit| {
            tell.send((stream, limit)).expect("the test listens");
        });
        // The first one starts the thread, with a look in an hour; the second is sooner.
        let long = watchdog.watch(1, NEVER);
        for _ in 0..10 {
            drop(watchdog.watch(2, SOON));
        }
        assert_eq!(told.recv_timeout(4 * SOON), Err(RecvTimeoutError::Timeout));
        let late = watchdog.watch(3, SOON);
        assert_eq!(told.recv_timeout(NEVER), Ok((3, SOON)));
        assert_eq!(told.recv_timeout(4 * SOON), Err(RecvTimeoutError::Timeout));
        drop((late, long));
        // It wakes from its sleep, too.
        let again = watchdog.watch(3, SOON);
        assert_eq!(told.recv_timeout(NEVER), Ok((3, SOON)));
        drop(again);
        assert!(watchdog.0.lock().running.is_empty());
    }
}
