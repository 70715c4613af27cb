//! The blocking transport: one system call per small frame each way.

use crate::decoder::FrameDecoder;
use crate::error::WireError;
use crate::fds;
use crate::frame::{Frame, Link, Prefix};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of frames that are put together.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// What carries frames both ways.
pub trait Transport {
    /// Sends a frame; its descriptors are closed here afterwards.
    fn send(&mut self, frame: Frame) -> Result<(), WireError>;

    /// Waits for a frame; `None` when the peer has closed the connection in good order.
    fn recv(&mut self) -> Result<Option<Frame>, WireError>;
}

/// Frames over a connected, blocking Unix stream socket.
#[derive(Debug)]
pub struct Connection {
    send: SendHalf,
    recv: RecvHalf,
}

/// The sending half of a [`Connection`].
#[derive(Debug)]
pub struct SendHalf {
    socket: Arc<UnixStream>,
}

/// The receiving half of a [`Connection`].
#[derive(Debug)]
pub struct RecvHalf {
    socket: Arc<UnixStream>,
    decoder: FrameDecoder,
    /// Looked at, not yet taken.
    ahead: Option<Frame>,
    /// How long to wait for bytes.
    timeout: Option<Duration>,
}

impl Connection {
    /// Frames of `link` over `socket`, which must be in blocking mode.
    pub fn new(socket: UnixStream, link: Link) -> Self {
        let socket = Arc::new(socket);
        Self {
            send: SendHalf {
                socket: Arc::clone(&socket),
            },
            recv: RecvHalf {
                socket,
                decoder: FrameDecoder::new(link),
                ahead: None,
                timeout: None,
            },
        }
    }

    /// Two connected ends.
    pub fn pair(link: Link) -> Result<(Self, Self), WireError> {
        let (one, other) = UnixStream::pair().map_err(WireError::SetUp)?;
        Ok((Self::new(one, link), Self::new(other, link)))
    }

    /// As [`SendHalf::send`].
    pub fn send(&mut self, frame: Frame) -> Result<(), WireError> {
        self.send.send(frame)
    }

    /// As [`RecvHalf::recv`].
    pub fn recv(&mut self) -> Result<Option<Frame>, WireError> {
        self.recv.recv()
    }

    /// As [`RecvHalf::set_read_timeout`].
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.recv.set_read_timeout(timeout);
    }

    /// Halves that two threads may own. The socket closes when both are gone.
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

impl Transport for Connection {
    fn send(&mut self, frame: Frame) -> Result<(), WireError> {
        self.send.send(frame)
    }

    fn recv(&mut self) -> Result<Option<Frame>, WireError> {
        self.recv.recv()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.send.socket.as_fd()
    }
}

impl SendHalf {
    /// Sends a frame; its descriptors are closed here afterwards. Blocks while the peer's buffer is
    /// full.
    pub fn send(&mut self, frame: Frame) -> Result<(), WireError> {
        self.send_all([frame])
    }

    /// Sends frames one after another, in as few system calls as can be.
    pub fn send_all(&mut self, frames: impl IntoIterator<Item = Frame>) -> Result<(), WireError> {
        for mut outgoing in Outgoing::batches(frames)? {
            while !outgoing
                .advance(self.socket.as_fd())
                .map_err(WireError::Send)?
            {}
        }
        Ok(())
    }

