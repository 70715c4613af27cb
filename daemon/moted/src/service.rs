//! What the service manager gives and is told: socket activation and `sd_notify(3)`. Everything works
//! without one, too, and then nothing is said.
//!
//! The crates `listenfd` and `sd-notify` do the talking: pure Rust, no libsystemd to link.

use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

/// Variables that are meant for this process and for none that it starts.
pub const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// What is asked of the daemon from outside its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read stores and runtimes again, and probe anew.
    Reload,
    /// Take no more work, end when what runs has ended or the time for it is up; told a second time,
    /// end at once.
    Stop,
}

/// The socket that the service manager listens on for us, if it does.
///
/// # Errors
/// When what it gives is no listening Unix stream socket.
pub fn inherited_listener() -> io::Result<Option<UnixListener>> {
    ListenFd::from_env().take_unix_listener(0)
}

/// The way to the service manager.
#[derive(Debug)]
pub struct Service {
    is_there: bool,
    /// Half of what it waits for a sign of life.
    pause: Option<Duration>,
    next_sign: Option<Instant>,
    loaded: Option<usize>,
}

impl Service {
    /// As the environment says.
    pub fn find(now: Instant) -> Self {
        let pause = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self {
            is_there: std::env::var_os("NOTIFY_SOCKET").is_some(),
            pause,
            next_sign: pause.map(|_| now),
            loaded: None,
        }
    }

    /// Whether there is a service manager that listens.
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// Connections are taken.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// Stores are being read; [`Service::ready`] is next.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => log::warn!("cannot read the clock: {error}"),
        }
    }

    /// No more work is taken.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// How many models are loaded, told to people when it has changed.
    pub fn loaded(&mut self, models: usize) {
        if self.is_there && self.loaded != Some(models) {
            let plural = if models == 1 { "" } else { "s" };
            let status = format!("Serving; {models} model{plural} loaded");
            self.tell(&[NotifyState::Status(&status)]);
            self.loaded = Some(models);
        }
    }

    /// When the next sign of life is due.
    pub fn next_sign(&self) -> Option<Instant> {
        self.next_sign
    }

    /// Gives a sign of life if one is due. Called by the loop that everything depends on, so that
    /// a loop that hangs gives none.
    pub fn sign(&mut self, now: Instant) {
        if self.next_sign.is_some_and(|due| due <= now) {
            self.tell(&[NotifyState::Watchdog]);
            self.next_sign = self.pause.map(|pause| now + pause);
        }
    }

    fn tell(&self, state: &[NotifyState<'_>]) {
        if self.is_there
            && let Err(error) = sd_notify::notify(state)
        {
            log::warn!("the service manager does not listen: {error}");
        }
    }
}
