//! What the system says about worker processes.

use crate::common::eventually;
use anyhow::{Context, Result};
use mote_client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Whether a process runs; one that has ended and was not reaped yet does not.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Waits until a process has ended.
pub fn ends(pid: i32) -> Result<()> {
    eventually("a process ends", || Ok(!is_alive(pid)))
}

/// Ends a process without asking it.
pub fn kill_at_once(pid: i32) -> Result<()> {
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

/// The process that serves a model.
pub fn worker_of(client: &Client, model: &str) -> Result<i32> {
    let status = client.status()?;
    let worker = status.workers.iter().find(|worker| worker.model == model);
    Ok(worker
        .with_context(|| format!("nobody serves {model}"))?
        .pid)
}

/// Mappings of shared memory that a client made.
pub fn client_mappings(pid: i32) -> Result<usize> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(maps
        .lines()
        .filter(|line| line.contains("memfd:mote-buffer"))
        .count())
}
