//! What a process occupies and how often it wakes up, by /proc (proc(5)).

use anyhow::{Context, Result};
use std::path::Path;

fn status_value(path: &Path, key: &str) -> Result<u64> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("{} does not tell {key}", path.display()))
}

/// Resident bytes.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    Ok(status_value(Path::new(&format!("/proc/{pid}/status")), "VmRSS")? * 1024)
}

/// Context switches of all threads so far: each is a wake-up.
pub fn wake_ups(pid: u32) -> Result<u64> {
    let folder = format!("/proc/{pid}/task");
    let tasks = std::fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))?;
    let mut sum = 0;
    for task in tasks {
        let path = task
            .with_context(|| format!("cannot list {folder}"))?
            .path()
            .join("status");
        sum += status_value(&path, "voluntary_ctxt_switches")?;
        sum += status_value(&path, "nonvoluntary_ctxt_switches")?;
    }
    Ok(sum)
}
