//! Client memory that the broker or a client handed over, mapped once and named by id.

use mote_api::{Access, Buffer};
use mote_wire::limits::{BUFFER_BYTES_MAX, BUFFERS_MAX};
use mote_wire::types::Status;
use std::collections::HashMap;
use std::os::fd::AsFd;

/// Buffers of all clients together that one worker maps.
const BUFFERS_PER_WORKER_MAX: usize = 16 * BUFFERS_MAX;

/// Mapped buffers by id.
#[derive(Default)]
pub struct Buffers(HashMap<u64, Buffer>);

impl Buffers {
    /// Maps a descriptor whose seals were checked by whoever received it from the client.
    pub fn map(
        &mut self,
        id: u64,
        fd: impl AsFd,
        bytes: u64,
        writable: bool,
    ) -> Result<(), Status> {
        if self.0.len() >= BUFFERS_PER_WORKER_MAX {
            let (have, limit) = (self.0.len() as u64 + 1, BUFFERS_PER_WORKER_MAX as u64);
            return Err(Status::LimitExceeded {
                what: "buffers".into(),
                have,
                limit,
            });
        }
        if bytes > BUFFER_BYTES_MAX {
            let limit = BUFFER_BYTES_MAX;
            return Err(Status::LimitExceeded {
                what: "buffer bytes".into(),
                have: bytes,
                limit,
            });
        }
        let length = usize::try_from(bytes)
            .map_err(|_| Status::invalid("bytes", "is more than this machine can address"))?;
        let access = if writable {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        };
        let buffer = Buffer::shared(fd, length, access)
            .map_err(|error| Status::invalid("buffer", crate::status::chain(&error)))?;
        match self.0.insert(id, buffer) {
            None => Ok(()),
            Some(_) => Err(Status::invalid("buffer", format!("{id} is mapped already"))),
        }
    }

    /// Forgets a buffer; it is unmapped when the last tensor over it is gone.
    pub fn unmap(&mut self, id: u64) -> Result<(), Status> {
        match self.0.remove(&id) {
            Some(_) => Ok(()),
            None => Err(Status::invalid("buffer", format!("{id} is not registered"))),
        }
    }

    /// A buffer by id.
    pub fn get(&self, id: u64) -> Result<&Buffer, Status> {
        let absent = || Status::invalid("buffer", format!("{id} is not registered"));
        self.0.get(&id).ok_or_else(absent)
    }
}
