//! The wire of Mote: frames over Unix sockets, file descriptors, limits, versions, and the messages
//! as plain Rust types.
//!
//! Layers, from the socket up:
//! - [`Connection`], [`MemoryConnection`] and (with feature `async`) [`AsyncSender`] and
//!   [`AsyncReceiver`] carry [`Frame`]s,
//! - [`FrameDecoder`] cuts frames out of a byte stream and gives each its descriptors,
//! - [`codec`] turns frames into the plain [`types`] and back, and refuses what does not hold.
//!
//! Generated protobuf types never leave this crate.
#![deny(unsafe_code)]

#[cfg(feature = "async")]
mod asynchronous;
pub mod codec;
mod connection;
mod convert;
mod decoder;
mod error;
mod fds;
mod frame;
pub mod limits;
mod memfd;
mod memory;
mod outline;
pub mod paths;
pub mod types;

#[cfg(feature = "async")]
pub use asynchronous::{AsyncReceiver, AsyncSender, Room, async_connection};
pub use codec::{
    command_to_frame, event_to_frame, frame_to_command, frame_to_event, frame_to_reply,
    frame_to_request, negotiate, reply_to_frame, request_to_frame,
};
pub use connection::{Connection, RecvHalf, SendHalf, Transport};
pub use decoder::FrameDecoder;
pub use error::{EncodeError, Refusal, WireError};
pub use fds::check_sealed;
pub use frame::{Frame, Link, PREFIX_BYTES_MAX};
pub use memfd::{Memfd, scratch};
pub use memory::MemoryConnection;

/// Generated from `schema/`.
#[allow(
    clippy::all,
    clippy::pedantic,
    reason = "generated code follows its generator's taste"
)]
mod pb {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));

    pub(crate) use mote::v1::*;
    pub(crate) use mote::worker::v1 as worker;
}