    /// Ends the connection both ways: a peer, and a thread here, that waits for a frame wakes up.
    pub fn close(&self) {
        // A socket whose peer has gone is as closed as it can be.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl AsFd for SendHalf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl RecvHalf {
    /// Waits for a frame; `None` when the peer has closed the connection at a frame's end. After
    /// [`WireError::TimedOut`] one may call again.
    pub fn recv(&mut self) -> Result<Option<Frame>, WireError> {
        if self.ahead.is_some() {
            return Ok(self.ahead.take());
        }
        loop {
            if let Some(frame) = self.decoder.pop()? {
                return Ok(Some(frame));
            }
            let ready = wait_for_bytes(self.socket.as_fd(), self.timeout);
            if !ready.map_err(WireError::Receive)? {
                return Err(WireError::TimedOut);
            }
            let received = fds::receive(self.socket.as_fd(), self.decoder.space());
            let received = received.map_err(WireError::Receive)?;
            if !feed(&mut self.decoder, received)? {
                return Ok(None);
            }
        }
    }

    /// As [`RecvHalf::recv`], but leaves the frame to the next call.
    pub fn peek(&mut self) -> Result<Option<&Frame>, WireError> {
        self.ahead = self.recv()?;
        Ok(self.ahead.as_ref())
    }

    /// How long [`RecvHalf::recv`] waits for bytes; `None` waits for ever.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// As [`SendHalf::close`].
    pub fn close(&self) {
        // As there.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl AsFd for RecvHalf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until there is something to receive; false when the time is up.
///
/// Waiting in `recvmsg` would do, too, at the price of another wake-up for each frame sent: the
/// kernel wakes who sleeps there also when the peer has made room by reading (`unix_write_space`).
/// Who sleeps in `poll` is woken for what it asked for only.
fn wait_for_bytes(socket: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let until = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map_or(PollTimeout::NONE, |left| {
            // Rounded up, so that the last wait is not one for no time.
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], left) {
            Ok(0) if until.is_some_and(|until| Instant::now() >= until) => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(cause) => return Err(cause.into()),
        }
    }
}

/// Gives the decoder what was received; false at the end of the stream.
pub(crate) fn feed(decoder: &mut FrameDecoder, received: fds::Received) -> Result<bool, WireError> {
    if received.fds_lost {
        return Err(WireError::FdsLost);
    }
    if received.bytes == 0 {
        return if decoder.is_at_boundary() {
            Ok(false)
        } else {
            Err(WireError::EndInsideFrame)
        };
    }
    decoder.received(received.bytes, received.fds)?;
    Ok(true)
}

/// Frames on their way into a socket in as few calls as can be: several without descriptors, or one.
///
/// A frame with descriptors travels alone: the kernel tells which call they came with, and so which
/// frame they belong to.
#[derive(Debug)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    sent: usize,
}

impl Outgoing {
    /// Frames in their order, put together where they may be.
    pub(crate) fn batches(
        frames: impl IntoIterator<Item = Frame>,
    ) -> Result<VecDeque<Self>, WireError> {
        let mut batches: VecDeque<Self> = VecDeque::new();
        for frame in frames {
            frame.check()?;
            let prefix = Prefix::of(frame.bytes.len());
            let joins = |batch: &&mut Self| {
                let bytes = batch.bytes.len() + prefix.as_bytes().len() + frame.bytes.len();
                batch.fds.is_empty() && frame.fds.is_empty() && bytes <= BATCH_BYTES_MAX
            };
            if let Some(batch) = batches.back_mut().filter(joins) {
                batch.bytes.extend_from_slice(prefix.as_bytes());
                batch.bytes.extend_from_slice(&frame.bytes);
                continue;
            }
            let mut bytes = Vec::with_capacity(prefix.as_bytes().len() + frame.bytes.len());
            bytes.extend_from_slice(prefix.as_bytes());
            bytes.extend_from_slice(&frame.bytes);
            let (fds, sent) = (frame.fds, 0);
            batches.push_back(Self { bytes, fds, sent });
        }
        Ok(batches)
    }

    /// One call of `sendmsg`; true once everything is sent.
    pub(crate) fn advance(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let parts = [IoSlice::new(&self.bytes[self.sent..])];
        let fds = if self.sent == 0 { &self.fds[..] } else { &[] };
        self.sent += fds::send(socket, &parts, fds)?;
        Ok(self.sent == self.bytes.len())
    }
}
