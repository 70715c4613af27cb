//! Noticing that a connection has ended without reading from it.
#![allow(
    unsafe_code,
    reason = "tokio cannot see that a shared descriptor stays open"
)]

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Returns when the peer of `socket` has closed its end, or the connection was shut down. What
/// travels on it wakes nobody here: only urgent data is waited for, of which there is none.
///
/// # Errors
/// When the socket cannot be watched.
pub async fn hung_up(socket: Arc<UnixStream>) -> io::Result<()> {
    // SAFETY: the descriptor must stay open and the same as long as the registration lives. The
    // registration owns a share of the stream, which nobody can take apart or close before.
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::PRIORITY) }?;
    loop {
        let mut ready = socket.ready(Interest::PRIORITY).await?;
        if ready.ready().is_read_closed() {
            return Ok(());
        }
        ready.clear_ready();
    }
}
