//! Log lines on stderr: level, module, message, then `key=value` pairs.

use env_logger::{Builder, Env};
use log::kv::{Key, Value, VisitSource};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Begins logging at `level`; `RUST_LOG`, when set, says it in more detail.
pub fn start(level: log::LevelFilter) {
    let mut builder = Builder::from_env(Env::default().default_filter_or(level.as_str()));
    builder.format(|buffer, record| {
        let (level, target) = (record.level(), record.target());
        write!(
            buffer,
            "{} {level:5} {target}: {}",
            buffer.timestamp_millis(),
            record.args()
        )?;
        // Formatting into the buffer's memory does not fail.
        let _ = record.key_values().visit(&mut Pairs(buffer));
        writeln!(buffer)
    });
    builder.init();
}

struct Pairs<'a, W: Write>(&'a mut W);

impl<'kvs, W: Write> VisitSource<'kvs> for Pairs<'_, W> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        write!(self.0, " {key}={value}").map_err(log::kv::Error::boxed)
    }
}

/// Lets a few lines per period through, for what a peer can cause as often as it likes.
#[derive(Debug)]
pub struct Limiter {
    period_ms: u64,
    lines_max: u64,
    period: AtomicU64,
    lines: AtomicU64,
}

impl Limiter {
    /// At most `lines_max` lines in each `period_ms`.
    pub const fn new(lines_max: u64, period_ms: u64) -> Self {
        Self {
            period_ms,
            lines_max,
            period: AtomicU64::new(0),
            lines: AtomicU64::new(0),
        }
    }

    /// Whether a line may be written now; `start` is any fixed point in time.
    pub fn allows(&self, start: Instant) -> bool {
        let now_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.allows_at(now_ms)
    }

    /// As [`Limiter::allows`], at a time since that point.
    pub fn allows_at(&self, now_ms: u64) -> bool {
        // From 1, so that the first period is a new one.
        let period = now_ms / self.period_ms + 1;
        if self.period.swap(period, Ordering::Relaxed) != period {
            self.lines.store(0, Ordering::Relaxed);
        }
        self.lines.fetch_add(1, Ordering::Relaxed) < self.lines_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gives_a_few_lines_per_period() {
        let limiter = Limiter::new(3, 1_000);
        let lines = |from: u64| {
            (from..from + 500)
                .filter(|ms| limiter.allows_at(*ms))
                .count()
        };
        assert_eq!(
            (lines(0), lines(500), lines(1_000), lines(5_200)),
            (3, 0, 3, 3)
        );
    }
}
