//! One client's connection, as far as the core is concerned.

use super::event::Peer;
use super::stream_faults::StreamFault;
use crate::ids::{JobId, WantId};
use std::collections::{BTreeMap, BTreeSet};

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Who is there.
    pub peer: Peer,
    /// Requests without a closing answer.
    pub open: BTreeMap<u64, Open>,
    /// Models it pinned.
    pub pins: BTreeSet<String>,
    /// Its watch.
    pub watch: Option<Watch>,
    /// Bytes of its requests that are kept.
    pub kept_bytes: usize,
    /// What its streams have failed on, by the model's name.
    pub stream_faults: BTreeMap<String, StreamFault>,
}

/// What an open request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Work in some phase.
    Job(JobId),
    /// Waits for a model to be loaded.
    Want(WantId),
    /// Waits for probes.
    Probes,
    /// Waits for stores and runtimes to be read.
    Rescan,
    /// Waits for workers to end.
    Unload,
    /// Is told events.
    Watch,
}

/// A watch and its credit.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The client's number for it.
    pub request: u64,
    /// Events that may be sent.
    pub credit: u32,
    /// Events that were not sent for want of credit.
    pub dropped: u64,
}

impl Connection {
    /// Nothing asked for yet.
    pub fn new(peer: Peer) -> Self {
        Self {
            peer,
            open: BTreeMap::new(),
            pins: BTreeSet::new(),
            watch: None,
            kept_bytes: 0,
            stream_faults: BTreeMap::new(),
        }
    }
}
