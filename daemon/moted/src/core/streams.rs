//! Streams: sockets straight between a client and a worker, made and revocable here.

use super::instance::LoadedModel;
use super::quota::Ask;
use super::seek::Purpose;
use super::{Core, Effect};
use crate::convert;
use crate::ids::{ConnectionId, RequestKey, StreamId, WorkerId};
use crate::limits::{STREAMS_PER_CONNECTION_MAX, STREAMS_TOTAL_MAX};
use crate::policy::queue::DeviceQueue;
use mote_api::{Manifest, Task};
use mote_wire::types::{
    Command, DType, OpenStream, Receipt, Reply, Status, StreamOpened, TensorSpec, WorkOptions,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

/// What a stream was asked for with.
#[derive(Debug)]
pub struct StreamAsk {
    /// Its options.
    pub options: WorkOptions,
    /// When.
    pub at: Instant,
}

/// A stream that is open.
#[derive(Debug)]
pub struct Stream {
    /// Whose it is.
    pub connection: ConnectionId,
    /// The model's name.
    pub model: String,
    /// What it was asked for with.
    pub ask: Arc<StreamAsk>,
    /// Who serves it.
    pub worker: WorkerId,
    /// Its pushes wait for more urgent work on the device.
    pub held: bool,
    /// The worker's end once more: with it the broker can end the stream, and say why when the
    /// worker no longer can.
    pub worker_end: OwnedFd,
}

impl Core {
    pub(super) fn ask_stream(&mut self, key: RequestKey, open: &OpenStream) -> Result<(), Status> {
        self.catalogue.find(&open.model)?;
        let of_client = self
            .streams
            .values()
            .filter(|one| one.connection == key.connection);
        let limits = [
            ("streams", of_client.count(), STREAMS_PER_CONNECTION_MAX),
            (
                "streams of all clients",
                self.streams.len(),
                STREAMS_TOTAL_MAX,
            ),
        ];
        for (what, have, limit) in limits {
            if have >= limit {
                let (what, have, limit) = (what.to_owned(), have as u64 + 1, limit as u64);
                return Err(Status::LimitExceeded { what, have, limit });
            }
        }
        self.check_quota(key.connection, Ask::Stream)?;
        let ask = Arc::new(StreamAsk {
            options: open.options.clone(),
            at: self.now,
        });
        self.want(Purpose::Stream(key, ask), &open.model, &open.options);
        Ok(())
    }

    /// Joins a client and a worker whose model is loaded.
    pub(super) fn open_stream(
        &mut self,
        key: RequestKey,
        ask: &Arc<StreamAsk>,
        worker: WorkerId,
    ) -> Result<(), Status> {
        let internal = |cause: &dyn std::fmt::Display| Status::Internal {
            operation: "make a stream's socket".into(),
            cause: cause.to_string(),
        };
        let Some(instance) = self.instances.get_mut(&worker) else {
            return Err(internal(&"its worker is gone"));
        };
        let kind = (
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
        );
        let (client_end, worker_end) =
            socketpair(kind.0, kind.1, None, kind.2).map_err(|error| internal(&error))?;
        let kept: io::Result<OwnedFd> = worker_end.try_clone();
        let kept = kept.map_err(|error| internal(&error))?;
        let id = StreamId(self.ids.streams.draw());
        instance.streams.insert(id);
        let (inputs, outputs) = pushed(&instance.entry.manifest, &instance.loaded);
        let model = instance.model().to_owned();
        let opened = StreamOpened {
            socket: client_end,
            inputs,
            outputs,
        };
        let connection = key.connection;
        self.streams.insert(
            id,
            Stream {
                connection,
                model,
                ask: Arc::clone(ask),
                worker,
                held: false,
                worker_end: kept,
            },
        );
        self.tell_throttle(worker);
        let attach = Command::AttachStream {
            stream: id.0,
            socket: worker_end,
            step_limit_ms: self.step_limit_ms(worker),
            receipt: Box::new(self.stream_receipt(connection, ask, worker)),
        };
        self.send(worker, attach);
        self.reply(key, Reply::StreamOpened(opened));
        Ok(())
    }

    /// The broker's part of a stream's receipt, which it does not see.
    fn stream_receipt(
        &self,
        connection: ConnectionId,
        ask: &StreamAsk,
        worker: WorkerId,
    ) -> Receipt {
        let mut receipt = Receipt {
            local: true,
            ..Receipt::default()
        };
        let Some(instance) = self.instances.get(&worker) else {
            return receipt;
        };
        instance.describe(&mut receipt);
        let waited = self.now.saturating_duration_since(ask.at).as_micros();
        receipt.load_us = u64::try_from(waited).unwrap_or(u64::MAX);
        let set_back = self.stream_set_back(connection, instance.model());
        for one in convert::rejected(set_back.as_slice()) {
            if !receipt.rejected.contains(&one) {
                receipt.rejected.push(one);
            }
        }
        receipt
    }

    /// Holds streams at their next push while more urgent work computes on their device, or work of
    /// their kind is held back. The broker sees no pushes, so that streams halt nobody in turn.
    pub(super) fn tend_streams(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let hold = self.hold();
        let mut told = Vec::new();
        for (id, stream) in &mut self.streams {
            let Some(instance) = self.instances.get(&stream.worker) else {
                continue;
            };
            let queue = self.queues.get(&instance.candidate.device.id);
            let top = queue.and_then(DeviceQueue::computing);
            let priority = stream.ask.options.priority;
            let held = hold.holds(priority) || top.is_some_and(|top| priority > top);
            if held != stream.held {
                stream.held = held;
                told.push((stream.worker, id.0, held));
            }
        }
        for (worker, stream, held) in told {
            self.send(worker, Command::HoldStream { stream, held });
        }
    }

    /// The worker says that a stream has ended in good order.
    pub(super) fn stream_ended(&mut self, worker: WorkerId, id: StreamId) {
        if self
            .streams
            .get(&id)
            .is_none_or(|stream| stream.worker != worker)
        {
            return;
        }
        self.streams.remove(&id);
        if let Some(instance) = self.instances.get_mut(&worker) {
            instance.streams.remove(&id);
            instance.last_used = self.now;
            self.history.worked(|| instance.key());
        }
        self.tend(worker);
    }

    /// Ends a stream from here.
    pub(super) fn end_stream(&mut self, id: StreamId, status: Status) {
        let Some(stream) = self.streams.remove(&id) else {
            return;
        };
        self.effects.push(Effect::EndStream {
            socket: stream.worker_end,
            status,
        });
        if let Some(instance) = self.instances.get_mut(&stream.worker) {
            instance.streams.remove(&id);
            instance.last_used = self.now;
        }
        self.tend(stream.worker);
    }
}

/// What a push takes and gives: frames where frames are interpolated, and otherwise the model's
/// tensors without those that stay inside.
fn pushed(manifest: &Manifest, loaded: &LoadedModel) -> (Vec<TensorSpec>, Vec<TensorSpec>) {
    if manifest.task == Task::FrameInterpolation {
        let frames = |name: &str, shape: &[Option<u64>]| TensorSpec {
            name: name.into(),
            dtype: DType::U8,
            shape: shape.to_vec(),
        };
        let frame = frames("frame", &[None, None, Some(3)]);
        return (
            vec![frame],
            vec![frames("frames", &[None, None, None, Some(3)])],
        );
    }
    let (mut inputs, mut outputs) = (loaded.inputs.clone(), loaded.outputs.clone());
    if let Some(stream) = &manifest.stream {
        let is_fed = |name: &str| {
            stream.state.iter().any(|state| state.input == name)
                || stream.constant.iter().any(|one| one.input == name)
        };
        inputs.retain(|spec| !is_fed(&spec.name));
        outputs.retain(|spec| stream.state.iter().all(|state| state.output != spec.name));
    }
    (inputs, outputs)
}
