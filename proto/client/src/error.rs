//! Why a call failed.

use mote_wire::types::Status;
use mote_wire::{EncodeError, Refusal, WireError};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or may be talked to, there.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// The daemon refused the request, or the work failed.
    #[error(transparent)]
    Refused(#[from] Status),
    /// The connection is over: the daemon has gone, or the client was dropped.
    #[error("the connection to the daemon is closed")]
    Closed,
    /// The connection failed.
    #[error("the connection to the daemon failed")]
    Connection(#[source] Arc<WireError>),
    /// The daemon broke the rules of the wire.
    #[error("the daemon does not keep to the wire")]
    Protocol(#[from] ProtocolError),
    /// The request cannot be put into a frame.
    #[error("the request cannot be sent")]
    Encode(#[from] EncodeError),
    /// Shared memory could not be had.
    #[error("cannot share {bytes} bytes of memory")]
    Memory {
        /// Bytes asked for.
        bytes: u64,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// Bytes outside a buffer were asked for.
    #[error("bytes {offset}..+{bytes} lie outside a buffer of {have_bytes} bytes")]
    OutOfRange {
        /// First byte.
        offset: u64,
        /// How many.
        bytes: u64,
        /// Bytes of the buffer.
        have_bytes: u64,
    },
}

/// How the daemon broke the rules of the wire.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// An answer does not hold.
    #[error("an answer does not hold")]
    Answer(#[source] Refusal),
    /// An answer of another kind than the request has.
    #[error("{request} was answered with something else")]
    OtherAnswer {
        /// The request.
        request: &'static str,
    },
    /// More answers than the client allowed.
    #[error("answers came that were not granted")]
    CreditExceeded,
}

impl ClientError {
    /// The daemon's status, when it was the daemon that refused.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Refused(status) => Some(status),
            _ => None,
        }
    }

    pub(crate) fn other_answer(request: &'static str) -> Self {
        ProtocolError::OtherAnswer { request }.into()
    }
}

/// A connection's end, told to every request that was open.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Closed,
    Refused(Status),
    Connection(Arc<WireError>),
    Protocol(ProtocolError),
}

impl From<End> for ClientError {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Refused(status) => Self::Refused(status),
            End::Connection(cause) => Self::Connection(cause),
            End::Protocol(cause) => Self::Protocol(cause),
        }
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        if error.is_gone() {
            Self::Closed
        } else {
            Self::Connection(Arc::new(error))
        }
    }
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> Self {
        End::from(error).into()
    }
}
