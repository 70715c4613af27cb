//! Registered buffers: which client's they are, which workers have mapped them, who uses them.
//!
//! The broker keeps descriptors and never maps their memory.

use super::work::RangeField;
use crate::ids::{BufferId, ConnectionId, Counter, WorkerId};
use crate::limits::{BUFFER_BYTES_PER_CONNECTION_MAX, BUFFERS_TOTAL_MAX};
use mote_wire::limits::{BUFFER_BYTES_MAX, BUFFERS_MAX};
use mote_wire::types::{BufferRange, Command, RegisterBuffer, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

#[derive(Debug)]
struct Registered {
    connection: ConnectionId,
    client_buffer: u64,
    bytes: u64,
    writable: bool,
    fd: OwnedFd,
    /// Jobs that name it.
    uses: usize,
    mapped_by: BTreeSet<WorkerId>,
    /// Its client has given it up; it goes when nobody uses it.
    leaving: bool,
}

/// A buffer that is gone, and the workers that must unmap it.
pub type Gone = (BufferId, BTreeSet<WorkerId>);

/// All registered buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    ids: Counter,
    all: BTreeMap<BufferId, Registered>,
    by_client: BTreeMap<(ConnectionId, u64), BufferId>,
}

impl Buffers {
    /// Takes a buffer in.
    ///
    /// # Errors
    /// When its number is in use, or there are too many buffers or bytes.
    pub fn register(
        &mut self,
        connection: ConnectionId,
        buffer: RegisterBuffer,
    ) -> Result<(), Status> {
        let key = (connection, buffer.buffer);
        if self.by_client.contains_key(&key) {
            return Err(Status::invalid(
                "buffer",
                format!("{} is registered already", key.1),
            ));
        }
        let of_client = self.all.values().filter(|one| one.connection == connection);
        let (count, bytes) = of_client.fold((0, 0u64), |(n, sum), one| {
            (n + 1, sum.saturating_add(one.bytes))
        });
        let limit = |what: &str, have: u64, limit: u64| {
            let what = what.to_owned();
            if have > limit {
                Err(Status::LimitExceeded { what, have, limit })
            } else {
                Ok(())
            }
        };
        limit("bytes of buffer", buffer.bytes, BUFFER_BYTES_MAX)?;
        limit("buffers", count + 1, BUFFERS_MAX as u64)?;
        let total = bytes.saturating_add(buffer.bytes);
        limit(
            "bytes of all buffers",
            total,
            BUFFER_BYTES_PER_CONNECTION_MAX,
        )?;
        limit(
            "buffers of all clients",
            self.all.len() as u64 + 1,
            BUFFERS_TOTAL_MAX as u64,
        )?;
        let id = BufferId(self.ids.draw());
        self.by_client.insert(key, id);
        let registered = Registered {
            connection,
            client_buffer: buffer.buffer,
            bytes: buffer.bytes,
            writable: buffer.writable,
            fd: buffer.fd,
            uses: 0,
            mapped_by: BTreeSet::new(),
            leaving: false,
        };
        self.all.insert(id, registered);
        Ok(())
    }

    /// Buffers of some connections, and the bytes in them.
    pub fn of(&self, connections: impl Fn(ConnectionId) -> bool) -> (usize, u64) {
        let all = self.all.values();
        all.filter(|one| connections(one.connection))
            .fold((0, 0), |(count, bytes), one| {
                (count + 1, bytes.saturating_add(one.bytes))
            })
    }

    /// Gives a buffer up; jobs that use it keep it until they are done.
    ///
    /// # Errors
    /// When there is none of this number.
    pub fn unregister(
        &mut self,
        connection: ConnectionId,
        client_buffer: u64,
    ) -> Result<Option<Gone>, Status> {
        let id = self
            .by_client
            .remove(&(connection, client_buffer))
            .ok_or_else(|| {
                Status::invalid("buffer", format!("{client_buffer} is not registered"))
            })?;
        Ok(self.leave(id))
    }

