//! What can go wrong between a socket and a message.

use crate::limits::{FDS_PER_FRAME_MAX, FRAME_BYTES_MAX};
use crate::types::Status;
use std::io;

/// The connection failed, or its peer does not speak the wire. Either way it is over; only after
/// [`WireError::TimedOut`] may one go on.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket could not be set up.
    #[error("cannot set up the socket")]
    SetUp(#[source] io::Error),
    /// Bytes could not be sent.
    #[error("cannot send a frame")]
    Send(#[source] io::Error),
    /// Bytes could not be received.
    #[error("cannot receive a frame")]
    Receive(#[source] io::Error),
    /// No whole frame came within the read timeout. What came is kept; receive again.
    #[error("no frame came in time")]
    TimedOut,
    /// The peer closed the connection inside a frame.
    #[error("the connection ended inside a frame")]
    EndInsideFrame,
    /// The length prefix is no varint of at most 5 bytes.
    #[error("the length prefix of a frame is longer than 5 bytes")]
    PrefixTooLong,
    /// The frame is too long.
    #[error("a frame of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    FrameTooLarge {
        /// Bytes of its message.
        bytes: u64,
    },
    /// The frame has too many descriptors.
    #[error("{count} descriptors in one frame are over the limit of {FDS_PER_FRAME_MAX}")]
    TooManyFds {
        /// How many it has.
        count: usize,
    },
    /// The kernel could not hand over every descriptor: there were too many of them, or this
    /// process has too many open.
    #[error("descriptors were lost on receipt")]
    FdsLost,
    /// A frame says another number of descriptors than came with its first byte.
    #[error("a frame names {declared} descriptors but {received} came with it")]
    FdMismatch {
        /// What the frame says.
        declared: u64,
        /// What came.
        received: usize,
    },
    /// Descriptors came with bytes in which no frame begins.
    #[error("descriptors came outside a frame's first byte")]
    StrayFds,
}

impl WireError {
    /// Whether the peer has gone, in whatever order: it closed the socket with frames unread or
    /// half sent, or died. Nothing to complain of.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Send(cause) | Self::Receive(cause) => matches!(
                cause.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ),
            Self::EndInsideFrame => true,
            _ => false,
        }
    }

    /// What to tell the peer before the connection is closed; `None` when it is the connection
    /// that failed.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::FrameTooLarge { bytes } => Some(Status::LimitExceeded {
                what: "bytes of frame".into(),
                have: *bytes,
                limit: FRAME_BYTES_MAX as u64,
            }),
            Self::TooManyFds { count } => Some(Status::LimitExceeded {
                what: "fd_count".into(),
                have: *count as u64,
                limit: FDS_PER_FRAME_MAX as u64,
            }),
            Self::FdsLost | Self::FdMismatch { .. } | Self::StrayFds => {
                Some(Status::invalid("fd_count", self))
            }
            Self::PrefixTooLong => Some(Status::invalid("frame", self)),
            Self::SetUp(_)
            | Self::Send(_)
            | Self::Receive(_)
            | Self::TimedOut
            | Self::EndInsideFrame => None,
        }
    }
}

/// A message cannot be put into a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is too long.
    #[error("a message of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Bytes of the message.
        bytes: usize,
    },
    /// It has too many descriptors.
    #[error("{count} descriptors in one message are over the limit of {FDS_PER_FRAME_MAX}")]
    TooManyFds {
        /// How many it has.
        count: usize,
    },
    /// The wire has no form for it: a verb that was not understood cannot be sent on.
    #[error("{what:?} has no form on the wire")]
    NoForm {
        /// What it is.
        what: String,
    },
}

/// A frame that arrived whole but says something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request {request_id}: {status}")]
pub struct Refusal {
    /// The request it is about; 0 when it cannot be told.
    pub request_id: u64,
    /// What to answer.
    #[source]
    pub status: Status,
    /// Whether the connection must be closed: the peer does not speak the wire.
    pub fatal: bool,
}
