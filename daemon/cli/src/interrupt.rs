//! Ctrl-C: the first asks for a clean end, the second ends at once.

use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The user pressed Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Watches for SIGINT and SIGTERM from here on.
pub fn install() -> Result<()> {
    let flag = FLAG.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // Registered before the flag is set by the first one: a second signal while the flag is
        // up ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(flag)))
            .context("cannot watch for Ctrl-C")?;
    }
    Ok(())
}

/// The flag that Ctrl-C raises, for work that watches a flag.
pub fn flag() -> Arc<AtomicBool> {
    Arc::clone(FLAG.get_or_init(Arc::default))
}

/// Whether Ctrl-C was pressed.
pub fn pressed() -> bool {
    FLAG.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// An error once Ctrl-C was pressed.
pub fn check() -> Result<(), Interrupted> {
    if pressed() { Err(Interrupted) } else { Ok(()) }
}
