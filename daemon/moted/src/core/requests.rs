//! What clients ask for.

use super::connection::{Open, Watch};
use super::ending::Ending;
use super::job::Job;
use super::quota::Ask;
use super::seek::{Parked, Purpose};
use super::{Core, Effect, Timer, work};
use crate::ids::{JobId, RequestKey};
use crate::limits::{
    JOBS_QUEUED_MAX, JOURNAL_BYTES_MAX, JOURNAL_BYTES_PER_CONNECTION_MAX, PINS_MAX,
};
use crate::logging::Limiter;
use mote_wire::limits::{CREDIT_MAX, OPEN_REQUESTS_MAX};
use mote_wire::types::{Reply, Request, Status, Work};
use std::collections::BTreeSet;

/// Lines on who has changed what: more of them tell nothing more.
static AUDIT_LINES: Limiter = Limiter::new(200, 10_000);

impl Core {
    pub(super) fn request(&mut self, key: RequestKey, body: Request) {
        let Some(connection) = self.connections.get(&key.connection) else {
            return;
        };
        if connection.open.contains_key(&key.request) {
            // An answer under this number would be taken for the other request's.
            let why = format!("{} is in use", key.request);
            let reply = Reply::Failed(Status::invalid("request_id", why));
            let connection = key.connection;
            self.effects.push(Effect::Reply {
                connection,
                request: 0,
                reply,
            });
            self.effects.push(Effect::Close { connection });
            return;
        }
        let open = connection.open.len();
        let is_new = !matches!(
            body,
            Request::Cancel { .. }
                | Request::Credit { .. }
                | Request::Pause { .. }
                | Request::SteerClip(_)
        );
        let refused = if self.ending == Ending::Stopping || (is_new && self.ending != Ending::No) {
            Err(Status::ShuttingDown)
        } else if is_new && open >= OPEN_REQUESTS_MAX {
            let (have, limit) = (open as u64 + 1, OPEN_REQUESTS_MAX as u64);
            Err(Status::LimitExceeded {
                what: "open requests".into(),
                have,
                limit,
            })
        } else {
            self.serve(key, body)
        };
        if let Err(status) = refused {
            self.fail(key, status);
        }
    }

    fn serve(&mut self, key: RequestKey, body: Request) -> Result<(), Status> {
        self.audit(key, &body);
        let misplaced = |what: &str| Err(Status::invalid(what, "it has no place here"));
        match body {
            Request::Hello(_) => return misplaced("hello"),
            Request::StreamPush(_) => return misplaced("stream_push"),
            Request::StreamClose => return misplaced("stream_close"),
            Request::Unsupported { what } => return Err(Status::Unsupported { what }),
            Request::ListModels => self.list_models(key),
            Request::InspectModel { model, load } => self.inspect(key, &model, load)?,
            Request::ListDevices { refresh } => self.list_devices(key, refresh),
            Request::Explain {
                model,
                options,
                measure,
            } => {
                let entry = self.catalogue.find(&model)?;
                if measure {
                    self.forget_trials(&entry.digest);
                }
                self.park(Parked::Explain {
                    key,
                    model,
                    options,
                    measure,
                });
            }
            Request::Load { model, options } => self.want(Purpose::Load(key), &model, &options),
            Request::Unload { model } => self.unload(key, &model)?,
            Request::Pin { model, pinned } => self.pin(key, model, pinned)?,
            Request::Infer(infer) => self.submit(key, Work::Infer(infer))?,
            Request::Generate(generate) => self.submit(key, Work::Generate(*generate))?,
            Request::TransformClip(clip) => self.submit(key, Work::TransformClip(clip))?,
            Request::Embed(embed) => self.submit(key, Work::Embed(*embed))?,
            Request::GenerateClip(clip) => self.submit(key, Work::GenerateClip(clip))?,
            Request::LabelClip(clip) => self.submit(key, Work::LabelClip(clip))?,
            Request::Pause { target, paused } => {
                let job = self.open_job(key, target)?;
                self.pause_job(job, paused);
                self.reply(key, Reply::Ok);
            }
            Request::SteerClip(steer) => {
                let job = self.open_job(key, steer.target)?;
                self.steer_job(job, steer.prompt)?;
                self.reply(key, Reply::Ok);
            }
            Request::OpenStream(open) => self.ask_stream(key, &open)?,
            Request::Cancel { target } => self.cancel(key, target),
            Request::Credit { target, frames } => self.credit(key, target, frames),
            Request::RegisterBuffer(buffer) => {
                self.check_quota(key.connection, Ask::Buffer(buffer.bytes))?;
                self.buffers.register(key.connection, buffer)?;
                self.reply(key, Reply::Ok);
            }
            Request::UnregisterBuffer { buffer } => {
                if let Some((id, workers)) = self.buffers.unregister(key.connection, buffer)? {
                    self.unmap(id, &workers);
                }
                self.reply(key, Reply::Ok);
            }
            Request::Watch => self.watch(key)?,
            Request::GetStatus => self.status(key),
            Request::Rescan => self.rescan(key),
        }
        Ok(())
    }

