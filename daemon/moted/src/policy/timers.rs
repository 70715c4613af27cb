//! Points in time that something waits for. With nothing in it, nothing ever wakes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Timers by key: each key has at most one.
#[derive(Debug)]
pub struct Timers<K: Ord + Clone> {
    at: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Self {
        Self {
            at: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the timer of `key`, in place of the one it had.
    pub fn set(&mut self, key: K, at: Instant) {
        self.cancel(&key);
        self.at.insert(key.clone(), at);
        self.order.insert((at, key));
    }

    /// Removes the timer of `key`, if it has one.
    pub fn cancel(&mut self, key: &K) {
        if let Some(at) = self.at.remove(key) {
            self.order.remove(&(at, key.clone()));
        }
    }

    /// Whether `key` has a timer.
    pub fn is_set(&self, key: &K) -> bool {
        self.at.contains_key(key)
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Removes and returns one timer that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next_due()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timers_come_in_order_and_once_and_can_be_moved() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        assert_eq!(timers.next_due(), None);
        timers.set("b", at(20));
        timers.set("a", at(10));
        timers.set("c", at(5));
        timers.set("c", at(30));
        timers.set("d", at(1));
        timers.cancel(&"d");
        assert_eq!(timers.next_due(), Some(at(10)));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(25)), Some("a"));
        assert_eq!(timers.pop_due(at(25)), Some("b"));
        assert_eq!(timers.pop_due(at(25)), None);
        assert!(timers.is_set(&"c"));
        assert_eq!(timers.pop_due(at(30)), Some("c"));
        assert_eq!(timers.next_due(), None);
    }
}
