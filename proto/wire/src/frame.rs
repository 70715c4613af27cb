//! One frame: a protobuf message behind its varint length, and the descriptors that go with it.

use crate::error::WireError;
use crate::limits::{FDS_PER_FRAME_MAX, FRAME_BYTES_MAX};
use std::os::fd::OwnedFd;

/// Bytes of the longest length prefix.
pub const PREFIX_BYTES_MAX: usize = 5;

/// Who talks over a connection: it decides which field of a frame counts its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Client and server, and a stream's own socket: `mote.v1`.
    Client,
    /// Broker and worker: `mote.worker.v1`.
    Worker,
}

/// One message and the descriptors that travel with its first byte.
#[derive(Default)]
pub struct Frame {
    /// The message, without its length prefix.
    pub bytes: Vec<u8>,
    /// Descriptors in the order the message names them.
    pub fds: Vec<OwnedFd>,
}

impl std::fmt::Debug for Frame {
    /// Messages hold prompts and outputs, which never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("bytes", &self.bytes.len())
            .field("fds", &self.fds.len())
            .finish()
    }
}

impl Frame {
    /// Whether the frame may be sent.
    pub(crate) fn check(&self) -> Result<(), WireError> {
        if self.bytes.len() > FRAME_BYTES_MAX {
            return Err(WireError::FrameTooLarge {
                bytes: self.bytes.len() as u64,
            });
        }
        if self.fds.len() > FDS_PER_FRAME_MAX {
            return Err(WireError::TooManyFds {
                count: self.fds.len(),
            });
        }
        Ok(())
    }
}

/// A length as a varint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    bytes: [u8; PREFIX_BYTES_MAX],
    used: usize,
}

impl Prefix {
    /// The prefix of a message whose length was checked.
    pub(crate) fn of(length: usize) -> Self {
        debug_assert!(length <= FRAME_BYTES_MAX);
        let (mut bytes, mut used, mut rest) = ([0; PREFIX_BYTES_MAX], 0, length);
        while rest >= 0x80 {
            bytes[used] = (rest & 0x7f) as u8 | 0x80;
            used += 1;
            rest >>= 7;
        }
        bytes[used] = rest as u8;
        Self {
            bytes,
            used: used + 1,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

/// Length of the message and bytes of the prefix; `None` while the prefix is incomplete.
pub(crate) fn parse_prefix(bytes: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut length = 0u64;
    for (index, byte) in bytes.iter().take(PREFIX_BYTES_MAX).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return if length <= FRAME_BYTES_MAX as u64 {
                Ok(Some((length as usize, index + 1)))
            } else {
                Err(WireError::FrameTooLarge { bytes: length })
            };
        }
    }
    if bytes.len() >= PREFIX_BYTES_MAX {
        return Err(WireError::PrefixTooLong);
    }
    Ok(None)
}