    /// Notes who has asked for a change that others may feel, and never what their work is about.
    fn audit(&self, key: RequestKey, body: &Request) {
        let (what, model) = match body {
            Request::Load { model, .. } => ("load", model.as_str()),
            Request::Unload { model } => ("unload", model.as_str()),
            Request::Pin { model, pinned } => {
                (if *pinned { "pin" } else { "unpin" }, model.as_str())
            }
            Request::Rescan => ("rescan", ""),
            Request::ListDevices { refresh: true } => ("probe anew", ""),
            _ => return,
        };
        if let Some(connection) = self.connections.get(&key.connection)
            && AUDIT_LINES.allows_at(self.uptime_ms())
        {
            let peer = &connection.peer;
            log::info!(
                target: "audit", uid = peer.uid, pid = peer.pid, client:? = peer.client_name,
                model:? = model; "{what}"
            );
        }
    }

    /// Marks a request as open.
    pub(super) fn set_open(&mut self, key: RequestKey, open: Open) {
        if let Some(connection) = self.connections.get_mut(&key.connection) {
            connection.open.insert(key.request, open);
        }
    }

    pub(super) fn set_deadline(&mut self, key: RequestKey, deadline_ms: Option<u64>) {
        if let Some(deadline_ms) = deadline_ms {
            self.set_timer(Timer::Deadline(key), deadline_ms);
        }
    }

