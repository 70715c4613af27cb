//! Ctrl-C: the first asks for a clean end, the second ends at once.

use anyhow::{Context, Result, bail};
use mote_client::{Canceller, ClientError, Status};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(50);

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

/// Sleeps, but not beyond Ctrl-C.
pub fn sleep(duration: Duration) -> Result<(), Interrupted> {
    let since = Instant::now();
    while let Some(left) = duration.checked_sub(since.elapsed()) {
        check()?;
        std::thread::sleep(left.min(POLL_INTERVAL));
    }
    check()
}

/// Waits for work that nothing can cancel, but not beyond Ctrl-C: what is left behind then ends with
/// this process, and the daemon cancels it when the connection is gone.
pub fn wait<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("work".into())
        .spawn(move || {
            // Whoever was interrupted does not wait for the result.
            let _ignored_when_left = sender.send(work());
        })
        .context("cannot start to work")?;
    loop {
        match receiver.recv_timeout(POLL_INTERVAL) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) => check()?,
            Err(RecvTimeoutError::Disconnected) => bail!("the work has panicked"),
        }
    }
}

/// Cancels a request of the daemon when Ctrl-C is pressed while this value lives.
pub struct Watch(Arc<AtomicBool>);

impl Watch {
    /// Begins to watch.
    pub fn start(canceller: Canceller) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let watch = move || {
            while !seen.load(Ordering::Relaxed) {
                if pressed() {
                    return canceller.cancel();
                }
                std::thread::sleep(POLL_INTERVAL);
            }
            Ok(())
        };
        std::thread::Builder::new()
            .name("interrupt".into())
            .spawn(move || {
                if let Err(error) = watch() {
                    log::debug!("nothing was left to cancel: {error}");
                }
            })
            .context("cannot watch for Ctrl-C")?;
        Ok(Self(over))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A request that ended as cancelled after Ctrl-C was interrupted, not refused.
pub fn or_interrupted(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Refused(Status::Cancelled) if pressed() => Interrupted.into(),
        error => error.into(),
    }
}
