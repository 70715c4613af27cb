//! What the kernel says about the machine: memory, cores, who uses them.

use crate::limits::{BUDGET_PERCENT, DESCRIPTORS_MAX};
use crate::policy::load::Sample;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use std::path::{Path, PathBuf};
use std::time::Instant;

const FALLBACK_MEMORY_BYTES: u64 = 1 << 30;

/// Cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The budget where none is said: a share of the machine's memory, or of what the control group
/// allows when that is less.
pub fn default_budget_bytes() -> u64 {
    let total = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| mem_total(&text));
    let limit = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_limit_bytes(Path::new("/sys/fs/cgroup"), &text));
    let memory = total
        .unwrap_or(FALLBACK_MEMORY_BYTES)
        .min(limit.unwrap_or(u64::MAX));
    memory / 100 * BUDGET_PERCENT
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The lowest limit of a control group (version 2) and those above it.
fn group_limit_bytes(root: &Path, cgroup: &str) -> Option<u64> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let group = root.join(path.trim_start_matches('/'));
    let groups = group
        .ancestors()
        .take_while(|group| group.starts_with(root));
    let limits = groups.filter_map(|group| {
        std::fs::read_to_string(group.join("memory.max"))
            .ok()?
            .trim()
            .parse()
            .ok()
    });
    limits.min()
}

/// Resident memory of a process; 0 when there is none of that number.
pub fn resident_bytes(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * system_number(SysconfVar::PAGE_SIZE, 4096)
}

fn system_number(name: SysconfVar, fallback: u64) -> u64 {
    sysconf(name)
        .ok()
        .flatten()
        .and_then(|number| u64::try_from(number).ok())
        .unwrap_or(fallback)
}

/// Looks at the machine's load; `ours` and this very process are told apart from others.
pub fn sample_load(ours: &[i32]) -> Option<Sample> {
    let ticks_per_second = system_number(SysconfVar::CLK_TCK, 100) as f64;
    let busy = busy_ticks(&std::fs::read_to_string("/proc/stat").ok()?)?;
    let this = nix::unistd::getpid().as_raw();
    let of_process = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, process_ticks(&text)? as f64 / ticks_per_second))
    };
    Some(Sample {
        at: Instant::now(),
        busy_seconds: busy as f64 / ticks_per_second,
        ours_seconds: ours
            .iter()
            .copied()
            .chain([this])
            .filter_map(of_process)
            .collect(),
    })
}

/// Time of all cores in user and kernel code. Waiting for disks and time that the hypervisor gave
/// to others is no work of this machine.
fn busy_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (user, nice, system, _idle, _wait) = (next()?, next()?, next()?, next()?, next()?);
    let interrupts = next().unwrap_or(0) + next().unwrap_or(0);
    Some(user + nice + system + interrupts)
}

/// User and kernel time of a process. Its name, in parentheses, may hold anything.
fn process_ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Lets this process hold as many descriptors as it may, within reason.
pub fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(DESCRIPTORS_MAX as rlim_t);
        if soft < wanted {
            setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
        } else {
            Ok(())
        }
    });
    if let Err(errno) = raised {
        log::warn!(errno = errno as i32; "cannot raise the limit of descriptors");
    }
}

/// Seconds since 1970; 0 on a machine that does not know.
pub fn unix_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A number nobody can guess, from the system's own source.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library keys its hash tables from there.
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

/// Where the worker program is: beside this one, or where packages put it.
pub fn default_worker() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|path| path.with_file_name("mote-worker"));
    match beside {
        Some(path) if path.is_file() => path,
        _ => "/usr/libexec/mote/mote-worker".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts_are_read() {
        assert_eq!(
            mem_total("MemFree: 1 kB\nMemTotal:       16 kB\n"),
            Some(16_384)
        );
        assert_eq!(mem_total("MemTotal: lots"), None);
        let stat = "cpu  10 1 5 1000 50 2 3 99 7 7\ncpu0 1 2 3\n";
        assert_eq!(busy_ticks(stat), Some(21));
        assert_eq!(busy_ticks("intr 5"), None);
        let stat = "42 (a) b (c) R 1 42 42 0 -1 4194560 1 2 3 4 70 30 0 0 20 0 1 0 1 1";
        assert_eq!(process_ticks(stat), Some(100));
        assert_eq!(process_ticks("42 (x"), None);
    }

    #[test]
    fn the_lowest_limit_of_the_control_groups_counts() {
        let root = tempfile::tempdir().expect("folder");
        let group = root.path().join("a/b");
        std::fs::create_dir_all(&group).expect("folder");
        let limit = |text: &str| group_limit_bytes(root.path(), text);
        assert_eq!(limit("0::/a/b\n"), None);
        std::fs::write(group.join("memory.max"), "max\n").expect("file");
        assert_eq!(limit("0::/a/b\n"), None);
        std::fs::write(root.path().join("a/memory.max"), "5000\n").expect("file");
        assert_eq!(limit("1:cpu:/x\n0::/a/b\n"), Some(5000));
        std::fs::write(group.join("memory.max"), "7000\n").expect("file");
        assert_eq!(limit("0::/a/b\n"), Some(5000));
        assert_eq!(limit("1:memory:/x\n"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let pid = nix::unistd::getpid().as_raw();
        assert!(resident_bytes(pid) > 100_000);
        assert_eq!(resident_bytes(-1), 0);
        let sample = sample_load(&[]).expect("this is Linux");
        assert!(sample.ours_seconds.contains_key(&pid));
        assert!(sample.busy_seconds > 0.0);
    }
}
