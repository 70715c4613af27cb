//! Streams: sockets straight between a client and a worker, made and revocable here.

use super::instance::LoadedModel;
use super::quota::Ask;
use super::seek::Purpose;
use super::{Core, Effect};
use crate::ids::{ConnectionId, RequestKey, StreamId, WorkerId};
use crate::limits::{STREAMS_PER_CONNECTION_MAX, STREAMS_TOTAL_MAX};
use mote_api::{Manifest, Task};
use mote_wire::types::{Command, DType, OpenStream, Reply, Status, StreamOpened, TensorSpec};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::io;
use std::os::fd::OwnedFd;

/// A stream that is open.
#[derive(Debug)]
pub struct Stream {
    /// Whose it is.
    pub connection: ConnectionId,
    /// Who serves it.
    pub worker: WorkerId,
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
        self.want(Purpose::Stream(key), &open.model, &open.options);
        Ok(())
    }

    /// Joins a client and a worker whose model is loaded.
    pub(super) fn open_stream(&mut self, key: RequestKey, worker: WorkerId) -> Result<(), Status> {
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
                worker,
                worker_end: kept,
            },
        );
        self.tell_throttle(worker);
        self.send(
            worker,
            Command::AttachStream {
                stream: id.0,
                socket: worker_end,
            },
        );
        self.reply(key, Reply::StreamOpened(opened));
        Ok(())
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
