//! A control group for each worker, where the service manager has left us a subtree
//! (`Delegate=` and `DelegateSubgroup=broker` in mote.service): its tasks are counted, and it ends
//! with everything it has started, whatever that did to its process group.
//!
//! Control groups v2 as in the kernel's Documentation/admin-guide/cgroup-v2.rst. Without a subtree
//! of our own there are no groups, and `mote doctor` says so.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The group that the service manager puts the broker into; its parent is the subtree.
const OWN_NAME: &str = "broker";
/// What the names of workers' groups begin with.
const PREFIX: &str = "worker-";
/// Threads of a worker: a pool per library and a few of ours.
const TASKS_MAX: u32 = 1_024;

/// The subtree that workers' groups are made in.
#[derive(Debug)]
pub struct Groups {
    subtree: PathBuf,
    next: AtomicU64,
}

/// A worker's group; when this is dropped, what is left in it is killed, and it is removed.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Groups {
    /// The subtree that is ours, if there is one. Groups that a dead broker left are removed.
    pub fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let subtree = subtree(&mounts, &own)?;
        let groups = Self {
            subtree,
            next: AtomicU64::new(0),
        };
        groups.prepare().then_some(groups)
    }

    /// Whether groups can be made there.
    fn prepare(&self) -> bool {
        let Ok(entries) = fs::read_dir(&self.subtree) else {
            return false;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                drop(Group(entry.path()));
            }
        }
        // Each by itself: a controller that is not there does not keep the others away.
        for controller in ["+memory", "+pids", "+cpu"] {
            if let Err(error) = write(&self.subtree.join("cgroup.subtree_control"), controller) {
                log::debug!("no controller {controller} for workers: {error}");
            }
        }
        let made = self.make();
        if let Err(error) = &made {
            log::info!("workers share the broker's control group: {error}");
        }
        made.is_ok()
    }

    /// A group for a process that is yet to be put into it.
    ///
    /// # Errors
    /// When the kernel makes none.
    pub fn make(&self) -> io::Result<Group> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.subtree.join(format!("{PREFIX}{number}"));
        fs::create_dir(&path)?;
        let group = Group(path);
        for (file, value) in [
            ("pids.max", TASKS_MAX.to_string()),
            // What runs out of memory ends as a whole, not thread by thread.
            ("memory.oom.group", "1".to_owned()),
        ] {
            if let Err(error) = write(&group.0.join(file), &value) {
                log::debug!("no {file} for a worker: {error}");
            }
        }
        Ok(group)
    }
}

impl Group {
    /// Puts a process into it.
    ///
    /// # Errors
    /// When it has ended, or is not ours to move.
    pub fn take(&self, pid: u32) -> io::Result<()> {
        write(&self.0.join("cgroup.procs"), &pid.to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Older kernels than 5.14 have no such file; the process group was killed anyway.
        let _ = write(&self.0.join("cgroup.kill"), "1");
        if let Err(error) = fs::remove_dir(&self.0) {
            // The kernel is still burying somebody; the next broker removes it.
            log::debug!("a worker's control group stays: {error}");
        }
    }
}

/// Writes to a file that is there.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// Where the subtree lies, by the texts of `mountinfo` and `cgroup` in `/proc/self` (proc(5)).
fn subtree(mounts: &str, own: &str) -> Option<PathBuf> {
    let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let group = Path::new(group);
    if group.file_name()? != OWN_NAME {
        return None;
    }
    let (root, mount) = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let place = (fields.next()?, fields.next()?);
        (after.split(' ').next()? == "cgroup2").then_some(place)
    })?;
    let below = group.parent()?.strip_prefix(root).ok()?;
    Some(Path::new(mount).join(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "22 1 0:20 / /proc rw - proc proc rw\n\
        35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_subtree_is_that_which_was_delegated() {
        let of = |own| subtree(UNIFIED, own);
        assert_eq!(
            of("0::/system.slice/mote.service/broker\n"),
            Some("/sys/fs/cgroup/system.slice/mote.service".into())
        );
        assert_eq!(of("0::/system.slice/mote.service\n"), None);
        assert_eq!(of("0::/user.slice/user-1000.slice/session-3.scope\n"), None);
        assert_eq!(of("3:memory:/broker\n"), None);
    }

    #[test]
    fn hybrid_hierarchies_and_namespaces_are_understood() {
        let hybrid = "40 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            41 30 0:31 /payload /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/x\n0::/payload/mote.service/broker\n";
        assert_eq!(
            subtree(hybrid, own),
            Some("/sys/fs/cgroup/unified/mote.service".into())
        );
        assert_eq!(subtree(hybrid, "0::/elsewhere/broker\n"), None);
    }
}
