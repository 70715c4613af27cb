//! Streams that lose what they run on: they end, and opened anew they run elsewhere.
//!
//! A stream's state lies in its worker, so that it cannot go on as a job does. What failed counts as it
//! does with jobs: a lost device and one that hangs against the candidate, for everybody; a death of
//! the worker, of which the stream itself may be the cause, for the next streams of the same
//! connection, and towards quarantine.

use super::{Core, Exit};
use crate::ids::{ConnectionId, RequestKey, StreamId, WorkerId};
use crate::limits::{REFUSAL_MS, RETRIES_MAX, STREAM_FAULTS_MAX};
use crate::policy::history::Key;
use crate::policy::planner::Requirements;
use mote_api::{Candidate, DeviceKind, Rejected, Rejection};
use mote_wire::types::Status;
use std::time::{Duration, Instant};

/// A way to run a model that streams of a connection have failed on.
#[derive(Clone, Debug)]
pub struct StreamFault {
    key: Key,
    rejection: Rejection,
    /// Deaths of its worker under a stream, in a row.
    deaths: u32,
    at: Instant,
}

impl StreamFault {
    /// A device is blamed at once, the processor when it keeps happening.
    fn is_to_be_avoided(&self) -> bool {
        let is_device = self.key.candidate.device.kind != DeviceKind::Cpu;
        is_device || self.deaths >= RETRIES_MAX
    }
}

impl Core {
    /// What streams of this connection have failed on lately, as the model is now.
    fn stream_fault(&self, connection: ConnectionId, model: &str) -> Option<&StreamFault> {
        let fault = self
            .connections
            .get(&connection)?
            .stream_faults
            .get(model)?;
        let age = self.now.saturating_duration_since(fault.at);
        let digest = &self.catalogue.find(model).ok()?.digest;
        (age < Duration::from_millis(REFUSAL_MS) && fault.key.digest == *digest).then_some(fault)
    }

    /// The way to run a model that the next stream of a connection is not to take, if there is another.
    pub(super) fn avoided_by_streams(&self, key: RequestKey, model: &str) -> Option<Candidate> {
        let fault = self.stream_fault(key.connection, model)?;
        fault
            .is_to_be_avoided()
            .then(|| fault.key.candidate.clone())
    }

    /// As [`Core::avoided_by_streams`], for receipts and explanations.
    pub(super) fn stream_set_back(
        &self,
        connection: ConnectionId,
        model: &str,
    ) -> Option<Rejected> {
        let fault = self.stream_fault(connection, model)?;
        let candidate = &fault.key.candidate;
        fault.is_to_be_avoided().then(|| Rejected {
            flavour: candidate.flavour.clone(),
            provider: candidate.provider.clone(),
            variant: candidate.variant.clone(),
            rejection: fault.rejection.clone(),
        })
    }

    fn note_stream_fault(&mut self, id: StreamId, key: &Key, rejection: &Rejection) {
        let now = self.now;
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&stream.connection) else {
            return;
        };
        let faults = &mut connection.stream_faults;
        let before = faults.remove(&stream.model).filter(|one| one.key == *key);
        if faults.len() >= STREAM_FAULTS_MAX {
            let oldest = faults.iter().min_by_key(|(_, fault)| fault.at);
            if let Some(oldest) = oldest.map(|(model, _)| model.clone()) {
                faults.remove(&oldest);
            }
        }
        let fault = StreamFault {
            key: key.clone(),
            rejection: rejection.clone(),
            deaths: before.map_or(0, |before| before.deaths) + 1,
            at: now,
        };
        faults.insert(stream.model.clone(), fault);
    }

    /// A worker says that what a stream runs on is of no use any more.
    pub(super) fn stream_faulted(&mut self, worker: WorkerId, id: StreamId, rejection_json: &[u8]) {
        let is_its_own = self
            .streams
            .get(&id)
            .is_some_and(|one| one.worker == worker);
        let Some(instance) = self.instances.get(&worker).filter(|_| is_its_own) else {
            return;
        };
        let is_device = instance.candidate.device.kind != DeviceKind::Cpu;
        let key = instance.key();
        let rejection = serde_json::from_slice(rejection_json).map(Rejection::bounded);
        match rejection {
            Ok(rejection @ Rejection::DeviceLost { .. }) if is_device => {
                // Where nothing else can run it, the device may be back for the next one.
                if self.next_after(id, &key).is_some() {
                    self.history.rejected(&key, rejection.clone(), self.now);
                }
                self.lose_streams(worker, &rejection);
                self.kill(worker, "its device is lost");
            }
            Ok(rejection @ Rejection::StepTimedOut { .. }) if is_device => {
                self.hangs(worker, rejection);
            }
            _ => self.condemn(worker, "it blames a stream for what it cannot be"),
        }
    }

    /// What a worker computes on hangs: it is killed, and what it did goes on elsewhere.
    pub(super) fn hangs(&mut self, worker: WorkerId, rejection: Rejection) {
        let Some(key) = self.instances.get(&worker).map(|instance| instance.key()) else {
            return;
        };
        self.history.rejected(&key, rejection.clone(), self.now);
        self.lose_streams(worker, &rejection);
        self.condemn(worker, "a step on its device does not end");
        self.record_quarantine(&key);
    }

    /// Ends all streams of a worker whose device is of no use; what is on record of it is there.
    pub(super) fn lose_streams(&mut self, worker: WorkerId, rejection: &Rejection) {
        let Some(instance) = self.instances.get(&worker) else {
            return;
        };
        let (key, streams) = (instance.key(), instance.streams.clone());
        for id in streams {
            self.note_stream_fault(id, &key, rejection);
            let status = self.loss(id, &key, rejection);
            self.end_stream(id, status);
        }
    }

    /// Ends a stream whose worker has ended.
    pub(super) fn stream_lost_worker(
        &mut self,
        id: StreamId,
        key: &Key,
        exit: Exit,
        expected: bool,
    ) {
        let mut status = exit.status();
        if !expected {
            let why = format!("its worker died: {status}");
            let rejection = Rejection::RunFailed { why };
            self.note_stream_fault(id, key, &rejection);
            let stream = self.streams.get(&id);
            let fault = stream.and_then(|one| self.stream_fault(one.connection, &one.model));
            if fault.is_some_and(StreamFault::is_to_be_avoided) {
                status = self.loss(id, key, &rejection);
            }
        }
        self.end_stream(id, status);
    }

    /// What a stream runs on when it is opened anew.
    fn next_after(&self, id: StreamId, key: &Key) -> Option<Candidate> {
        let stream = self.streams.get(&id)?;
        let entry = self.catalogue.find(&stream.model).ok()?;
        let options = &stream.ask.options;
        let threads_max = self.threads_max(options);
        let plan = self.plan(&entry, &Requirements::from(options), threads_max);
        let mut others = plan.candidates.into_iter();
        others.find(|one| *one != key.candidate)
    }

    /// What the client of a stream is told.
    fn loss(&self, id: StreamId, key: &Key, rejection: &Rejection) -> Status {
        let next = self.next_after(id, key);
        Status::StreamLost {
            provider: key.candidate.provider.clone(),
            code: crate::convert::code(rejection),
            cause: rejection.to_string(),
            next: next.map(|candidate| candidate.provider).unwrap_or_default(),
        }
    }
}
