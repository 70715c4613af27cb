//! What clips of one model may take together.

use crate::PipelineError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory for clips on their way; without a limit where none was set.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    bytes_max: u64,
    taken_bytes: Arc<Mutex<u64>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::of(u64::MAX)
    }
}

impl Memory {
    pub fn of(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            taken_bytes: Arc::default(),
        }
    }

    /// Takes `need_bytes`, until the result is dropped.
    ///
    /// # Errors
    /// [`PipelineError::MemoryFull`] when there are not so many beside what other clips took.
    pub fn take(&self, need_bytes: u64) -> Result<Taken, PipelineError> {
        let mut taken = self.taken();
        let have_bytes = self.bytes_max.saturating_sub(*taken);
        if need_bytes > have_bytes {
            return Err(PipelineError::MemoryFull {
                need_bytes,
                have_bytes,
                bytes_max: self.bytes_max,
            });
        }
        *taken += need_bytes;
        Ok(Taken {
            of: self.clone(),
            bytes: need_bytes,
        })
    }

    fn taken(&self) -> MutexGuard<'_, u64> {
        self.taken_bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one clip took.
#[derive(Debug)]
pub(super) struct Taken {
    of: Memory,
    bytes: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.of.taken() -= self.bytes;
    }
}
