//! How the tool speaks: progress and notes on standard error, results on standard output; with
//! `--json` results are JSON and nothing else is said.

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

const SPINNER_INTERVAL: Duration = Duration::from_millis(120);

/// Nobody reads the results any more, as when `head` has seen enough.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct OutputClosed;

/// The user's wishes about output.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    /// Results as JSON.
    pub json: bool,
    /// No progress, no notes.
    pub quiet: bool,
}

impl Ui {
    /// A note for people.
    pub fn note(&self, text: impl std::fmt::Display) {
        if !self.json && !self.quiet {
            // A closed standard error must not end the work.
            let _ignored_when_closed = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// A piece of streamed text that is not the result.
    pub fn aside(&self, text: &str) {
        if !self.quiet && !self.json {
            // A closed standard error must not end the work.
            let _ignored_when_closed = write!(std::io::stderr(), "{text}");
        }
    }

    /// A result: `value` as JSON, or else the text.
    pub fn result(&self, value: &impl Serialize, text: impl std::fmt::Display) -> Result<()> {
        let mut bytes = if self.json {
            serde_json::to_vec_pretty(value).context("cannot write the result")?
        } else {
            text.to_string().into_bytes()
        };
        bytes.push(b'\n');
        self.raw(&bytes)
    }

    /// A piece of streamed text, as it is.
    pub fn stream(&self, text: &str) -> Result<()> {
        self.raw(text.as_bytes())
    }

    /// Bytes for standard output, as they are.
    pub fn raw(&self, bytes: &[u8]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(OutputClosed.into()),
            written => written.context("cannot write to standard output"),
        }
    }

    /// Progress over bytes.
    pub fn bytes_bar(&self, label: &str, total: u64) -> ProgressBar {
        // As wide as the terminal: a line that wraps cannot be drawn over.
        let style =
            "{prefix:>20} [{wide_bar}] {bytes:>10}/{total_bytes} {bytes_per_sec:>12} {eta:>4}";
        self.bar(label, Some(total), style)
    }

    /// Progress over counted units.
    pub fn count_bar(&self, label: &str, total: u64) -> ProgressBar {
        self.bar(
            label,
            Some(total),
            "{prefix:>22} [{bar:30}] {pos:>6}/{len} {msg} {eta:>4}",
        )
    }

    /// Work without a known end.
    pub fn spinner(&self, label: &str) -> ProgressBar {
        let bar = self.bar(label, None, "{prefix:>22} {spinner} {msg} {elapsed:>4}");
        if !bar.is_hidden() {
            bar.enable_steady_tick(SPINNER_INTERVAL);
        }
        bar
    }

    fn bar(&self, label: &str, total: Option<u64>, style: &str) -> ProgressBar {
        let hidden = self.json || self.quiet || !std::io::stderr().is_terminal();
        let target = if hidden {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(total, target);
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.with_prefix(label.to_owned())
    }
}

/// Bytes for people.
pub fn bytes_text(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Microseconds for people.
pub fn micros_text(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}
