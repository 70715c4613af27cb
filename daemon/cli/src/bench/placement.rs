//! Where processes run.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// This thread, and what it starts, runs where it might before once this is dropped.
pub struct Pinned(CpuSet);

/// Keeps this thread, and the processes it starts from here on, on the first processor that it may
/// run on.
pub fn pin_to_one() -> Result<Pinned> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).context("cannot tell where this program may run")?;
    let first = (0..CpuSet::count())
        .find(|number| before.is_set(*number).unwrap_or(false))
        .context("this program may run nowhere")?;
    let mut one = CpuSet::new();
    one.set(first).context("cannot name a processor")?;
    sched_setaffinity(this, &one).context("cannot stay on one processor")?;
    Ok(Pinned(before))
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &self.0) {
            log::warn!("this program stays on one processor: {error}");
        }
    }
}
