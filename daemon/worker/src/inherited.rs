//! The one door to the descriptor that the broker left for this process.
#![allow(
    unsafe_code,
    reason = "the one unsafe door for an inherited descriptor"
)]

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{UnixAddr, getpeername};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Why a descriptor is not the broker's socket.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// It is not open, or not a connected Unix socket.
    #[error("it is not a connected Unix socket")]
    NotASocket(#[source] Errno),
    /// It cannot be kept from the children of vendor libraries.
    #[error("it cannot be made close-on-exec")]
    CloseOnExec(#[source] Errno),
}

/// Takes over the connected Unix socket at `fd`. Called once, at the start of the process.
pub fn socket(fd: RawFd) -> Result<UnixStream, InheritError> {
    getpeername::<UnixAddr>(fd).map_err(InheritError::NotASocket)?;
    // SAFETY: the descriptor is open (the call above answered for it), and the broker's protocol
    // leaves it to this process alone: nothing else in it knows the number, and this is called
    // once, before any thread or library starts.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(InheritError::CloseOnExec)?;
    Ok(UnixStream::from(owned))
}
