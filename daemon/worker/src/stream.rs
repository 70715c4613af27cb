//! A client's stream: its socket comes straight to this process, one thread serves it.
//!
//! One hop, no broker: a push names registered buffers, the model runs in this thread, the answer
//! goes back. The broker gets the figures when it ends, and can end it by shutting the socket down. It
//! hears of a device that is lost, or that hangs, and then says so to the client itself: a client that
//! opens the stream anew must not be faster than the news.

use crate::buffers::Buffers;
use crate::convert;
use crate::link::{Link, LinkError};
use crate::load::{LoadedModel, json_of};
use crate::status::{self, Failure, chain};
use crate::throttle::ThrottleLog;
use crate::usage::cpu_us;
use frames::FrameStream;
use gate::Gate;
use mote_api::{DeviceKind, Rejection, Task};
use mote_pipeline::{FramesPush, StreamSession};
use mote_wire::types::{
    BufferRange, Done, ProviderShare, Receipt, Reply, Request, Status, StreamPush, StreamResult,
    WorkerEvent,
};
use mote_wire::{Connection, frame_to_request, reply_to_frame};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use watchdog::Watchdog;

mod frames;
mod gate;
mod pictures;
mod watchdog;

pub use gate::Gates;

/// A stream that is to be served.
pub struct Attach {
    /// The broker's number.
    pub id: u64,
    /// The client's socket.
    pub socket: OwnedFd,
    /// How long a push may compute, where it is limited.
    pub step_limit: Option<Duration>,
    /// The broker's part of the receipt.
    pub receipt: Receipt,
}

/// What all streams of this process share.
#[derive(Clone)]
pub struct Streams {
    link: Link,
    gates: Gates,
    watchdog: Watchdog,
}

impl Streams {
    /// None yet.
    pub fn new(link: Link, gates: Gates) -> Self {
        let to_broker = link.clone();
        let watchdog = Watchdog::new(move |stream, limit| {
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            tell_fault(&to_broker, stream, &Rejection::StepTimedOut { limit_ms });
        });
        Self {
            link,
            gates,
            watchdog,
        }
    }

    /// A stream cannot be served, or is over.
    pub fn ended(&self, id: u64, usage: Usage) -> Result<(), LinkError> {
        self.gates.forget(id);
        let Usage {
            steps,
            compute_us,
            bytes_copied,
            bytes_converted: _,
            host_cpu_us: _,
        } = usage;
        self.link.send(WorkerEvent::StreamEnded {
            stream: id,
            steps,
            compute_us,
            bytes_copied,
        })
    }

    /// Serves a stream on a thread of its own.
    pub fn attach(&self, attach: Attach, loaded: &LoadedModel) -> Result<(), LinkError> {
        let id = attach.id;
        let mut connection = Connection::new(attach.socket.into(), mote_wire::Link::Client);
        let runner = match Runner::open(loaded) {
            Ok(runner) => runner,
            Err(status) => {
                refuse(&mut connection, 0, status);
                return self.ended(id, Usage::default());
            }
        };
        let mut stream = Stream {
            id,
            runner,
            is_on_device: loaded.candidate.device.kind != DeviceKind::Cpu,
            step_limit: attach.step_limit,
            receipt: attach.receipt,
            throttle: Arc::clone(&loaded.throttle),
            buffers: Buffers::default(),
            gate: self.gates.of(id),
            shared: self.clone(),
            preemptions: 0,
            usage: Usage::default(),
            started: Instant::now(),
        };
        std::thread::spawn(move || {
            stream.serve(&mut connection);
            if let Err(error) = stream.shared.ended(id, stream.usage) {
                log::debug!("the end of a stream was not told: {}", chain(&error));
            }
        });
        Ok(())
    }
}

/// Tells the broker that what a stream runs on is of no use; whether it could be told.
fn tell_fault(link: &Link, stream: u64, rejection: &Rejection) -> bool {
    let told = link.send(WorkerEvent::StreamFaulted {
        stream,
        rejection_json: json_of(rejection),
    });
    if let Err(error) = &told {
        log::error!("a stream's fault was not told: {}", chain(error));
    }
    told.is_ok()
}

