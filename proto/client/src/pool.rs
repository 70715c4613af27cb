//! Buffers that inputs are copied to when they are too large to travel in a frame.

use crate::buffer::Buffer;
use crate::error::ClientError;
use crate::link::Link;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers kept for the next call.
const KEPT_MAX: usize = 4;
/// Bytes of a buffer that is kept.
const KEPT_BYTES_MAX: u64 = 256 << 20;
/// Bytes of the smallest buffer.
const BUFFER_BYTES_MIN: u64 = 256 << 10;

/// Registered buffers that no call uses.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Buffer>>);

impl Pool {
    /// A registered buffer of at least `bytes` bytes.
    pub(crate) fn take(&self, link: &Arc<Link>, bytes: u64) -> Result<Buffer, ClientError> {
        let mut kept = self.lock();
        let fitting = kept
            .iter()
            .enumerate()
            .filter(|(_, buffer)| buffer.bytes() >= bytes)
            .min_by_key(|(_, buffer)| buffer.bytes())
            .map(|(index, _)| index);
        if let Some(index) = fitting {
            return Ok(kept.swap_remove(index));
        }
        drop(kept);
        let bytes = bytes.max(BUFFER_BYTES_MIN);
        Buffer::create(bytes.checked_next_power_of_two().unwrap_or(bytes))?.registered(link)
    }

    /// Keeps a buffer that the daemon reads no more.
    pub(crate) fn put(&self, buffer: Buffer) {
        let mut kept = self.lock();
        if buffer.bytes() <= KEPT_BYTES_MAX && kept.len() < KEPT_MAX {
            kept.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Buffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