    /// Takes work in, to be kept until it is done.
    fn submit(&mut self, key: RequestKey, mut work: Work) -> Result<(), Status> {
        let entry = self.catalogue.find(work::model(&work))?;
        work::check_task(&work, entry.manifest.task)?;
        work::keep_checkpoint(&mut work)?;
        let waiting = self.jobs.values().filter(|job| !job.is_running()).count();
        let kept_bytes = work::kept_bytes(&work);
        let kept = self
            .connections
            .values()
            .map(|connection| connection.kept_bytes);
        if waiting >= JOBS_QUEUED_MAX || kept.sum::<usize>() + kept_bytes > JOURNAL_BYTES_MAX {
            return Err(self.busy(waiting));
        }
        self.check_quota(key.connection, Ask::Job(kept_bytes))?;
        let Some(connection) = self.connections.get_mut(&key.connection) else {
            return Ok(());
        };
        let have = connection.kept_bytes + kept_bytes;
        if have > JOURNAL_BYTES_PER_CONNECTION_MAX {
            let limit = JOURNAL_BYTES_PER_CONNECTION_MAX as u64;
            let what = "bytes of open requests".into();
            return Err(Status::LimitExceeded {
                what,
                have: have as u64,
                limit,
            });
        }
        let mut buffers = BTreeSet::new();
        for (field, range) in work::ranges(&mut work) {
            let id = self.buffers.resolve(key.connection, range, field)?;
            range.buffer = id.0;
            buffers.insert(id);
        }
        connection.kept_bytes = have;
        self.buffers.acquire(&buffers);
        let id = JobId(self.ids.jobs.draw());
        let mut job = Job::new(key, work, self.now);
        job.buffers = buffers;
        job.seed = self.draw_seed();
        let options = work::options(&job.work).clone();
        let ahead = self
            .jobs
            .values()
            .filter(|other| !other.is_running() && other.priority() <= options.priority);
        let queue_position = u32::try_from(ahead.count()).unwrap_or(u32::MAX);
        let model = job.model().to_owned();
        self.jobs.insert(id, job);
        self.set_open(key, Open::Job(id));
        self.set_deadline(key, options.deadline_ms);
        self.want(Purpose::Job(id), &model, &options);
        self.schedule();
        // One that begins at once has nothing to wait for, and one frame less to read.
        if self.jobs.get(&id).is_some_and(|job| !job.is_running()) {
            self.reply(key, Reply::Accepted { queue_position });
        }
        Ok(())
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014) over a counter.
    fn draw_seed(&mut self) -> u64 {
        let step = self.ids.seeds.draw().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut z = self.settings.seed.wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The job that answers another open request of the same connection.
    fn open_job(&self, key: RequestKey, target: u64) -> Result<JobId, Status> {
        let connection = self.connections.get(&key.connection);
        match connection.and_then(|connection| connection.open.get(&target)) {
            Some(Open::Job(job)) => Ok(*job),
            _ => {
                let why = format!("{target} is no work that goes on");
                Err(Status::invalid("target_request_id", why))
            }
        }
    }

    fn cancel(&mut self, key: RequestKey, target: u64) {
        let connection = self.connections.get(&key.connection);
        if let Some(open) = connection.and_then(|c| c.open.get(&target).copied()) {
            let target = RequestKey {
                request: target,
                ..key
            };
            self.cancel_open(target, open, Status::Cancelled);
        }
        self.reply(key, Reply::Ok);
    }

    /// Ends an open request early. What a worker computes ends when the worker says so.
    pub(super) fn cancel_open(&mut self, key: RequestKey, open: Open, status: Status) {
        match open {
            Open::Job(job) => return self.cancel_job(job, status),
            Open::Want(want) => self.drop_want(want),
            Open::Probes => self.parked.retain(|parked| parked.key() != Some(key)),
            Open::Rescan => {
                self.rescans.now.retain(|other| *other != key);
                self.rescans.next.retain(|other| *other != key);
                self.parked.retain(|parked| parked.key() != Some(key));
            }
            Open::Unload => self.unloads.retain(|(other, _)| *other != key),
            Open::Watch => {
                if let Some(connection) = self.connections.get_mut(&key.connection) {
                    connection.watch = None;
                }
            }
        }
        self.fail(key, status);
    }

    pub(super) fn deadline_passed(&mut self, key: RequestKey) {
        let connection = self.connections.get(&key.connection);
        let Some(open) = connection.and_then(|c| c.open.get(&key.request).copied()) else {
            return;
        };
        let deadline_ms = match open {
            Open::Job(job) => self
                .jobs
                .get(&job)
                .and_then(|job| work::options(&job.work).deadline_ms),
            Open::Want(want) => self.wants.get(&want).and_then(|want| want.deadline_ms),
            Open::Probes | Open::Rescan | Open::Unload | Open::Watch => None,
        };
        if let Some(deadline_ms) = deadline_ms {
            self.cancel_open(key, open, Status::DeadlineExceeded { deadline_ms });
        }
    }

    fn credit(&mut self, key: RequestKey, target: u64, frames: u32) {
        let Some(connection) = self.connections.get_mut(&key.connection) else {
            return;
        };
        match connection.open.get(&target) {
            Some(Open::Watch) => {
                if let Some(watch) = &mut connection.watch {
                    watch.credit = watch.credit.saturating_add(frames).min(CREDIT_MAX);
                }
                self.tell_dropped(key.connection);
            }
            Some(Open::Job(job)) => {
                let job = *job;
                self.credit_job(job, frames);
            }
            _ => {}
        }
        self.reply(key, Reply::Ok);
    }

    fn watch(&mut self, key: RequestKey) -> Result<(), Status> {
        let Some(connection) = self.connections.get_mut(&key.connection) else {
            return Ok(());
        };
        if connection.watch.is_some() {
            return Err(Status::invalid("watch", "this connection watches already"));
        }
        connection.watch = Some(Watch {
            request: key.request,
            credit: CREDIT_MAX,
            dropped: 0,
        });
        connection.open.insert(key.request, Open::Watch);
        Ok(())
    }

    fn pin(&mut self, key: RequestKey, model: String, pinned: bool) -> Result<(), Status> {
        self.catalogue.find(&model)?;
        let connection = self.connections.get(&key.connection);
        let is_new = connection.is_some_and(|one| pinned && !one.pins.contains(&model));
        if is_new {
            self.check_quota(key.connection, Ask::Pin)?;
        }
        let Some(connection) = self.connections.get_mut(&key.connection) else {
            return Ok(());
        };
        if pinned {
            let have = connection.pins.len() as u64 + 1;
            if have > PINS_MAX as u64 && is_new {
                let limit = PINS_MAX as u64;
                return Err(Status::LimitExceeded {
                    what: "pins".into(),
                    have,
                    limit,
                });
            }
            connection.pins.insert(model.clone());
        } else {
            connection.pins.remove(&model);
        }
        let workers = self
            .instances
            .values()
            .filter(|instance| instance.model() == model);
        for worker in workers.map(|instance| instance.worker).collect::<Vec<_>>() {
            self.tend(worker);
        }
        self.reply(key, Reply::Ok);
        Ok(())
    }

    pub(super) fn is_pinned(&self, model: &str) -> bool {
        self.connections
            .values()
            .any(|connection| connection.pins.contains(model))
    }
}
