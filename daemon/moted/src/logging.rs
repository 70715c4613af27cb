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

/// Characters of what a library, or a file, says that go into one line.
pub const TOLD_CHARS_MAX: usize = 300;

/// Something of any length that others say, as part of a line: on one line, cut where it is too long.
pub fn brief(told: &impl std::fmt::Display) -> String {
    let told = on_one_line(&told.to_string());
    match told.char_indices().nth(TOLD_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &told[..end]),
        None => told,
    }
}

/// As [`brief`], but the end of it.
pub fn brief_end(told: &str) -> String {
    let told = on_one_line(told);
    match told.char_indices().nth_back(TOLD_CHARS_MAX) {
        Some((cut, character)) => format!("…{}", &told[cut + character.len_utf8()..]),
        None => told,
    }
}

fn on_one_line(told: &str) -> String {
    let is_gap = |c: char| c.is_whitespace() || c.is_control();
    let words = told.split(is_gap).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
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
    fn what_others_say_takes_one_line_of_bounded_length() {
        assert_eq!(brief(&"cannot load:\n\t\u{1b}[1mno"), "cannot load: [1mno");
        assert_eq!(brief_end("a\r\nb"), "a b");
        let whole = "é".repeat(TOLD_CHARS_MAX);
        assert_eq!(
            (brief(&whole), brief_end(&whole)),
            (whole.clone(), whole.clone())
        );
        let long = format!("a{whole}z");
        let (start, end) = (brief(&long), brief_end(&long));
        assert!(start.starts_with("aé") && start.ends_with("é…"));
        assert!(end.starts_with("…é") && end.ends_with("éz"));
        for one in [start, end] {
            assert_eq!(one.chars().count(), TOLD_CHARS_MAX + 1);
        }
    }

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
