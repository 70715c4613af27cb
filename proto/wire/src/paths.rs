//! Where the daemon listens.

use std::path::PathBuf;

/// Environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "MOTE_SOCKET";
/// The system daemon's socket.
pub const SYSTEM_SOCKET: &str = "/run/mote/mote.sock";

/// The socket of this user's daemon: `MOTE_SOCKET`, or else `$XDG_RUNTIME_DIR/mote/mote.sock`, or
/// else the system's.
pub fn user_socket() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match (variable(SOCKET_VARIABLE), variable("XDG_RUNTIME_DIR")) {
        (Some(path), _) => path.into(),
        (None, Some(folder)) => PathBuf::from(folder).join("mote/mote.sock"),
        (None, None) => SYSTEM_SOCKET.into(),
    }
}
