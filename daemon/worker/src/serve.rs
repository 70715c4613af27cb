//! The worker process: arguments, handshake, threads.

use crate::BUILD_ID;
use crate::engine::{Engine, Running};
use crate::link::{Link, LinkError};
use crate::probe;
use crate::registry::Open;
use clap::Parser;
use mote_wire::types::{Command, WorkerEvent};
use mote_wire::{Connection, RecvHalf, Refusal, frame_to_command};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{SyncSender, sync_channel};

/// The descriptor at which a worker finds its end of the broker's socket pair.
pub const SOCKET_FD: RawFd = 3;
/// Commands read ahead of the engine.
const COMMANDS_MAX: usize = 256;

/// Arguments of a worker.
#[derive(Debug, Parser)]
#[command(
    name = "mote-worker",
    version,
    about = "Runs one model for moted; not run by hand"
)]
pub struct Options {
    /// Descriptor of the broker's socket
    #[arg(long, default_value_t = SOCKET_FD)]
    pub socket_fd: RawFd,
    /// Tell what the runtime in FLAVOUR_FOLDER can do here, and leave
    #[arg(long)]
    pub probe: bool,
    /// Folder of the runtime to probe; without one the built-in runtime is probed
    #[arg(long)]
    pub flavour_folder: Option<PathBuf>,
}

/// Why a worker ended badly.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Started by hand.
    #[error("descriptor {fd} is not a socket: mote-worker is started by moted, not by hand")]
    NoBroker {
        /// The descriptor.
        fd: RawFd,
        /// The system's reason.
        #[source]
        cause: crate::inherited::InheritError,
    },
    /// The worker cannot be tied to its broker's life.
    #[error("cannot ask to end with the broker")]
    ParentDeath(#[source] nix::errno::Errno),
    /// The broker could not be told something.
    #[error("lost the broker")]
    Link(#[from] LinkError),
}

/// Runs a worker with the backends that `open` knows.
pub fn main_with(open: Open) -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let options = Options::parse();
    match serve(&options, open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", crate::status::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options, open: Open) -> Result<(), WorkerError> {
    let fd = options.socket_fd;
    let connection =
        crate::inherited::socket(fd).map_err(|cause| WorkerError::NoBroker { fd, cause })?;
    let connection = Connection::new(connection, mote_wire::Link::Worker);
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(WorkerError::ParentDeath)?;
    let (sender, receiver) = connection.split();
    let link = Link::new(sender);
    let pid = nix::unistd::getpid().as_raw();
    link.send(WorkerEvent::Hello {
        build_id: BUILD_ID.to_owned(),
        pid,
    })?;
    if options.probe {
        return Ok(probe::probe(
            options.flavour_folder.as_deref(),
            open,
            &link,
        )?);
    }
    let (commands, inbox) = sync_channel(COMMANDS_MAX);
    let running = Running::default();
    let cancels = running.clone();
    std::thread::spawn(move || read(receiver, &commands, &cancels));
    Engine::new(link, open, running).run(&inbox)?;
    // Streams may still be in a run of a library that cannot be told to stop: leave without
    // waiting for them, as a kill would.
    std::process::exit(0);
}

/// Reads commands until the broker is gone. Cancels act at once; everything else in its turn.
fn read(mut receiver: RecvHalf, commands: &SyncSender<Command>, running: &Running) {
    loop {
        let frame = match receiver.recv() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                log::error!(
                    "cannot read from the broker: {}",
                    crate::status::chain(&error)
                );
                break;
            }
        };
        let command = match frame_to_command(frame) {
            Ok(command) => command,
            Err(Refusal { status, .. }) => {
                log::error!("the broker sent a command that does not hold: {status}");
                break;
            }
        };
        if let Command::CancelJob { job } = command {
            running.cancel(job);
        }
        if commands.send(command).is_err() {
            break;
        }
    }
    // Whatever the engine is doing, nobody is left to hear of it.
    std::process::exit(0);
}
