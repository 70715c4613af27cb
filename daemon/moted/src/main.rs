//! `moted`: the broker.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::Parser;
use mote_api::Paths;
use mote_dbus::BusAddress;
use moted::bus::BusOptions;
use moted::core::{Choose, TrialLimits};
use moted::daemon::{self, Options};
use moted::limits::{COMPILED_BYTES_MAX, IDLE_UNLOAD_MS, PROBE_LIMIT_MS, STEP_LIMIT_MS};
use moted::policy::power::Setting;
use moted::power::PowerOptions;
use moted::service::{self, Order};
use moted::{logging, machine};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// Orders that wait for the daemon.
const ORDERS_MAX: usize = 8;

/// Inference daemon: runs models for local programs
#[derive(Debug, Parser)]
#[command(name = "moted", version)]
struct Arguments {
    /// Socket to listen on [default: the user's]
    #[arg(long, env = "MOTE_SOCKET")]
    socket: Option<PathBuf>,
    /// Model store; may be given several times, the first counts most
    #[arg(long = "store", value_name = "FOLDER")]
    stores: Vec<PathBuf>,
    /// Folder of runtimes; may be given several times, the first counts most
    #[arg(long = "runtimes", value_name = "FOLDER")]
    runtimes: Vec<PathBuf>,
    /// Folder for what was found out about this machine
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// The mote-worker program [default: beside this one]
    #[arg(long, value_name = "FILE")]
    worker: Option<PathBuf>,
    /// Keep workers in their sandbox; off is for debugging
    #[arg(
        long,
        value_name = "on|off",
        env = "MOTE_SANDBOX",
        default_value = "on",
        value_enum
    )]
    sandbox: Sandbox,
    /// Memory that models may take together [default: 75 % of the machine's]
    #[arg(long, value_name = "BYTES")]
    budget_bytes: Option<u64>,
    /// Memory of a device that has its own, by the id that `mote devices` gives it: models on it count
    /// there and not in the machine's; may be given several times
    #[arg(long = "device-memory", value_name = "DEVICE=BYTES", value_parser = memory_of_device)]
    device_memory: Vec<(String, u64)>,
    /// Disk for what providers compile, in the cache folder, so that the next load is short; 0 keeps
    /// nothing
    #[arg(long, value_name = "BYTES", default_value_t = COMPILED_BYTES_MAX)]
    compiled_bytes: u64,
    /// Unload a model that was not used for this long
    #[arg(long, value_name = "MS", default_value_t = IDLE_UNLOAD_MS)]
    idle_unload_ms: u64,
    /// How long a probe of a runtime, or of one of its providers alone, may take
    #[arg(long, value_name = "MS", default_value_t = PROBE_LIMIT_MS)]
    probe_limit_ms: u64,
    /// How long jobs that run may go on at the end [default: 30000 under a service manager, else 0]
    #[arg(long, value_name = "MS")]
    drain_ms: Option<u64>,
    /// D-Bus to serve on: system, session, an address, or none
    #[arg(long, value_name = "BUS", default_value = "none")]
    bus: String,
    /// Model of a use, for callers on D-Bus that ask for use:chat; may be given several times
    #[arg(long = "use", value_name = "USE=MODEL", value_parser = use_of_model)]
    uses: Vec<(String, String)>,
    /// What work may cost: performance, balanced, efficient, or auto: as the machine's power profile,
    /// supply and temperatures say. Other than with auto, no service is asked, and sleep is not
    /// prepared for
    #[arg(long, value_name = "POLICY", default_value = "auto")]
    power: Setting,
    /// Whether ways to run a model are compared and measured before they are used, or taken in the
    /// order of what they are; the latter is for debugging
    #[arg(
        long,
        value_name = "measured|ranked",
        default_value = "measured",
        value_enum
    )]
    choose: How,
    /// Longest time of each part of a trial, and of a step on a device [default: minutes]
    #[arg(long, env = "MOTE_TRIAL_LIMIT_MS", value_name = "MS", hide = true)]
    trial_limit_ms: Option<u64>,
    /// Where sysfs is
    #[arg(
        long,
        env = "MOTE_SYSFS",
        value_name = "FOLDER",
        default_value = "/sys",
        hide = true
    )]
    sysfs: PathBuf,
    /// Leave when standard input is closed: for a daemon that belongs to one program
    #[arg(long)]
    exit_on_stdin_close: bool,
    /// error, warn, info, debug or trace
    #[arg(long, default_value = "info")]
    log_level: log::LevelFilter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Sandbox {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum How {
    Measured,
    Ranked,
}

impl Arguments {
    fn options(self) -> Options {
        let paths = Paths::from_env();
        let or = |given: Vec<PathBuf>, default| if given.is_empty() { default } else { given };
        Options {
            socket: self.socket.unwrap_or_else(mote_wire::paths::user_socket),
            stores: or(self.stores, paths.stores),
            runtimes: or(self.runtimes, paths.runtimes),
            state: self.state_dir.unwrap_or(paths.state),
            worker: self.worker.unwrap_or_else(machine::default_worker),
            sandbox: self.sandbox == Sandbox::On,
            budget_bytes: self
                .budget_bytes
                .unwrap_or_else(machine::default_budget_bytes),
            device_memory: self.device_memory.into_iter().collect(),
            idle_unload: Duration::from_millis(self.idle_unload_ms),
            probe_limit: Duration::from_millis(self.probe_limit_ms),
            drain: self.drain_ms.map(Duration::from_millis),
            bus: (self.bus != "none").then(|| BusOptions {
                address: BusAddress::from(self.bus.as_str()),
                uses: self.uses.into_iter().collect(),
            }),
            power: PowerOptions {
                setting: self.power,
                sysfs: self.sysfs,
            },
            choose: match self.choose {
                How::Measured => Choose::Measured,
                How::Ranked => Choose::Ranked,
            },
            trial_limits: self
                .trial_limit_ms
                .map_or_else(TrialLimits::default, |limit_ms| TrialLimits {
                    load_ms: limit_ms,
                    run_ms: limit_ms,
                }),
            step_limit_ms: self.trial_limit_ms.unwrap_or(STEP_LIMIT_MS),
            compiled: paths.cache.join("compiled"),
            compiled_bytes_max: self.compiled_bytes,
        }
    }
}

fn memory_of_device(text: &str) -> Result<(String, u64), String> {
    let (device, bytes) = text.split_once('=').ok_or("write it as gpu0=BYTES")?;
    let bytes = bytes
        .parse()
        .map_err(|error| format!("{bytes:?}: {error}"))?;
    Ok((device.to_owned(), bytes))
}

fn use_of_model(text: &str) -> Result<(String, String), &'static str> {
    let (name, model) = text.split_once('=').ok_or("write it as chat=MODEL")?;
    Ok((name.to_owned(), model.to_owned()))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    logging::start(arguments.log_level);
    machine::raise_descriptor_limit();
    let stdin_closed = arguments.exit_on_stdin_close.then(watch_stdin);
    let options = arguments.options();
    let inherited = service::inherited_listener().context("cannot take the inherited socket")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_millis(100))
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        follow_signals(orders.clone())?;
        if let Some(closed) = stdin_closed {
            tokio::spawn(async move {
                drop(closed.await);
                // Nobody listens when the daemon is ending already.
                let _ = orders.send(Order::Stop).await;
            });
        }
        // As a task of its own: what the runtime itself waits for is woken by a system call.
        let daemon = tokio::spawn(daemon::run(options, inherited, inbox));
        daemon
            .await
            .context("the daemon panicked")?
            .context("moted")
    })
}

/// Turns signals into orders. A hang-up is a wish to reload from a service manager, and the end of a
/// terminal from anybody else.
fn follow_signals(orders: mpsc::Sender<Order>) -> anyhow::Result<()> {
    let is_service = std::env::var_os("NOTIFY_SOCKET").is_some();
    let hung_up = if is_service {
        Order::Reload
    } else {
        Order::Stop
    };
    let signals = [
        (SignalKind::terminate(), Order::Stop, "SIGTERM"),
        (SignalKind::interrupt(), Order::Stop, "SIGINT"),
        (SignalKind::hangup(), hung_up, "SIGHUP"),
    ];
    for (kind, order, name) in signals {
        let mut stream = signal(kind).with_context(|| format!("cannot await {name}"))?;
        let orders = orders.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && orders.send(order).await.is_ok() {}
        });
    }
    Ok(())
}

/// Resolves when standard input ends. The thread sleeps in `read` until then, whatever kind of
/// file it is.
fn watch_stdin() -> oneshot::Receiver<()> {
    let (closed, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut chunk = [0; 256];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut chunk), Ok(read) if read > 0) {}
        // Nobody listens when the daemon is ending already.
        let _ = closed.send(());
    });
    end
}
