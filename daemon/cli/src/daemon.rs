//! Reaching a daemon: the one that runs, or one of our own.

use crate::args::Cli;
use crate::interrupt;
use anyhow::{Context, Result, bail};
use mote_client::{Client, ClientError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CLIENT_NAME: &str = concat!("mote ", env!("CARGO_PKG_VERSION"));
/// How long a private daemon may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long a private daemon may take to leave.
const END_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A connection, and the daemon behind it when it is our own.
pub struct Daemon {
    /// The connection, which work that is waited for may share.
    pub client: Arc<Client>,
    private: Option<Private>,
}

impl Daemon {
    /// The daemon that the command line asks for.
    pub fn reach(cli: &Cli) -> Result<Self> {
        if cli.private {
            return Self::private();
        }
        let path = cli
            .socket
            .clone()
            .unwrap_or_else(mote_wire::paths::daemon_socket);
        // A daemon that is stuck does not greet.
        match interrupt::wait(move || Ok(Client::connect(&path, CLIENT_NAME)))? {
            Ok(client) => Ok(Self {
                client: Arc::new(client),
                private: None,
            }),
            Err(error @ ClientError::Connect { .. }) => Err(error).with_context(|| {
                "no daemon answers; start `moted`, or let this command have its own with --private"
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// A daemon of our own; it ends when this value is dropped, or when this process dies.
    pub fn private() -> Result<Self> {
        Self::start(None)
    }

    /// As [`Self::private`], over the models of one folder.
    pub fn private_with_store(store: &Path) -> Result<Self> {
        Self::start(Some(store))
    }

    fn start(store: Option<&Path>) -> Result<Self> {
        let private = Private::start(store)?;
        let client = private.connect()?;
        Ok(Self {
            client: Arc::new(client),
            private: Some(private),
        })
    }

    /// Process id of a private daemon.
    pub fn private_pid(&self) -> Option<u32> {
        self.private.as_ref().map(|private| private.child.id())
    }

    /// Time from the start of a private daemon's process to its first answer.
    pub fn private_start(&self) -> Option<Duration> {
        self.private.as_ref().map(|private| private.start)
    }
}

struct Private {
    child: Child,
    socket: PathBuf,
    start: Duration,
    // Last, so that it is removed after the child is gone.
    _folder: tempfile::TempDir,
}

impl Private {
    fn start(store: Option<&Path>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("mote-")
            .tempdir()
            .context("cannot create a folder for a private daemon")?;
        let socket = folder.path().join("mote.sock");
        let program = sibling("moted")?;
        let started = Instant::now();
        let mut command = Command::new(&program);
        command
            .arg("--socket")
            .arg(&socket)
            .args(["--log-level", "warn"]);
        if let Some(store) = store {
            command.arg("--store").arg(store);
        }
        let child = command
            // The daemon leaves when this pipe closes: with us, however we end.
            .arg("--exit-on-stdin-close")
            .stdin(Stdio::piped())
            // Ctrl-C in a terminal is for us: we cancel first, and then let the daemon go.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut private = Self {
            child,
            socket,
            start: Duration::ZERO,
            _folder: folder,
        };
        while !private.socket.exists() {
            if let Some(status) = private.child.try_wait().context("cannot wait for moted")? {
                bail!("moted ended before it listened ({status})");
            }
            if started.elapsed() > START_LIMIT {
                bail!("moted does not listen after {} s", START_LIMIT.as_secs());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        drop(private.connect()?);
        private.start = started.elapsed();
        Ok(private)
    }

    fn connect(&self) -> Result<Client> {
        Client::connect(&self.socket, CLIENT_NAME).context("cannot reach the private daemon")
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < END_LIMIT {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(POLL_INTERVAL),
                Ok(Some(_)) => return,
                Err(error) => return log::error!("cannot wait for the private daemon: {error}"),
            }
        }
        log::warn!("the private daemon did not leave in time and is killed");
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop)) {
            log::error!("cannot end the private daemon: {error}");
        }
    }
}

/// A program of the product beside this one.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let beside = own.with_file_name(name);
    if beside.exists() {
        return Ok(beside);
    }
    let installed = Path::new("/usr/libexec/mote").join(name);
    if installed.exists() {
        return Ok(installed);
    }
    bail!(
        "{} is missing; build it with `cargo build --release --workspace`",
        beside.display()
    )
}

/// In a source tree, `cargo run` builds this program alone: builds its siblings too, with cargo's
/// own progress. Does nothing for an installed program.
pub fn build_siblings() -> Result<()> {
    let (Some(cargo), Some(folder)) = (
        std::env::var_os("CARGO"),
        std::env::var_os("CARGO_MANIFEST_DIR"),
    ) else {
        return Ok(());
    };
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let release = own
        .parent()
        .is_some_and(|folder| folder.ends_with("release"));
    let mut command = Command::new(cargo);
    command
        .current_dir(folder)
        .args(["build", "--package=moted", "--package=mote-worker"]);
    if release {
        command.arg("--release");
    }
    let status = command.status().context("cannot run cargo")?;
    anyhow::ensure!(
        status.success(),
        "cargo could not build moted and mote-worker ({status})"
    );
    Ok(())
}
