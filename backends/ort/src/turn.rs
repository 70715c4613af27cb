//! A lock that is handed out in the order it was asked for. `std::sync::Mutex` is not: a decode
//! loop that takes it again at once would starve a stream that shares the model.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Queue {
    next_ticket: u64,
    now_serving: u64,
}

/// The lock.
#[derive(Default)]
pub(crate) struct Turn {
    queue: Mutex<Queue>,
    served: Condvar,
}

/// Proof of having the turn; gives it back when dropped.
pub(crate) struct TurnGuard<'a>(&'a Turn);

impl Turn {
    /// Waits for all who asked before.
    pub(crate) fn take(&self) -> TurnGuard<'_> {
        let mut queue = self.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        while queue.now_serving != ticket {
            queue = self
                .served
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        TurnGuard(self)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Two counters cannot be left half changed by a panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut queue = self.0.lock();
            queue.now_serving += 1;
            queue.next_ticket != queue.now_serving
        };
        if waiting {
            self.0.served.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    #[test]
    fn a_waiter_goes_before_the_holder_takes_it_again() {
        let turn = Arc::new(Turn::default());
        let (order, seen) = mpsc::channel();
        let held = turn.take();
        let waiter = std::thread::spawn({
            let (turn, order) = (Arc::clone(&turn), order.clone());
            move || {
                let _held = turn.take();
                order.send("waiter").expect("receiver lives");
            }
        });
        while turn.lock().next_ticket < 2 {
            std::thread::yield_now();
        }
        drop(held);
        let _again = turn.take();
        order.send("holder").expect("receiver lives");
        waiter.join().expect("no panic");
        drop(order);
        assert_eq!(seen.iter().collect::<Vec<_>>(), ["waiter", "holder"]);
    }
}
