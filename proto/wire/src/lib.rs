//! The wire of Mote: frames over Unix sockets, file descriptors, limits, versions, and the messages
//! as plain Rust types.

pub mod limits;
pub mod paths;
pub mod types;
