//! The transport's twin in memory, for tests: the same frames, no socket.

use crate::connection::{Transport, feed};
use crate::decoder::FrameDecoder;
use crate::error::WireError;
use crate::fds::Received;
use crate::frame::{Frame, Link, Prefix};
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes that may be under way in one direction before the sender blocks, as in a socket.
const PIPE_BYTES_MAX: usize = 256 << 10;

/// One end of a connection in memory. It delivers as a stream socket may: bytes in pieces, each set
/// of descriptors with the piece in which its frame begins, at most one set with a piece.
#[derive(Debug)]
pub struct MemoryConnection {
    outgoing: Arc<Pipe>,
    incoming: Arc<Pipe>,
    decoder: FrameDecoder,
    piece_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<PipeState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PipeState {
    bytes: VecDeque<u8>,
    /// How many bytes lie before the one that a set of descriptors belongs to.
    sets: VecDeque<(usize, Vec<OwnedFd>)>,
    closed: bool,
}

impl MemoryConnection {
    /// Two connected ends.
    pub fn pair(link: Link) -> (Self, Self) {
        Self::pair_in_pieces(link, PIPE_BYTES_MAX)
    }

    /// Two connected ends that receive at most `piece_bytes_max` bytes at once.
    pub fn pair_in_pieces(link: Link, piece_bytes_max: usize) -> (Self, Self) {
        let (there, back) = (Arc::new(Pipe::default()), Arc::new(Pipe::default()));
        let end = |outgoing: &Arc<Pipe>, incoming: &Arc<Pipe>| Self {
            outgoing: Arc::clone(outgoing),
            incoming: Arc::clone(incoming),
            decoder: FrameDecoder::new(link),
            piece_bytes_max: piece_bytes_max.max(1),
        };
        (end(&there, &back), end(&back, &there))
    }
}

impl Transport for MemoryConnection {
    fn send(&mut self, frame: Frame) -> Result<(), WireError> {
        frame.check()?;
        let prefix = Prefix::of(frame.bytes.len());
        let broken = || WireError::Send(io::ErrorKind::BrokenPipe.into());
        let mut state = self.outgoing.lock();
        if !frame.fds.is_empty() {
            let place = state.bytes.len();
            state.sets.push_back((place, frame.fds));
        }
        for part in [prefix.as_bytes(), &frame.bytes] {
            let mut part = part;
            while !part.is_empty() {
                if state.closed {
                    return Err(broken());
                }
                let room = PIPE_BYTES_MAX - state.bytes.len();
                let (now, later) = part.split_at(room.min(part.len()));
                state.bytes.extend(now);
                part = later;
                self.outgoing.changed.notify_all();
                if !part.is_empty() {
                    state = self.outgoing.wait(state);
                }
            }
        }
        if state.closed { Err(broken()) } else { Ok(()) }
    }

    fn recv(&mut self) -> Result<Option<Frame>, WireError> {
        loop {
            if let Some(frame) = self.decoder.pop()? {
                return Ok(Some(frame));
            }
            let mut space = self.decoder.space();
            let length = space.len().min(self.piece_bytes_max);
            space = &mut space[..length];
            let received = self.incoming.receive(space);
            if !feed(&mut self.decoder, received)? {
                return Ok(None);
            }
        }
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, PipeState>) -> MutexGuard<'a, PipeState> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn receive(&self, space: &mut [u8]) -> Received {
        let mut state = self.lock();
        while state.bytes.is_empty() {
            if state.closed {
                return Received::default();
            }
            state = self.wait(state);
        }
        let mut bytes = space.len().min(state.bytes.len());
        let mut fds = Vec::new();
        if state.sets.front().is_some_and(|(place, _)| *place < bytes) {
            fds = state.sets.pop_front().map_or_else(Vec::new, |set| set.1);
            if let Some((next, _)) = state.sets.front() {
                bytes = bytes.min(*next);
            }
        }
        for (slot, byte) in space.iter_mut().zip(state.bytes.drain(..bytes)) {
            *slot = byte;
        }
        for (place, _) in &mut state.sets {
            *place -= bytes;
        }
        self.changed.notify_all();
        Received {
            bytes,
            fds,
            fds_lost: false,
        }
    }
}

impl Drop for MemoryConnection {
    fn drop(&mut self) {
        self.outgoing.close();
        self.incoming.close();
    }
}
