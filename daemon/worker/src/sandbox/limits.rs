//! Limits of a worker, and where it stands when memory runs out.

use super::sys;
use mote_wire::limits::BUFFER_BYTES_MAX;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use std::path::Path;

/// Core dumps would hold prompts and outputs.
const CORE_BYTES: rlim_t = 0;
/// Buffers and streams of all clients, the files of a model, devices; the broker has twice as many.
const DESCRIPTORS_MAX: rlim_t = 8_192;
/// The largest of buffers, and clips of hours; an encoder that runs wild stops there. As far as a
/// 32-bit system can say it.
const FILE_BYTES_MAX: rlim_t = within_rlim(4 * BUFFER_BYTES_MAX);
/// Messages of POSIX queues: there are none.
const QUEUE_BYTES: rlim_t = 0;
/// Real-time priorities: a worker must not keep the machine from others.
const REAL_TIME_PRIORITY: rlim_t = 0;
/// How much sooner than the broker a worker is ended for want of memory: its jobs begin anew.
const OOM_SCORE_RAISE: i32 = 300;
const OOM_SCORE_MAX: i32 = 1_000;
const OOM_SCORE_PATH: &str = "/proc/self/oom_score_adj";

// Not limited here: processes, which are counted per user and not per worker (the filter lets none
// be made; threads are for the control group to count), address space, which weights are mapped
// into and drivers reserve terabytes of, and locked memory, which devices need.
const LIMITS: &[(Resource, rlim_t)] = &[
    (Resource::RLIMIT_CORE, CORE_BYTES),
    (Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX),
    (Resource::RLIMIT_FSIZE, FILE_BYTES_MAX),
    (Resource::RLIMIT_MSGQUEUE, QUEUE_BYTES),
    (Resource::RLIMIT_RTPRIO, REAL_TIME_PRIORITY),
];

#[allow(
    clippy::unnecessary_cast,
    reason = "rlim_t has 32 bits on some systems"
)]
const fn within_rlim(bytes: u64) -> rlim_t {
    // The largest value of all means that there is no limit.
    if bytes >= rlim_t::MAX as u64 {
        rlim_t::MAX - 1
    } else {
        bytes as rlim_t
    }
}

/// Sets the limits; they cannot be raised again.
pub fn limit() -> Result<(), Errno> {
    sys::ignore_file_size_signal()?;
    for (resource, wanted) in LIMITS {
        let (_, hard) = getrlimit(*resource)?;
        let limit = hard.min(*wanted);
        setrlimit(*resource, limit, limit)?;
    }
    Ok(())
}

/// The first of them that does not hold, as it reads.
pub fn gap() -> Option<String> {
    LIMITS
        .iter()
        .find_map(|(resource, wanted)| match getrlimit(*resource) {
            Ok((soft, hard)) if soft.max(hard) <= *wanted => None,
            Ok((soft, hard)) => Some(format!(
                "{resource:?} reads {}, more than {wanted}",
                soft.max(hard)
            )),
            Err(errno) => Some(format!("{resource:?} cannot be read: {}", errno.desc())),
        })
}

/// Has the kernel end this process before the broker, from which it has its score.
pub fn volunteer() -> std::io::Result<String> {
    let path = Path::new(OOM_SCORE_PATH);
    let text = std::fs::read_to_string(path)?;
    let score: i32 = text.trim().parse().map_err(std::io::Error::other)?;
    let score = score.saturating_add(OOM_SCORE_RAISE).min(OOM_SCORE_MAX);
    std::fs::write(path, score.to_string())?;
    Ok(format!("score {score}"))
}