    /// Gives up all buffers of a connection.
    pub fn forget_connection(&mut self, connection: ConnectionId) -> Vec<Gone> {
        let keys: Vec<_> = self
            .by_client
            .range((connection, 0)..=(connection, u64::MAX))
            .map(|(k, _)| *k)
            .collect();
        let ids: Vec<_> = keys
            .iter()
            .filter_map(|key| self.by_client.remove(key))
            .collect();
        ids.into_iter().filter_map(|id| self.leave(id)).collect()
    }

    fn leave(&mut self, id: BufferId) -> Option<Gone> {
        let buffer = self.all.get_mut(&id)?;
        buffer.leaving = true;
        self.remove_unused(id)
    }

    fn remove_unused(&mut self, id: BufferId) -> Option<Gone> {
        if self
            .all
            .get(&id)
            .is_some_and(|buffer| buffer.leaving && buffer.uses == 0)
        {
            return self.all.remove(&id).map(|buffer| (id, buffer.mapped_by));
        }
        None
    }

    /// Checks a range that a client named.
    ///
    /// # Errors
    /// When there is no such buffer, it is too small, or it is to be written and may not be.
    pub fn resolve(
        &self,
        connection: ConnectionId,
        range: &BufferRange,
        field: RangeField,
    ) -> Result<BufferId, Status> {
        let refuse = |why: String| Status::invalid(field.to_string(), why);
        let id = self.by_client.get(&(connection, range.buffer)).copied();
        let found = id.and_then(|id| Some((id, self.all.get(&id)?)));
        let (id, buffer) =
            found.ok_or_else(|| refuse(format!("buffer {} is not registered", range.buffer)))?;
        let end = range.offset.checked_add(range.bytes);
        if end.is_none_or(|end| end > buffer.bytes) {
            return Err(refuse(format!(
                "it leaves the buffer's {} bytes",
                buffer.bytes
            )));
        }
        if matches!(field, RangeField::Output(_)) && !buffer.writable {
            return Err(refuse(format!("buffer {} is not writable", range.buffer)));
        }
        Ok(id)
    }

    /// The client's number for a buffer.
    pub fn client_buffer(&self, id: BufferId) -> Option<u64> {
        self.all.get(&id).map(|buffer| buffer.client_buffer)
    }

    /// A job uses these buffers from now on.
    pub fn acquire(&mut self, ids: &BTreeSet<BufferId>) {
        for id in ids {
            if let Some(buffer) = self.all.get_mut(id) {
                buffer.uses += 1;
            }
        }
    }

    /// A job no longer uses these buffers.
    pub fn release(&mut self, ids: &BTreeSet<BufferId>) -> Vec<Gone> {
        for id in ids {
            if let Some(buffer) = self.all.get_mut(id) {
                buffer.uses = buffer.uses.saturating_sub(1);
            }
        }
        ids.iter()
            .filter_map(|id| self.remove_unused(*id))
            .collect()
    }

    /// What a worker must be told before it can use these buffers.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn map(&mut self, worker: WorkerId, ids: &BTreeSet<BufferId>) -> io::Result<Vec<Command>> {
        let mut commands = Vec::new();
        for id in ids {
            let Some(buffer) = self.all.get_mut(id) else {
                continue;
            };
            if buffer.mapped_by.contains(&worker) {
                continue;
            }
            commands.push(Command::MapBuffer {
                buffer: id.0,
                bytes: buffer.bytes,
                writable: buffer.writable,
                fd: buffer.fd.try_clone()?,
            });
            buffer.mapped_by.insert(worker);
        }
        Ok(commands)
    }

    /// A worker is gone with all its mappings.
    pub fn forget_worker(&mut self, worker: WorkerId) {
        for buffer in self.all.values_mut() {
            buffer.mapped_by.remove(&worker);
        }
    }

    /// Number of buffers.
    pub fn len(&self) -> usize {
        self.all.len()
    }
}
