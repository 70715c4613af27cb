//! The transport for processes that run on tokio. Needs a runtime with I/O enabled.

use crate::connection::{Outgoing, feed};
use crate::decoder::FrameDecoder;
use crate::error::WireError;
use crate::fds;
use crate::frame::{Frame, Link};
use nix::sys::socket::{Shutdown, shutdown};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Frames of `link` over `socket`, which is put into non-blocking mode.
pub fn async_connection(
    socket: std::os::unix::net::UnixStream,
    link: Link,
) -> Result<(AsyncSender, AsyncReceiver), WireError> {
    socket.set_nonblocking(true).map_err(WireError::SetUp)?;
    let socket = Arc::new(UnixStream::from_std(socket).map_err(WireError::SetUp)?);
    let sender = AsyncSender {
        socket: Arc::clone(&socket),
        outgoing: VecDeque::new(),
    };
    let receiver = AsyncReceiver {
        socket,
        decoder: FrameDecoder::new(link),
    };
    Ok((sender, receiver))
}

/// The sending half. The socket closes when both halves are gone.
#[derive(Debug)]
pub struct AsyncSender {
    socket: Arc<UnixStream>,
    outgoing: VecDeque<Outgoing>,
}

impl AsyncSender {
    /// Sends a frame; its descriptors are closed here afterwards.
    ///
    /// When the future is dropped, the frame is kept and goes out ahead of the next one, or with
    /// [`AsyncSender::flush`]: the stream never holds half a frame.
    pub async fn send(&mut self, frame: Frame) -> Result<(), WireError> {
        self.send_all([frame]).await
    }

    /// Sends frames one after another, in as few system calls as can be; otherwise as
    /// [`AsyncSender::send`].
    pub async fn send_all(
        &mut self,
        frames: impl IntoIterator<Item = Frame>,
    ) -> Result<(), WireError> {
        let next = Outgoing::batches(frames)?;
        self.flush().await?;
        self.outgoing = next;
        self.flush().await
    }

    /// Sends what an earlier, dropped call has left.
    pub async fn flush(&mut self) -> Result<(), WireError> {
        while let Some(outgoing) = self.outgoing.front_mut() {
            let sent = self
                .socket
                .async_io(Interest::WRITABLE, || outgoing.advance(self.socket.as_fd()))
                .await
                .map_err(WireError::Send)?;
            if sent {
                self.outgoing.pop_front();
            }
        }
        Ok(())
    }

    /// Ends the connection both ways: both ends that wait for a frame wake up.
    pub fn close(&self) {
        // A socket whose peer has gone is as closed as it can be.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

impl AsFd for AsyncSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The receiving half. The socket closes when both halves are gone.
#[derive(Debug)]
pub struct AsyncReceiver {
    socket: Arc<UnixStream>,
    decoder: FrameDecoder,
}

impl AsyncReceiver {
    /// Waits for a frame; `None` when the peer has closed the connection at a frame's end. Nothing
    /// is lost when the future is dropped.
    pub async fn recv(&mut self) -> Result<Option<Frame>, WireError> {
        loop {
            if let Some(frame) = self.decoder.pop()? {
                return Ok(Some(frame));
            }
            let decoder = &mut self.decoder;
            let received = self
                .socket
                .async_io(Interest::READABLE, || {
                    fds::receive(self.socket.as_fd(), decoder.space())
                })
                .await
                .map_err(WireError::Receive)?;
            if !feed(&mut self.decoder, received)? {
                return Ok(None);
            }
        }
    }

    /// As [`AsyncSender::close`].
    pub fn close(&self) {
        // As there.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

impl AsFd for AsyncReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
