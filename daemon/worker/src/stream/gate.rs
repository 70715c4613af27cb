//! Where a stream's pushes wait while more urgent work computes on the device.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The gates of all streams of this process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Gates(Arc<Mutex<HashMap<u64, Arc<Gate>>>>);

/// One stream's.
#[derive(Debug, Default)]
pub struct Gate {
    is_closed: Mutex<bool>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gates {
    /// A stream was announced: it can be held from here on, whether or not it was attached.
    pub fn expect(&self, stream: u64) {
        lock(&self.0).insert(stream, Arc::default());
    }

    /// Holds a stream's next pushes, or lets them go on. One that has ended feels nothing.
    pub fn hold(&self, stream: u64, held: bool) {
        if let Some(gate) = lock(&self.0).get(&stream) {
            *lock(&gate.is_closed) = held;
            gate.changed.notify_all();
        }
    }

    /// The gate of a stream that begins.
    pub fn of(&self, stream: u64) -> Arc<Gate> {
        Arc::clone(lock(&self.0).entry(stream).or_default())
    }

    /// A stream has ended.
    pub fn forget(&self, stream: u64) {
        lock(&self.0).remove(&stream);
    }
}

impl Gate {
    /// Waits until the gate is open; whether it had to.
    pub fn pass(&self) -> bool {
        let mut is_closed = lock(&self.is_closed);
        let waits = *is_closed;
        while *is_closed {
            let waited = self.changed.wait(is_closed);
            is_closed = waited.unwrap_or_else(PoisonError::into_inner);
        }
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_waits_behind_a_closed_gate_and_ended_streams_leave_nothing() {
        let gates = Gates::default();
        gates.hold(1, true);
        gates.expect(1);
        assert!(!gates.of(1).pass(), "it was held before it was there");
        gates.hold(1, true);
        let gate = gates.of(1);
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || tell.send(gate.pass()));
        let soon = std::time::Duration::from_millis(50);
        assert!(told.recv_timeout(soon).is_err(), "the gate is closed");
        gates.hold(1, false);
        assert_eq!(told.recv(), Ok(true));
        waiting.join().expect("no panic").expect("told");
        gates.forget(1);
        assert!(lock(&gates.0).is_empty());
    }
}