/// What a stream used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Pushes.
    pub steps: u64,
    /// Inside the library.
    pub compute_us: u64,
    /// Between the client's memory and the library's.
    pub bytes_copied: u64,
    /// Written by passes between frames and tensors.
    pub bytes_converted: u64,
    /// Processor time of this process during pushes.
    pub host_cpu_us: u64,
}

/// What turns pushes into results.
enum Runner {
    Tensors(Box<StreamSession>),
    Frames(Box<FrameStream>),
}

impl Runner {
    fn open(loaded: &LoadedModel) -> Result<Self, Status> {
        match loaded.manifest.task {
            Task::FrameInterpolation => {
                FrameStream::open(loaded).map(|frames| Self::Frames(Box::new(frames)))
            }
            Task::TextGeneration => Err(Status::invalid("model", "text is generated by jobs")),
            Task::Embedding => Err(Status::invalid("model", "texts are embedded by jobs")),
            Task::ClipGeneration | Task::FrameRestoration | Task::ClipLabelling => {
                Err(Status::invalid("model", "clips are worked on by jobs"))
            }
            Task::Tensor | Task::Stream => {
                StreamSession::open(&loaded.model, loaded.manifest.stream.as_ref())
                    .map(|session| {
                        let manifest = &loaded.manifest;
                        session.with_pictures(&manifest.inputs, &manifest.outputs)
                    })
                    .map(|session| Self::Tensors(Box::new(session)))
                    .map_err(|error| status::of_pipeline(&error))
            }
        }
    }
}

struct Stream {
    id: u64,
    runner: Runner,
    is_on_device: bool,
    step_limit: Option<Duration>,
    receipt: Receipt,
    throttle: Arc<ThrottleLog>,
    buffers: Buffers,
    gate: Arc<Gate>,
    shared: Streams,
    /// How often a push waited for more urgent work.
    preemptions: u32,
    usage: Usage,
    started: Instant,
}

fn refuse(connection: &mut Connection, request_id: u64, status: Status) -> bool {
    send(connection, request_id, Reply::Failed(status))
}

fn send(connection: &mut Connection, request_id: u64, reply: Reply) -> bool {
    let frame = match reply_to_frame(request_id, reply) {
        Ok(frame) => frame,
        Err(error) => {
            log::error!("cannot encode an answer: {}", chain(&error));
            return false;
        }
    };
    // A client that is gone ends its stream; nobody is left to be told.
    connection.send(frame).is_ok()
}

