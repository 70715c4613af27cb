//! Where the daemon listens.

use std::path::PathBuf;

/// Environment variable that names the socket.
pub const SOCKET_VARIABLE: &str = "MOTE_SOCKET";
/// The system daemon's socket.
pub const SYSTEM_SOCKET: &str = "/run/mote/mote.sock";

/// The socket of the daemon that there is: as [`user_socket`], except that the system's daemon is
/// taken when this user has none.
pub fn daemon_socket() -> PathBuf {
    let user = user_socket();
    let is_named = std::env::var_os(SOCKET_VARIABLE).is_some_and(|value| !value.is_empty());
    let system = PathBuf::from(SYSTEM_SOCKET);
    if !is_named && !user.exists() && system.exists() {
        system
    } else {
        user
    }
}

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
