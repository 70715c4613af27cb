//! Where processes run.
//!
//! Where the kernel puts two processes that talk decides more than what they do: a wake-up on the same
//! processor costs a few microseconds, one on another that idles ten times that. It does not put a
//! floor's processes where it puts a daemon's, so programs are compared in seats that are assigned.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

/// How the processes of a chain (client, broker, worker) are seated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrangement {
    /// All on one processor.
    Together,
    /// Neighbours in the chain on different processors.
    Apart,
    /// Wherever the kernel puts them.
    Free,
}

/// Seats of a chain of processes on this machine.
#[derive(Clone, Debug)]
pub struct Seats {
    /// Where this thread might run before.
    allowed: CpuSet,
    /// Processors of the even and the odd links of the chain; `None` leaves it to the kernel.
    processors: Option<[usize; 2]>,
}

impl Seats {
    /// Seats for `arrangement`; `None` when the machine has too few processors for it.
    ///
    /// # Errors
    /// When the kernel does not say where this program may run.
    pub fn of(arrangement: Arrangement) -> Result<Option<Self>> {
        let allowed = sched_getaffinity(Pid::from_raw(0))
            .context("cannot tell where this program may run")?;
        let here = |number: &usize| allowed.is_set(*number).unwrap_or(false);
        let mut processors = (0..CpuSet::count()).filter(here);
        let first = processors.next().context("this program may run nowhere")?;
        let processors = match (arrangement, processors.next()) {
            (Arrangement::Free, _) => None,
            (Arrangement::Together, _) => Some([first, first]),
            (Arrangement::Apart, Some(second)) => Some([first, second]),
            (Arrangement::Apart, None) => return Ok(None),
        };
        Ok(Some(Self {
            allowed,
            processors,
        }))
    }

    /// Seats this thread at the chain's start until the value is dropped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(&self) -> Result<Seated> {
        self.seat(Pid::from_raw(0), 0)?;
        Ok(Seated(self.allowed))
    }

    /// Seats all threads of a process, `link` links behind the chain's start.
    ///
    /// # Errors
    /// When the kernel refuses, or the process is gone.
    pub fn assign(&self, pid: u32, link: usize) -> Result<()> {
        let folder = format!("/proc/{pid}/task");
        let tasks = std::fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))?;
        for task in tasks {
            let name = task
                .with_context(|| format!("cannot list {folder}"))?
                .file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            let number = number.with_context(|| format!("{folder} holds {}", name.display()))?;
            self.seat(Pid::from_raw(number), link)?;
        }
        Ok(())
    }

    fn seat(&self, thread: Pid, link: usize) -> Result<()> {
        let mut seat = self.allowed;
        if let Some(processors) = self.processors {
            seat = CpuSet::new();
            seat.set(processors[link % 2])
                .context("cannot name a processor")?;
        }
        match sched_setaffinity(thread, &seat) {
            // A thread that has ended needs no seat.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot seat thread {thread}")),
        }
    }
}

/// This thread sits where it was told until this is dropped.
#[must_use]
pub struct Seated(CpuSet);

impl Drop for Seated {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &self.0) {
            log::warn!("this program stays on one processor: {error}");
        }
    }
}
