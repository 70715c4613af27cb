//! A client's end of a socket that says whatever it is told to.

use crate::common::PATIENCE;
use anyhow::{Context, Result, bail, ensure};
use mote_client::Status;
use mote_tests::daemon::Daemon;
use mote_wire::codec::{frame_to_reply, request_to_frame};
use mote_wire::types::{Hello, RegisterBuffer, Reply, Request, StreamPush};
use mote_wire::{Connection, Link, WireError};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

/// What comes from the daemon.
#[derive(Debug)]
pub enum Said {
    Answer(u64, Reply),
    Closed,
}

pub struct Raw {
    connection: Connection,
    socket: UnixStream,
}

impl Raw {
    /// One that has said nothing.
    pub fn connect(daemon: &Daemon) -> Result<Self> {
        let socket = UnixStream::connect(daemon.socket())?;
        Self::over(Connection::new(socket, Link::Client))
    }

    /// One that has said hello.
    pub fn greeted(daemon: &Daemon) -> Result<Self> {
        Self::greeted_at(&daemon.socket())
    }

    pub fn greeted_at(socket: &Path) -> Result<Self> {
        let socket = UnixStream::connect(socket)?;
        let mut raw = Self::over(Connection::new(socket, Link::Client))?;
        raw.ask(1, hello(1, 1))?;
        match raw.next()? {
            Said::Answer(1, Reply::Welcome(_)) => Ok(raw),
            other => bail!("{other:?}"),
        }
    }

    pub fn over(mut connection: Connection) -> Result<Self> {
        connection.set_read_timeout(Some(PATIENCE));
        let socket = connection.as_fd().try_clone_to_owned()?.into();
        Ok(Self { connection, socket })
    }

    /// Fails when the daemon takes nothing for so long.
    pub fn send_for_at_most(&self, limit: Duration) -> Result<()> {
        Ok(self.socket.set_write_timeout(Some(limit))?)
    }

    /// Sends bytes as they are. The daemon may have closed the connection on what came before.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_with(bytes, &[])
    }

    /// As above, with descriptors.
    pub fn write_with(&mut self, bytes: &[u8], fds: &[OwnedFd]) -> Result<()> {
        let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights };
        let (mut rest, mut control) = (bytes, control);
        while !rest.is_empty() {
            let flags = MsgFlags::MSG_NOSIGNAL;
            let parts = [IoSlice::new(rest)];
            match sendmsg::<()>(self.socket.as_raw_fd(), &parts, control, flags, None) {
                Ok(sent) => rest = &rest[sent..],
                Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => break,
                Err(error) => return Err(error.into()),
            }
            control = &[];
        }
        Ok(())
    }

    /// Says that nothing more comes.
    pub fn end_sending(&self) -> Result<()> {
        match self.socket.shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() != std::io::ErrorKind::NotConnected => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub fn ask(&mut self, id: u64, request: Request) -> Result<()> {
        Ok(self.connection.send(request_to_frame(id, request)?)?)
    }

    /// What the daemon says next, which keeps to the wire whatever came.
    pub fn next(&mut self) -> Result<Said> {
        match self.connection.recv() {
            Ok(Some(frame)) => {
                let (id, reply) = frame_to_reply(frame)?;
                Ok(Said::Answer(id, reply))
            }
            Ok(None) => Ok(Said::Closed),
            Err(error @ WireError::EndInsideFrame) => Err(error.into()),
            Err(error) if error.is_gone() => Ok(Said::Closed),
            Err(error) => Err(error).context("the daemon neither answers nor closes"),
        }
    }

    /// Waits until the connection is closed, whatever else is said.
    pub fn is_closed(&mut self) -> Result<()> {
        while !matches!(self.next()?, Said::Closed) {}
        Ok(())
    }

    /// Waits until the connection is closed, at most after a refusal.
    pub fn is_refused(&mut self, what: &str) -> Result<()> {
        loop {
            match self.next()? {
                Said::Closed => return Ok(()),
                Said::Answer(_, Reply::Failed(_)) => {}
                other => bail!("{what}: {other:?}"),
            }
        }
    }

    /// Asks for what must fail.
    pub fn refused(&mut self, id: u64, request: Request) -> Result<Status> {
        match self.last(id, request)? {
            Reply::Failed(status) => Ok(status),
            other => bail!("it went well: {other:?}"),
        }
    }

    /// Asks for what must be carried out.
    pub fn accepted(&mut self, id: u64, request: Request) -> Result<()> {
        let reply = self.last(id, request)?;
        ensure!(matches!(reply, Reply::Ok), "{reply:?}");
        Ok(())
    }

    /// Asks for work that must go well.
    pub fn done(&mut self, id: u64, request: Request) -> Result<()> {
        let reply = self.last(id, request)?;
        ensure!(matches!(reply, Reply::Done(_)), "{reply:?}");
        Ok(())
    }

    fn last(&mut self, id: u64, request: Request) -> Result<Reply> {
        self.ask(id, request)?;
        loop {
            match self.next()? {
                Said::Answer(of, reply) if of == id && reply.closes() => return Ok(reply),
                Said::Answer(of, reply) if of == id => drop(reply),
                other => bail!("{other:?}"),
            }
        }
    }
}

pub fn hello(version_min: u32, version_max: u32) -> Request {
    Request::Hello(Hello {
        version_min,
        version_max,
        client_name: "hostile".into(),
    })
}

pub fn register(buffer: u64, bytes: u64, writable: bool, fd: OwnedFd) -> Request {
    Request::RegisterBuffer(RegisterBuffer {
        buffer,
        bytes,
        writable,
        fd,
    })
}

/// One run as a step of a stream.
pub fn push(run: Request) -> Result<Request> {
    match run {
        Request::Infer(infer) => Ok(Request::StreamPush(StreamPush {
            inputs: infer.inputs,
            outputs: infer.outputs,
            ..StreamPush::default()
        })),
        other => bail!("{other:?} is no run"),
    }
}

/// A request's message, without descriptors.
pub fn encoded(id: u64, request: Request) -> Vec<u8> {
    request_to_frame(id, request)
        .expect("it fits a frame")
        .bytes
}

/// A message behind its length.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    varint(bytes.len() as u64, &mut frame);
    frame.extend_from_slice(bytes);
    frame
}

pub fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// A field that holds a number.
pub fn number(field: u64, value: u64, to: &mut Vec<u8>) {
    varint(field << 3 | VARINT, to);
    varint(value, to);
}

/// A field that holds bytes or a message.
pub fn bytes(field: u64, value: &[u8], to: &mut Vec<u8>) {
    varint(field << 3 | LENGTH_DELIMITED, to);
    varint(value.len() as u64, to);
    to.extend_from_slice(value);
}

/// Resident memory of a process.
pub fn rss_bytes(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.context("no VmRSS")?.trim().parse()?;
    Ok(kibibytes << 10)
}
