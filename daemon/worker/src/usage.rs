//! Processor time of this process.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Microseconds that all threads have computed so far, in the kernel included.
pub fn cpu_us() -> u64 {
    // Fails for no valid argument.
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return 0;
    };
    let spent = usage.user_time() + usage.system_time();
    u64::try_from(spent.num_microseconds()).unwrap_or_default()
}

/// Microseconds that all present threads have waited so far for a processor that others used; 0 where
/// the kernel does not count it.
pub fn waited_us() -> u64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    // "Time on the processor, time waiting for it, turns", the times in nanoseconds: sched-stats.rst.
    let waited = |text: String| -> Option<u64> { text.split(' ').nth(1)?.parse().ok() };
    let threads = threads.filter_map(Result::ok);
    let texts =
        threads.filter_map(|one| std::fs::read_to_string(one.path().join("schedstat")).ok());
    texts.filter_map(waited).sum::<u64>() / 1_000
}
