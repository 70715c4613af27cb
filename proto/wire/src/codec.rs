//! Frames to plain types and back. Everything that comes in is checked here, once: whoever holds a
//! type of [`crate::types`] need not look again.
//!
//! A text that breaks a rule is refused as [`Status::Invalid`], a number or size over a limit of
//! [`crate::limits`] as [`Status::LimitExceeded`]; both name the field by its path in the verb's
//! message (`inputs[0].shape`).

use crate::convert::{self, FdSource};
use crate::error::{EncodeError, Refusal};
use crate::frame::{Frame, Link};
use crate::limits::{FDS_PER_FRAME_MAX, FRAME_BYTES_MAX, WIRE_VERSION};
use crate::outline::{FIELDS_MAX, Outline};
use crate::pb;
use crate::types::{Command, Hello, Reply, Request, Status, WorkerEvent};
use prost::Message;
use std::os::fd::OwnedFd;

/// The version both sides speak, or the refusal.
pub fn negotiate(hello: &Hello) -> Result<u32, Status> {
    if (hello.version_min..=hello.version_max).contains(&WIRE_VERSION) {
        Ok(WIRE_VERSION)
    } else {
        Err(Status::VersionUnsupported {
            version_min: WIRE_VERSION,
            version_max: WIRE_VERSION,
        })
    }
}

/// A request as a frame. `id` must not be 0.
pub fn request_to_frame(id: u64, request: Request) -> Result<Frame, EncodeError> {
    let mut fds = Vec::new();
    let body = convert::request::write(request, &mut fds)?;
    let message = pb::ClientFrame {
        request_id: id,
        fd_count: fds.len() as u32,
        body: Some(body),
    };
    frame(&message, fds)
}

/// The request in a frame, and its id. A verb this version does not know is
/// [`Request::Unsupported`], which is to be answered with [`Status::Unsupported`].
pub fn frame_to_request(frame: Frame) -> Result<(u64, Request), Refusal> {
    let opened = Opened::<pb::ClientFrame>::open(frame, Link::Client)?;
    let mut fds = opened.fds;
    let id = opened.outline.request_id;
    let refuse = |status| Refusal {
        request_id: id,
        status,
        fatal: false,
    };
    if id == 0 {
        return Err(refuse(Status::invalid("request_id", "it is 0")));
    }
    let request = match opened.message.body {
        Some(body) => convert::request::parse(body, &mut fds).map_err(refuse)?,
        None if opened.outline.body != 0 => {
            let what = format!("verb {}", opened.outline.body);
            return Ok((id, Request::Unsupported { what }));
        }
        None => return Err(refuse(Status::invalid("body", "the frame names no verb"))),
    };
    fds.finish().map_err(refuse)?;
    Ok((id, request))
}

/// An answer as a frame.
pub fn reply_to_frame(id: u64, reply: Reply) -> Result<Frame, EncodeError> {
    let mut fds = Vec::new();
    let body = convert::reply::write(reply, &mut fds);
    let message = pb::ServerFrame {
        request_id: id,
        fd_count: fds.len() as u32,
        body: Some(body),
    };
    frame(&message, fds)
}

/// The answer in a frame, and the request it answers. An answer of a kind this version does not
/// know is refused as [`Status::Unsupported`], not fatally.
pub fn frame_to_reply(frame: Frame) -> Result<(u64, Reply), Refusal> {
    let opened = Opened::<pb::ServerFrame>::open(frame, Link::Client)?;
    let mut fds = opened.fds;
    let id = opened.outline.request_id;
    let refuse = |status| Refusal {
        request_id: id,
        status,
        fatal: false,
    };
    let Some(body) = opened.message.body else {
        let what = format!("answer {}", opened.outline.body);
        return Err(refuse(Status::Unsupported { what }));
    };
    let reply = convert::reply::parse(body, &mut fds).map_err(refuse)?;
    fds.finish().map_err(refuse)?;
    Ok((id, reply))
}

/// A command to a worker as a frame.
pub fn command_to_frame(command: Command) -> Result<Frame, EncodeError> {
    let mut fds = Vec::new();
    let body = convert::worker::write_command(command, &mut fds)?;
    let message = pb::worker::Command {
        fd_count: fds.len() as u32,
        body: Some(body),
    };
    frame(&message, fds)
}

/// The command in a frame. Broker and worker are of one build: every refusal is fatal.
pub fn frame_to_command(frame: Frame) -> Result<Command, Refusal> {
    let opened = Opened::<pb::worker::Command>::open(frame, Link::Worker)?;
    let mut fds = opened.fds;
    let parsed = required(opened.message.body)
        .and_then(|body| convert::worker::parse_command(body, &mut fds))
        .and_then(|command| fds.finish().map(|()| command));
    parsed.map_err(fatal)
}

/// A worker's event as a frame.
pub fn event_to_frame(event: WorkerEvent) -> Result<Frame, EncodeError> {
    let mut fds = Vec::new();
    let body = convert::worker::write_event(event, &mut fds);
    let message = pb::worker::WorkerEvent {
        fd_count: fds.len() as u32,
        body: Some(body),
    };
    frame(&message, fds)
}

/// The event in a worker's frame. Broker and worker are of one build: every refusal is fatal.
pub fn frame_to_event(frame: Frame) -> Result<WorkerEvent, Refusal> {
    let opened = Opened::<pb::worker::WorkerEvent>::open(frame, Link::Worker)?;
    let mut fds = opened.fds;
    let parsed = required(opened.message.body)
        .and_then(|body| convert::worker::parse_event(body, &mut fds))
        .and_then(|event| fds.finish().map(|()| event));
    parsed.map_err(fatal)
}

fn required<T>(body: Option<T>) -> Result<T, Status> {
    body.ok_or_else(|| Status::invalid("body", "it is missing or unknown"))
}

fn fatal(status: Status) -> Refusal {
    Refusal {
        request_id: 0,
        status,
        fatal: true,
    }
}

fn frame(message: &impl Message, fds: Vec<OwnedFd>) -> Result<Frame, EncodeError> {
    let bytes = message.encoded_len();
    if bytes > FRAME_BYTES_MAX {
        return Err(EncodeError::TooLarge { bytes });
    }
    if fds.len() > FDS_PER_FRAME_MAX {
        return Err(EncodeError::TooManyFds { count: fds.len() });
    }
    Ok(Frame {
        bytes: message.encode_to_vec(),
        fds,
    })
}

/// A frame whose outer shape holds.
struct Opened<M> {
    outline: Outline,
    message: M,
    fds: FdSource,
}

impl<M: Message + Default> Opened<M> {
    fn open(frame: Frame, link: Link) -> Result<Self, Refusal> {
        let outline = Outline::of(&frame.bytes, link)
            .map_err(|_| fatal(Status::invalid("frame", "it is no protobuf message")))?;
        let refuse = |status| Refusal {
            request_id: outline.request_id,
            ..fatal(status)
        };
        if outline.fd_count != frame.fds.len() as u64 {
            let why = format!(
                "{} descriptors are named but {} came",
                outline.fd_count,
                frame.fds.len()
            );
            return Err(refuse(Status::invalid("fd_count", why)));
        }
        if outline.fields > FIELDS_MAX {
            return Err(refuse(Status::LimitExceeded {
                what: "fields of frame".into(),
                have: outline.fields as u64,
                limit: FIELDS_MAX as u64,
            }));
        }
        let message =
            M::decode(&frame.bytes[..]).map_err(|cause| refuse(Status::invalid("frame", cause)))?;
        Ok(Self {
            outline,
            message,
            fds: FdSource::new(frame.fds),
        })
    }
}
