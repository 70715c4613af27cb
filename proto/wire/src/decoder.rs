//! Cuts frames out of a byte stream and gives each the descriptors that came with it.
//!
//! How Linux delivers descriptors over a stream socket (unix(7), `unix_stream_read_generic`): they
//! are attached to the first byte of the `sendmsg` that carried them. One `recvmsg` may return
//! bytes without descriptors, then bytes with some, but nothing after those: it returns at most one
//! set, and the byte the set is attached to lies somewhere in what it returned. So a set belongs to
//! a frame that begins within the bytes of its receipt; where several do, `fd_count` tells which.

use crate::error::WireError;
use crate::frame::{Frame, Link, parse_prefix};
use crate::limits::{FDS_PER_FRAME_MAX, FRAME_BYTES_MAX};
use crate::outline::Outline;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

/// Bytes taken from the socket at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes reserved for a message of which the first part has come.
const RESERVE_BYTES: usize = 64 << 10;
/// Sets of descriptors that can be waiting: that of an unfinished frame, and that of the next one.
const SETS_MAX: usize = 2;

/// Incremental, bounded decoder of frames.
///
/// Bytes go in through [`FrameDecoder::space`] and [`FrameDecoder::received`], in the pieces in
/// which they were received; frames come out of [`FrameDecoder::pop`]. Pop until `None` before
/// more is received. After an error the stream is lost.
pub struct FrameDecoder {
    link: Link,
    buffer: Box<[u8]>,
    /// Received and not yet cut: `buffer[head..tail]`.
    head: usize,
    tail: usize,
    /// Place in the stream of `buffer[head]`.
    position: u64,
    partial: Option<Partial>,
    sets: VecDeque<FdSet>,
}

/// A frame of which more is to come than the buffer holds.
struct Partial {
    start: u64,
    length: usize,
    message: Vec<u8>,
}

/// Descriptors, and the part of the stream that was received together with them.
struct FdSet {
    start: u64,
    end: u64,
    fds: Vec<OwnedFd>,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    pub fn new(link: Link) -> Self {
        Self {
            link,
            buffer: vec![0; READ_BYTES].into(),
            head: 0,
            tail: 0,
            position: 0,
            partial: None,
            sets: VecDeque::new(),
        }
    }

    /// Where the next bytes are to be received. Never empty once `pop` has given `None`.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.head..self.tail, 0);
        self.tail -= self.head;
        self.head = 0;
        &mut self.buffer[self.tail..]
    }

    /// `bytes` bytes were written to the start of [`FrameDecoder::space`], and `fds` came with
    /// them.
    pub fn received(&mut self, bytes: usize, fds: Vec<OwnedFd>) -> Result<(), WireError> {
        assert!(
            bytes <= self.buffer.len() - self.tail,
            "more bytes than there was space for"
        );
        let start = self.position + (self.tail - self.head) as u64;
        self.tail += bytes;
        if fds.is_empty() {
            return Ok(());
        }
        if fds.len() > FDS_PER_FRAME_MAX {
            return Err(WireError::TooManyFds { count: fds.len() });
        }
        if self.sets.len() == SETS_MAX {
            return Err(WireError::StrayFds);
        }
        self.sets.push_back(FdSet {
            start,
            end: start + bytes as u64,
            fds,
        });
        Ok(())
    }

    /// The next whole frame.
    pub fn pop(&mut self) -> Result<Option<Frame>, WireError> {
        if self.partial.is_none() && !self.begin()? {
            return Ok(None);
        }
        let Some(partial) = &mut self.partial else {
            return Ok(None);
        };
        let missing = partial.length - partial.message.len();
        let here = missing.min(self.tail - self.head);
        partial
            .message
            .extend_from_slice(&self.buffer[self.head..self.head + here]);
        self.head += here;
        self.position += here as u64;
        if here < missing {
            return Ok(None);
        }
        match self.partial.take() {
            Some(partial) => self.finish(partial).map(Some),
            None => Ok(None),
        }
    }

    /// Whether the stream may end here.
    pub fn is_at_boundary(&self) -> bool {
        self.partial.is_none() && self.head == self.tail && self.sets.is_empty()
    }

    /// Reads the prefix of the next frame; false while it is incomplete.
    fn begin(&mut self) -> Result<bool, WireError> {
        let Some((length, prefix)) = parse_prefix(&self.buffer[self.head..self.tail])? else {
            return Ok(false);
        };
        debug_assert!(length <= FRAME_BYTES_MAX);
        let start = self.position;
        self.head += prefix;
        self.position += prefix as u64;
        let here = (self.tail - self.head).max(RESERVE_BYTES);
        self.partial = Some(Partial {
            start,
            length,
            message: Vec::with_capacity(length.min(here)),
        });
        Ok(true)
    }

    fn finish(&mut self, partial: Partial) -> Result<Frame, WireError> {
        // A message without an outline goes on as it is, for the codec to refuse.
        let declared = Outline::of(&partial.message, self.link).map_or(0, |found| found.fd_count);
        let fds = self.take_fds(partial.start, declared)?;
        // What is left belongs to a later frame, which must begin before the set's end.
        if let Some(set) = self.sets.front().filter(|set| set.end <= self.position) {
            return Err(WireError::FdMismatch {
                declared,
                received: fds.len() + set.fds.len(),
            });
        }
        Ok(Frame {
            bytes: partial.message,
            fds,
        })
    }

    fn take_fds(&mut self, start: u64, declared: u64) -> Result<Vec<OwnedFd>, WireError> {
        if declared == 0 {
            return Ok(Vec::new());
        }
        let here = |set: &FdSet| (set.start..set.end).contains(&start);
        match self.sets.pop_front().filter(here) {
            Some(set) if set.fds.len() as u64 == declared => Ok(set.fds),
            set => Err(WireError::FdMismatch {
                declared,
                received: set.map_or(0, |set| set.fds.len()),
            }),
        }
    }
}

impl std::fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameDecoder")
            .field("link", &self.link)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
