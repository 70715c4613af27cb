//! Starts a worker process with one end of a socket pair as its descriptor 3: the one unsafe door
//! of the broker.
#![allow(unsafe_code, reason = "the one door for code between fork and exec")]

use super::group::{Group, Groups};
use crate::service;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

/// Where a worker finds its socket.
const SOCKET_FD: RawFd = 3;

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No socket pair.
    #[error("cannot make a socket pair")]
    SocketPair(#[source] io::Error),
    /// No pipe for its output.
    #[error("cannot make a pipe")]
    Pipe(#[source] io::Error),
    /// No process.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
}

/// A process that was started.
#[derive(Debug)]
pub struct Launched {
    /// The process, alone in its process group; killed when this is dropped.
    pub child: Child,
    /// Our end of its socket.
    pub socket: UnixStream,
    /// What it writes to stdout and stderr.
    pub output: pipe::Receiver,
    /// Its control group, where it has one; to be dropped when the process has ended.
    pub group: Option<Group>,
}

/// Starts processes of one program.
#[derive(Debug)]
pub struct Launcher {
    program: PathBuf,
    /// Whether workers are kept in their sandbox.
    sandbox: bool,
    groups: Option<Groups>,
    /// Keeps number 3 taken in this process, so that between fork and exec it is nothing the
    /// standard library needs.
    _reserved: OwnedFd,
}

impl Launcher {
    /// For a program.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn new(program: PathBuf, sandbox: bool) -> io::Result<Self> {
        // The lowest free number; the standard library has seen to it that 0 to 2 are taken.
        let reserved = std::fs::File::open("/dev/null")?.into();
        Ok(Self {
            program,
            sandbox,
            groups: Groups::find(),
            _reserved: reserved,
        })
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A group of its own for a process that has not been told anything yet.
    fn group_for(&self, child: &Child) -> Option<Group> {
        let pid = child.id()?;
        let made = self.groups.as_ref()?.make();
        let taken = made.and_then(|group| group.take(pid).map(|()| group));
        taken
            .inspect_err(|error| log::warn!("a worker has no control group of its own: {error}"))
            .ok()
    }

    /// Starts a process. It dies with this one, or rather with the thread that calls this: call it
    /// on the main thread.
    ///
    /// # Errors
    /// When the system has no more descriptors or processes, or there is no such program.
    pub fn launch(&self, arguments: &[OsString]) -> Result<Launched, LaunchError> {
        let (socket, worker_socket) = UnixStream::pair().map_err(LaunchError::SocketPair)?;
        let pipe = || -> io::Result<(pipe::Receiver, OwnedFd, OwnedFd)> {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            let output = pipe::Receiver::from_owned_fd(read)?;
            Ok((output, write.try_clone()?, write))
        };
        let (output, stdout, stderr) = pipe().map_err(LaunchError::Pipe)?;
        let mut command = Command::new(&self.program);
        for name in service::VARIABLES {
            command.env_remove(name);
        }
        if !self.sandbox {
            command.env("MOTE_SANDBOX", "off");
        }
        command
            .arg("--socket-fd")
            .arg(SOCKET_FD.to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true);
        let broker = nix::unistd::getpid();
        let worker_socket = OwnedFd::from(worker_socket);
        let prepare = move || -> io::Result<()> {
            debug_assert_ne!(worker_socket.as_raw_fd(), SOCKET_FD);
            // SAFETY: in the child, number 3 is either free or the copy of a descriptor that
            // nothing uses between here and exec: `_reserved` or, where number 3 was taken before
            // `Launcher::new`, one inherited by the broker. `OwnedFd` is given up at once.
            let fd = unsafe { nix::unistd::dup2_raw(&worker_socket, SOCKET_FD) }?;
            let _: RawFd = fd.into_raw_fd();
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The broker may have died before the line above took effect.
            if nix::unistd::getppid() != broker {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        };
        // SAFETY: `prepare` calls dup2, prctl and getppid only, which are async-signal-safe; it
        // allocates nothing and takes no lock.
        unsafe { command.pre_exec(prepare) };
        let spawned = command.spawn();
        let child = spawned.map_err(|cause| LaunchError::Spawn {
            program: self.program.clone(),
            cause,
        })?;
        Ok(Launched {
            group: self.group_for(&child),
            child,
            socket,
            output,
        })
    }
}