impl Stream {
    fn serve(&mut self, connection: &mut Connection) {
        loop {
            let frame = match connection.recv() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    refuse(connection, 0, Status::invalid("frame", chain(&error)));
                    return;
                }
            };
            let goes_on = match frame_to_request(frame) {
                Ok((id, request)) => self.answer(connection, id, request),
                Err(refusal) => {
                    refuse(connection, refusal.request_id, refusal.status) && !refusal.fatal
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Answers one request; false ends the stream.
    fn answer(&mut self, connection: &mut Connection, id: u64, request: Request) -> bool {
        let reply = match request {
            Request::StreamPush(push) => match self.push(push) {
                Ok(result) => Ok(Reply::StreamResult(result)),
                Err(failure) if self.is_lost(&failure) => return false,
                Err(failure) => Err(failure.status),
            },
            Request::RegisterBuffer(buffer) => self
                .buffers
                .map(buffer.buffer, buffer.fd, buffer.bytes, buffer.writable)
                .map(|()| Reply::Ok),
            Request::UnregisterBuffer { buffer } => {
                self.forget_buffers();
                self.buffers.unmap(buffer).map(|()| Reply::Ok)
            }
            Request::StreamClose => {
                let done = Done {
                    receipt: self.receipt(),
                    ..Done::default()
                };
                send(connection, id, Reply::Done(Box::new(done)));
                return false;
            }
            _ => Err(Status::invalid(
                "verb",
                "a stream takes pushes, buffers and its close",
            )),
        };
        send(connection, id, reply.unwrap_or_else(Reply::Failed))
    }

    fn forget_buffers(&mut self) {
        if let Runner::Tensors(session) = &mut self.runner {
            session.forget_all();
        }
    }

    /// Whether the stream has lost its device: then the broker has been told, and tells the client.
    fn is_lost(&self, failure: &Failure) -> bool {
        match failure.rejection.as_deref() {
            Some(rejection @ Rejection::DeviceLost { .. }) if self.is_on_device => {
                tell_fault(&self.shared.link, self.id, rejection)
            }
            _ => false,
        }
    }

    fn push(&mut self, push: StreamPush) -> Result<StreamResult, Failure> {
        self.preemptions += u32::from(self.gate.pass());
        let watchdog = self.shared.watchdog.clone();
        let _watched = self.step_limit.map(|limit| watchdog.watch(self.id, limit));
        let began_us = cpu_us();
        let result = match &mut self.runner {
            Runner::Frames(frames) => frames.push(push, &self.buffers),
            Runner::Tensors(session) => push_tensors(session, push, &self.buffers),
        };
        self.usage.host_cpu_us += cpu_us().saturating_sub(began_us);
        let result = result?;
        self.usage.steps += 1;
        self.usage.compute_us += result.compute_us;
        self.usage.bytes_copied += result.bytes_copied;
        self.usage.bytes_converted += result.bytes_converted;
        Ok(result)
    }

    /// The whole receipt: the broker does not see a stream's steps.
    fn receipt(&self) -> Receipt {
        let mut receipt = self.receipt.clone();
        ProviderShare::divide(&mut receipt.placement, self.usage.compute_us);
        Receipt {
            compute_us: self.usage.compute_us,
            host_cpu_us: self.usage.host_cpu_us,
            total_us: crate::jobs::micros(self.started.elapsed()),
            steps: self.usage.steps,
            bytes_copied: self.usage.bytes_copied,
            bytes_converted: self.usage.bytes_converted,
            preemptions: self.preemptions,
            throttle: self.throttle.worst_since(self.started).to_string(),
            ..receipt
        }
    }
}

fn push_tensors(
    session: &mut StreamSession,
    push: StreamPush,
    buffers: &Buffers,
) -> Result<StreamResult, Failure> {
    let mut targets = Vec::with_capacity(push.outputs.len());
    for target in &push.outputs {
        targets.push(convert::target(target, session.signature(), buffers)?);
    }
    let mut inputs = Vec::with_capacity(push.inputs.len());
    let mut inline_bytes = 0;
    for tensor in push.inputs {
        let input = convert::input(tensor, buffers)?;
        if input.tensor.buffer().origin() == mote_api::BufferOrigin::Private {
            inline_bytes += input.tensor.bytes() as u64;
        }
        inputs.push(input);
    }
    let result = session
        .push_frames(&FramesPush {
            inputs: &inputs,
            outputs: &targets,
            frames: &pictures::sources(&push.frames, buffers)?,
            frame_outputs: &pictures::targets(&push.frame_outputs, buffers)?,
        })
        .map_err(|error| status::of_step(&error))?;
    let mut bytes_copied = result.report.bytes_copied + inline_bytes;
    let mut outputs = Vec::with_capacity(result.outputs.len());
    for output in &result.outputs {
        let range = range_of(&push.outputs, &output.name);
        let (tensor, copied) = convert::output(output, range)?;
        bytes_copied += copied;
        outputs.push(tensor);
    }
    Ok(StreamResult {
        outputs,
        compute_us: result.report.compute_us,
        bytes_copied,
        bytes_converted: result.bytes_converted,
    })
}

fn range_of(targets: &[mote_wire::types::OutputTarget], name: &str) -> Option<BufferRange> {
    targets
        .iter()
        .find(|target| target.name == name)
        .map(|target| target.range)
}
