//! A daemon of the test's own.

use crate::binary;
use anyhow::{Context, Result, bail};
use mote_client::Client;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(20);
const END_LIMIT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How a test wants its daemon.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Model stores; an empty one when there is none.
    pub stores: Vec<PathBuf>,
    /// Folders of runtimes; an empty one when there is none.
    pub runtimes: Vec<PathBuf>,
    /// The worker with the scripted backend, and its runtime.
    pub scripted: bool,
    /// Memory for models.
    pub budget_bytes: Option<u64>,
    /// Address of the bus it serves on.
    pub bus: Option<String>,
    /// Models of uses, as `use=model`.
    pub uses: Vec<String>,
    /// Workers without their sandbox.
    pub sandbox_off: bool,
    /// Whether ways to run a model are `measured` or `ranked`; those that are scripted are ranked.
    pub choose: Option<&'static str>,
    /// Longest time of each part of a trial.
    pub trial_limit_ms: Option<u64>,
    /// What is found out is kept here; beside the socket by default.
    pub state: Option<PathBuf>,
    /// What providers compile is kept here; beside the socket by default.
    pub cache: Option<PathBuf>,
}

/// A running daemon; it is killed when this value is dropped.
pub struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts one.
    pub fn start(setup: &Setup) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a folder")?;
        let empty = folder.path().join("empty");
        std::fs::create_dir(&empty)?;
        let mut command = Command::new(binary("moted")?);
        command.arg("--socket").arg(folder.path().join("mote.sock"));
        let state = setup.state.clone();
        let state = state.unwrap_or_else(|| folder.path().join("state"));
        command.arg("--state-dir").arg(state);
        let cache = setup.cache.clone();
        command.env(
            "MOTE_CACHE",
            cache.unwrap_or_else(|| folder.path().join("cache")),
        );
        // Scripts count their runs.
        let choose = if setup.scripted { "ranked" } else { "measured" };
        command.args(["--choose", setup.choose.unwrap_or(choose)]);
        if let Some(limit_ms) = setup.trial_limit_ms {
            command.arg("--trial-limit-ms").arg(limit_ms.to_string());
        }
        command.args(["--log-level", "warn", "--exit-on-stdin-close"]);
        for store in setup
            .stores
            .iter()
            .chain(setup.stores.is_empty().then_some(&empty))
        {
            command.arg("--store").arg(store);
        }
        let mut runtimes = setup.runtimes.clone();
        if setup.scripted {
            command.arg("--worker").arg(binary("mote-worker-test")?);
            runtimes.push(scripted_runtime(folder.path())?);
        }
        for folder in runtimes.iter().chain(runtimes.is_empty().then_some(&empty)) {
            command.arg("--runtimes").arg(folder);
        }
        let sandbox = if setup.sandbox_off { "off" } else { "on" };
        command.env("MOTE_SANDBOX", sandbox);
        if let Some(bus) = &setup.bus {
            command.arg("--bus").arg(bus);
        }
        for model in &setup.uses {
            command.arg("--use").arg(model);
        }
        if let Some(bytes) = setup.budget_bytes {
            command.arg("--budget-bytes").arg(bytes.to_string());
        }
        let child = command
            // A pipe, so that it leaves with this process, whichever way that ends.
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot start moted")?;
        let mut daemon = Self { child, folder };
        let started = Instant::now();
        while Client::connect(daemon.socket(), "test").is_err() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("moted ended before it listened ({status})");
            }
            if started.elapsed() > START_LIMIT {
                bail!("moted does not listen");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(daemon)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("mote.sock")
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// A connection.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.socket(), "test").context("cannot connect")
    }

    /// Asks it to leave and waits until it did.
    pub fn terminate(&mut self) -> Result<std::process::ExitStatus> {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if asked.elapsed() > END_LIMIT {
                bail!("moted does not leave");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.terminate().is_err() {
            // A daemon that does not leave by itself is what some tests are about.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// A runtime folder that describes the scripted backend.
fn scripted_runtime(folder: &Path) -> Result<PathBuf> {
    let runtimes = folder.join("runtimes");
    let fake = runtimes.join("fake");
    std::fs::create_dir_all(&fake)?;
    std::fs::write(
        fake.join("runtime.toml"),
        "format = 1\nname = \"fake\"\nbackend = \"fake\"\nversion = \"1\"\nlibrary = \"\"\nlicence = \"\"\n",
    )?;
    Ok(runtimes)
}
