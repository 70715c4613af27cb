//! What one user may take of what all users share, over all its connections.
//!
//! Limits of a connection keep one program from harming itself; these keep one user from harming the
//! others. A daemon that serves a single user has nobody to protect, but the same rules.

use super::Core;
use crate::ids::ConnectionId;
use crate::limits::{
    BUFFER_BYTES_PER_UID_MAX, BUFFERS_PER_UID_MAX, JOBS_PER_UID_MAX, JOURNAL_BYTES_PER_UID_MAX,
    PINS_PER_UID_MAX, STREAMS_PER_UID_MAX,
};
use mote_wire::types::Status;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// A job whose request takes so many bytes.
    Job(usize),
    /// A stream.
    Stream,
    /// A buffer of so many bytes.
    Buffer(u64),
    /// A pin.
    Pin,
}

impl Core {
    /// Refuses what would take a user beyond its share.
    ///
    /// # Errors
    /// [`Status::LimitExceeded`] with what there is too much of.
    pub(super) fn check_quota(&self, asking: ConnectionId, ask: Ask) -> Result<(), Status> {
        let Some(uid) = self.uid_of(asking) else {
            return Ok(());
        };
        let is_own = |connection: ConnectionId| self.uid_of(connection) == Some(uid);
        let of_own = || self.connections.values().filter(|one| one.peer.uid == uid);
        let within = |what: &str, have: u64, limit: u64| {
            if have <= limit {
                return Ok(());
            }
            let what = format!("{what} of one user");
            Err(Status::LimitExceeded { what, have, limit })
        };
        match ask {
            Ask::Job(bytes) => {
                let jobs = self.jobs.values();
                let jobs = jobs.filter(|job| is_own(job.key.connection)).count();
                within("open jobs", jobs as u64 + 1, JOBS_PER_UID_MAX as u64)?;
                let kept: usize = of_own().map(|one| one.kept_bytes).sum();
                let limit = JOURNAL_BYTES_PER_UID_MAX as u64;
                within("bytes of open requests", (kept + bytes) as u64, limit)
            }
            Ask::Stream => {
                let streams = self.streams.values();
                let count = streams.filter(|one| is_own(one.connection)).count();
                within("streams", count as u64 + 1, STREAMS_PER_UID_MAX as u64)
            }
            Ask::Buffer(bytes) => {
                let (count, have) = self.buffers.of(is_own);
                within("buffers", count as u64 + 1, BUFFERS_PER_UID_MAX as u64)?;
                let have = have.saturating_add(bytes);
                within("bytes of buffers", have, BUFFER_BYTES_PER_UID_MAX)
            }
            Ask::Pin => {
                let pins: usize = of_own().map(|one| one.pins.len()).sum();
                within("pins", pins as u64 + 1, PINS_PER_UID_MAX as u64)
            }
        }
    }

    /// The user at the other end of a connection.
    pub(super) fn uid_of(&self, connection: ConnectionId) -> Option<u32> {
        Some(self.connections.get(&connection)?.peer.uid)
    }
}
