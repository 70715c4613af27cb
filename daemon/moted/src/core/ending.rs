//! The end: at once, or when the jobs that run have ended.

use super::connection::{Connection, Open};
use super::{Core, Effect, Timer};
use crate::ids::{ConnectionId, JobId, RequestKey};
use mote_wire::types::Status;
use std::time::Duration;

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It has not.
    #[default]
    No,
    /// Nothing new is taken; jobs that run go on.
    Draining,
    /// Everything is to go.
    Stopping,
}

impl Core {
    /// Takes no more work, and ends when the jobs that run have ended or `limit` has passed.
    pub(super) fn drain(&mut self, limit: Duration) {
        if self.ending != Ending::No {
            return;
        }
        self.ending = Ending::Draining;
        let runs =
            |core: &Self, job: JobId| core.jobs.get(&job).is_some_and(|job| job.is_running());
        for (connection, requests) in self.open_requests() {
            for (request, open) in requests {
                let key = RequestKey {
                    connection,
                    request,
                };
                match open {
                    Open::Job(job) if runs(self, job) => {}
                    Open::Job(job) => self.finish_job(job, Err(Status::ShuttingDown)),
                    // Whoever watches may see the end of what runs.
                    Open::Watch => {}
                    other => self.cancel_open(key, other, Status::ShuttingDown),
                }
            }
        }
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            self.end_stream(stream, Status::ShuttingDown);
        }
        log::info!(jobs = self.jobs.len(), limit:? = limit; "draining");
        self.timers.set(Timer::Drained, self.now + limit);
        self.tend_drain();
    }

    /// Ends when draining and nothing runs any more.
    pub(super) fn tend_drain(&mut self) {
        if self.ending == Ending::Draining && self.jobs.is_empty() {
            self.shut_down();
        }
    }

    /// Ends everything.
    pub(super) fn shut_down(&mut self) {
        if self.ending == Ending::Stopping {
            return;
        }
        self.ending = Ending::Stopping;
        self.timers.cancel(&Timer::Drained);
        log::info!(workers = self.instances.len(), jobs = self.jobs.len(); "shutting down");
        for (connection, requests) in self.open_requests() {
            for (request, open) in requests {
                let key = RequestKey {
                    connection,
                    request,
                };
                if let Open::Job(job) = open {
                    self.finish_job(job, Err(Status::ShuttingDown));
                } else {
                    self.cancel_open(key, open, Status::ShuttingDown);
                }
            }
        }
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            self.end_stream(stream, Status::ShuttingDown);
        }
        self.stop_trial();
        for worker in self.instances.keys().copied().collect::<Vec<_>>() {
            self.stop(worker, "the daemon is shutting down");
        }
        let connections: Vec<_> = self.connections.keys().copied().collect();
        self.effects.extend(
            connections
                .into_iter()
                .map(|connection| Effect::Close { connection }),
        );
    }

    fn open_requests(&self) -> Vec<(ConnectionId, Vec<(u64, Open)>)> {
        let requests = |connection: &Connection| {
            connection
                .open
                .iter()
                .map(|(request, open)| (*request, *open))
                .collect()
        };
        self.connections
            .iter()
            .map(|(id, connection)| (*id, requests(connection)))
            .collect()
    }
}
