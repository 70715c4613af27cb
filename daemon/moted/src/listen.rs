//! The socket file: made safely, removed on the way out.

use crate::session::Credentials;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Access to a folder made for the socket: this user's alone.
const FOLDER_MODE: u32 = 0o700;
/// Access to a user's socket.
const USER_SOCKET_MODE: u32 = 0o600;
/// Access to the system's socket: its group's members may connect.
const SYSTEM_SOCKET_MODE: u32 = 0o660;

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum ListenError {
    #[error("a daemon is listening on {} already", socket.display())]
    AlreadyRunning { socket: PathBuf },
    #[error("{} is there and is no socket", socket.display())]
    NotASocket { socket: PathBuf },
    #[error("cannot make the folder {}", folder.display())]
    Folder {
        folder: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("cannot remove the socket {} that a daemon left behind", socket.display())]
    Stale {
        socket: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("what the service manager listens on is not to be had")]
    Inherit(#[source] io::Error),
    #[error("cannot listen on {}", socket.display())]
    Bind {
        socket: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// A socket that is listened on; its file goes with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, to remove no other's.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Makes the socket file, and its folder if need be. One that a dead daemon left is replaced.
    ///
    /// # Errors
    /// When a daemon answers there, or the file cannot be made.
    pub fn bind(socket: &Path) -> Result<Self, ListenError> {
        let path = socket.to_path_buf();
        let folder = match socket.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let in_folder = |cause| ListenError::Folder {
            folder: folder.to_path_buf(),
            cause,
        };
        if !folder.is_dir() {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(FOLDER_MODE)
                .create(folder)
                .map_err(in_folder)?;
        }
        // Of two daemons that start at once, one waits here and then meets the other's socket.
        let opened = File::open(folder).map_err(in_folder)?;
        let _alone = Flock::lock(opened, FlockArg::LockExclusive)
            .map_err(|(_, errno)| in_folder(errno.into()))?;
        clear(socket)?;
        let bind = |cause| ListenError::Bind {
            socket: path.clone(),
            cause,
        };
        let listener = UnixListener::bind(socket).map_err(bind)?;
        let mode = if socket == Path::new(mote_wire::paths::SYSTEM_SOCKET) {
            SYSTEM_SOCKET_MODE
        } else {
            USER_SOCKET_MODE
        };
        std::fs::set_permissions(socket, Permissions::from_mode(mode)).map_err(bind)?;
        let identity = identity(socket);
        Ok(Self {
            listener,
            path,
            identity,
        })
    }

    /// Takes the socket that the service manager listens on; its file is not ours.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn inherit(listener: std::os::unix::net::UnixListener) -> Result<Self, ListenError> {
        let inherit = ListenError::Inherit;
        listener.set_nonblocking(true).map_err(inherit)?;
        let address = listener.local_addr().map_err(inherit)?;
        let path = address.as_pathname().unwrap_or(Path::new("")).to_path_buf();
        Ok(Self {
            listener: UnixListener::from_std(listener).map_err(inherit)?,
            path,
            identity: None,
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for a client.
    ///
    /// # Errors
    /// When the system has no more descriptors or memory; trying again at once is of no use.
    pub async fn accept(&self) -> io::Result<(UnixStream, Credentials)> {
        let (socket, _) = self.listener.accept().await?;
        let socket = socket.into_std()?;
        let peer = getsockopt(&socket, PeerCredentials)?;
        Ok((
            socket,
            Credentials {
                uid: peer.uid(),
                pid: peer.pid(),
            },
        ))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nothing to be done about a file that will not go.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Removes what a dead daemon left.
fn clear(socket: &Path) -> Result<(), ListenError> {
    let path = || socket.to_path_buf();
    let Ok(meta) = std::fs::symlink_metadata(socket) else {
        return Ok(());
    };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket { socket: path() });
    }
    if UnixStream::connect(socket).is_ok() {
        return Err(ListenError::AlreadyRunning { socket: path() });
    }
    std::fs::remove_file(socket).map_err(|cause| ListenError::Stale {
        socket: path(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime")
    }

    #[test]
    fn a_live_daemon_is_left_alone_and_a_dead_ones_socket_replaced() {
        let _runtime = runtime();
        let _entered = _runtime.enter();
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("deep/mote.sock");
        let first = Listener::bind(&path).expect("nobody is there");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&path), USER_SOCKET_MODE);
        assert_eq!(mode(path.parent().expect("folder")), FOLDER_MODE);
        let second = Listener::bind(&path);
        assert!(
            matches!(second, Err(ListenError::AlreadyRunning { .. })),
            "{second:?}"
        );
        drop(first);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
        assert!(path.exists());
        let third = Listener::bind(&path).expect("the one before is dead");
        std::fs::remove_file(&path).expect("there");
        std::fs::write(&path, "not ours").expect("file");
        drop(third);
        assert!(path.exists());
        let fourth = Listener::bind(&path);
        assert!(
            matches!(fourth, Err(ListenError::NotASocket { .. })),
            "{fourth:?}"
        );
    }
}
