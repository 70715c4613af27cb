//! The worker process: arguments, handshake, threads.

use crate::BUILD_ID;
use crate::engine::{Engine, Running};
use crate::inbox::Inbox;
use crate::link::{Link, LinkError};
use crate::probe;
use crate::registry::{self, Open};
use crate::sandbox::{self, MODE_VARIABLE, Mode, Scope};
use crate::stream::Gates;
use clap::Parser;
use mote_api::Candidate;
use mote_wire::types::{Command, LoadModel, WorkerEvent};
use mote_wire::{Connection, Frame, RecvHalf, WireError, frame_to_command};
use std::io::Write;
use std::os::fd::RawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// The descriptor at which a worker finds its end of the broker's socket pair.
pub const SOCKET_FD: RawFd = 3;

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
    /// Probe this provider alone
    #[arg(long, requires = "probe")]
    pub provider: Option<String>,
    /// Whether to give up what the work does not need
    #[arg(long, env = MODE_VARIABLE, value_enum, default_value_t)]
    pub sandbox: Mode,
    /// Enter a sandbox without a model, print what holds of it as JSON, and leave
    #[arg(long)]
    pub report_sandbox: bool,
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
    /// The broker did not say what is to be loaded.
    #[error("cannot read from the broker")]
    Receive(#[from] WireError),
    /// The report cannot be printed.
    #[error("cannot print the report")]
    Report(#[source] std::io::Error),
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
    if options.report_sandbox {
        return report(options.sandbox);
    }
    let fd = options.socket_fd;
    let connection =
        crate::inherited::socket(fd).map_err(|cause| WorkerError::NoBroker { fd, cause })?;
    let connection = Connection::new(connection, mote_wire::Link::Worker);
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(WorkerError::ParentDeath)?;
    let (sender, mut receiver) = connection.split();
    let link = Link::new(sender);
    let pid = nix::unistd::getpid().as_raw();
    link.send(WorkerEvent::Hello {
        build_id: BUILD_ID.to_owned(),
        pid,
    })?;
    if options.probe {
        let wanted = probe::Wanted {
            folder: options.flavour_folder.as_deref(),
            provider: options.provider.as_deref(),
        };
        return Ok(probe::probe(&wanted, open, options.sandbox, &link)?);
    }
    // Before the first thread: Landlock binds only those that are made from here on.
    sandbox::enter(options.sandbox, &scope(&mut receiver)?);
    let running = Running::default();
    let gates = Gates::default();
    let inbox = Inbox::start(receiver, running.clone(), gates.clone());
    Engine::new(link, open, running, gates).run(&inbox)?;
    // Streams may still be in a run of a library that cannot be told to stop: leave without
    // waiting for them, as a kill would.
    std::process::exit(0);
}

/// What the first command, which is left where it is, has this process open. A broker that does not
/// begin with a model gets a process that can open none.
fn scope(receiver: &mut RecvHalf) -> Result<Scope, WireError> {
    let first = receiver.peek()?.filter(|frame| frame.fds.is_empty());
    let command = first.map(|frame| {
        frame_to_command(Frame {
            bytes: frame.bytes.clone(),
            fds: Vec::new(),
        })
    });
    Ok(match command {
        Some(Ok(Command::LoadModel(load))) => {
            make_compiled_folder(&load, false);
            Scope::of_load(&load)
        }
        Some(Ok(Command::TryModel { load, .. })) => {
            make_compiled_folder(&load, true);
            Scope::of_load(&load)
        }
        _ => Scope::default(),
    })
}

/// Makes the folder for what the provider compiles while that can still be done; a trial has the
/// library's profile there, too. Without it nothing is kept.
fn make_compiled_folder(load: &LoadModel, is_trial: bool) {
    let candidate = serde_json::from_slice::<Candidate>(&load.candidate_json);
    let keeps = candidate.is_ok_and(|it| registry::keeps_compiled(it.backend, &it.provider));
    if load.compiled_folder.is_empty() || !(keeps || is_trial) {
        return;
    }
    let mut folder = std::fs::DirBuilder::new();
    if let Err(error) = folder
        .recursive(true)
        .mode(0o700)
        .create(&load.compiled_folder)
    {
        log::warn!(folder = load.compiled_folder; "cannot keep what is compiled: {error}");
    }
}

fn report(mode: Mode) -> Result<(), WorkerError> {
    let sandbox = sandbox::enter(mode, &Scope::default());
    let printed = serde_json::to_string(&sandbox).map_err(std::io::Error::from);
    printed
        .and_then(|json| writeln!(std::io::stdout(), "{json}"))
        .map_err(WorkerError::Report)
}
