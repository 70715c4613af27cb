//! The transport for processes that run on tokio. Needs a runtime with I/O enabled.
//!
//! Each half costs the fewest system calls there can be: a socket is watched for readability only, as
//! room to send is worth a wake-up only to whom it was refused; and what could be read short of the
//! room for it has emptied the socket, so nobody need be told so by another call.

use crate::connection::{Outgoing, feed};
use crate::decoder::FrameDecoder;
use crate::error::WireError;
use crate::fds;
use crate::frame::{Frame, Link};
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Frames of `link` over `socket`, which is put into non-blocking mode.
pub fn async_connection(
    socket: UnixStream,
    link: Link,
) -> Result<(AsyncSender, AsyncReceiver), WireError> {
    socket.set_nonblocking(true).map_err(WireError::SetUp)?;
    let socket = Arc::new(socket);
    let sender = AsyncSender {
        socket: Arc::clone(&socket),
        outgoing: VecDeque::new(),
    };
    let receiver = AsyncReceiver {
        socket: fds::watch(socket, Interest::READABLE).map_err(WireError::SetUp)?,
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
        if self.try_flush()? {
            return Ok(());
        }
        let room = self.room()?;
        while !self.try_flush()? {
            room.wait().await?;
        }
        Ok(())
    }

    /// As [`AsyncSender::send_all`] as far as there is room; false when some is left for
    /// [`AsyncSender::try_flush`]. Only to be called when nothing is.
    pub fn try_send_all(
        &mut self,
        frames: impl IntoIterator<Item = Frame>,
    ) -> Result<bool, WireError> {
        self.outgoing.extend(Outgoing::batches(frames)?);
        self.try_flush()
    }

    /// Sends what is left as far as there is room; whether all of it is sent.
    pub fn try_flush(&mut self) -> Result<bool, WireError> {
        while let Some(outgoing) = self.outgoing.front_mut() {
            match outgoing.advance(self.socket.as_fd()) {
                Ok(true) => drop(self.outgoing.pop_front()),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(WireError::Send(error)),
            }
        }
        Ok(true)
    }

    /// Tells when there may be room to send again.
    pub fn room(&self) -> Result<Room, WireError> {
        let socket = self.socket.as_fd().try_clone_to_owned();
        let watched = socket.and_then(|fd| fds::watch(fd, Interest::WRITABLE));
        Ok(Room(watched.map_err(WireError::SetUp)?))
    }

    /// Ends the connection both ways: both ends that wait for a frame wake up.
    pub fn close(&self) {
        // A socket whose peer has gone is as closed as it can be.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl AsFd for AsyncSender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket that may have room again.
#[derive(Debug)]
pub struct Room(AsyncFd<OwnedFd>);

impl Room {
    /// Waits for room that has come since the last call.
    pub async fn wait(&self) -> Result<(), WireError> {
        let mut ready = self.0.writable().await.map_err(WireError::Send)?;
        ready.clear_ready();
        Ok(())
    }
}

/// The receiving half. The socket closes when both halves are gone.
#[derive(Debug)]
pub struct AsyncReceiver {
    socket: AsyncFd<Arc<UnixStream>>,
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
            let mut ready = self.socket.readable().await.map_err(WireError::Receive)?;
            let space = self.decoder.space();
            let room = space.len();
            let received = match fds::receive(self.socket.as_fd(), space) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    continue;
                }
                received => received.map_err(WireError::Receive)?,
            };
            // The kernel stops short of the room for three reasons: the socket is empty, descriptors
            // came, or the stream has ended (`unix_stream_read_generic`).
            if received.bytes < room && received.fds.is_empty() && !received.fds_lost {
                ready.clear_ready();
            }
            if !feed(&mut self.decoder, received)? {
                return Ok(None);
            }
        }
    }

    /// As [`AsyncSender::close`].
    pub fn close(&self) {
        // As there.
        let _ = self.socket.get_ref().shutdown(Shutdown::Both);
    }
}

impl AsFd for AsyncReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
