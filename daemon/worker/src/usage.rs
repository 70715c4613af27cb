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
