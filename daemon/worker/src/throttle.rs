//! What slowed the machine down, as the broker tells it, for the receipts of streams.

use mote_api::Throttle;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What slows the machine down now, and when each kind of it was so last.
#[derive(Debug, Default)]
pub struct ThrottleLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: Throttle,
    /// At most one of each kind, with the time it ended.
    before: Vec<(Throttle, Instant)>,
}

impl ThrottleLog {
    /// It is another one from now on.
    pub fn set(&self, throttle: Throttle, at: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::replace(&mut state.now, throttle);
        let kind = std::mem::discriminant(&ended);
        state
            .before
            .retain(|(other, _)| std::mem::discriminant(other) != kind);
        state.before.push((ended, at));
    }

    /// The worst since a point in time.
    pub fn worst_since(&self, begin: Instant) -> Throttle {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = state.before.iter().filter(|(_, ended)| *ended >= begin);
        let worst = since.map(|(throttle, _)| throttle).chain([&state.now]);
        worst.max().cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_stream_hears_of_what_happened_in_its_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let hot = |place: &str| Throttle::Thermal {
            place: place.into(),
        };
        let log = ThrottleLog::default();
        assert_eq!(log.worst_since(at(0)), Throttle::Unknown);
        log.set(Throttle::None, at(10));
        assert_eq!(log.worst_since(at(0)), Throttle::None);
        log.set(hot("a"), at(20));
        log.set(hot("b"), at(30));
        log.set(Throttle::None, at(40));
        log.set(Throttle::PowerSaver, at(50));
        log.set(Throttle::None, at(60));
        assert_eq!(log.worst_since(at(15)), hot("b"));
        assert_eq!(log.worst_since(at(40)), hot("b"));
        assert_eq!(log.worst_since(at(41)), Throttle::PowerSaver);
        assert_eq!(log.worst_since(at(61)), Throttle::None);
    }
}
