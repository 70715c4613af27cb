//! The way into the daemon.

use std::io;
use std::os::unix::net::UnixStream;

/// Whom a connection is served for, as the bus daemon tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Process when it connected to the bus; 0 when the bus does not tell.
    pub pid: i32,
}

/// The daemon, as the gateway sees it.
pub trait Door: Send + Sync {
    /// Serves `socket`, the daemon's end of a pair, as an accepted connection of `peer`.
    ///
    /// The gateway may keep another descriptor of the same end, to end the connection by shutting
    /// it down: the daemon has to do the same when it drops a connection, as closing is not enough
    /// for the peer to notice.
    ///
    /// # Errors
    /// When the daemon takes no connection now.
    fn serve(&self, socket: UnixStream, peer: Credentials) -> io::Result<()>;
}
