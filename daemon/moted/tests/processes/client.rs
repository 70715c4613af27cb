//! A daemon process and plain clients for it.

use crate::worker::{FRAIL, PLAIN};
use mote_wire::codec::{frame_to_reply, request_to_frame};
use mote_wire::types::{
    Generate, Hello, Prompt, Reply, Request, Status, StatusReport, WorkOptions,
};
use mote_wire::{Connection, Link};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes long; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const MODELS: [&str; 7] = [
    "plain",
    "slow",
    "dies-once",
    "dies",
    "hangs",
    "deaf",
    ON_DEVICE,
];
/// The one that runs on a device first.
pub const ON_DEVICE: &str = "on-device";

/// Waits for something that comes about in another process.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Daemon {
    child: Option<Child>,
    root: tempfile::TempDir,
}

impl Daemon {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Starts it with more arguments or variables than the usual.
    pub fn start_with(change: impl FnOnce(&mut Command)) -> Self {
        let daemon = Self::prepare();
        let mut command = daemon.command();
        change(&mut command);
        let daemon = daemon.started_by(&mut command);
        let socket = daemon.socket();
        eventually("the socket is there", || {
            UnixStream::connect(&socket).is_ok()
        });
        daemon
    }

    /// Its folders, and no process yet.
    pub fn prepare() -> Self {
        let root = tempfile::tempdir().expect("folder");
        for name in MODELS {
            let folder = root.path().join("store").join(name);
            std::fs::create_dir_all(&folder).expect("folder");
            let providers = match name {
                ON_DEVICE => format!("\"{PLAIN}\", \"{FRAIL}\""),
                _ => format!("\"{PLAIN}\""),
            };
            let manifest = format!(
                "format = 1\nname = \"{name}\"\ntask = \"tensor\"\n[[variant]]\nname = \"v\"\n\
                 backend = \"tract\"\nfile = \"m.onnx\"\nprecision = \"f32\"\n\
                 providers = [{providers}]\n"
            );
            std::fs::write(folder.join("mote.toml"), manifest).expect("file");
            std::fs::write(folder.join("m.onnx"), "no model").expect("file");
        }
        Self { child: None, root }
    }

    pub fn started_by(mut self, command: &mut Command) -> Self {
        self.child = Some(command.spawn().expect("moted starts"));
        self
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it lives");
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it was started");
        child.wait().expect("it ends")
    }

    /// The daemon's program with this daemon's arguments.
    pub fn command(&self) -> Command {
        let root = self.root.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moted"));
        command
            .arg("--socket")
            .arg(self.socket())
            .arg("--store")
            .arg(root.join("store"))
            .arg("--runtimes")
            .arg(root.join("runtimes"))
            // The stand-ins for workers know nothing of trials.
            .args(["--choose", "ranked"])
            .arg("--state-dir")
            .arg(root.join("state"))
            .arg("--worker")
            .arg(std::env::current_exe().expect("this program"))
            .args([
                "--budget-bytes",
                "1000000000",
                "--exit-on-stdin-close",
                "--log-level",
                "off",
            ])
            .stdin(Stdio::piped());
        command
    }

    pub fn socket(&self) -> PathBuf {
        self.root.path().join("run/mote.sock")
    }

    pub fn runtimes(&self) -> PathBuf {
        self.root.path().join("runtimes")
    }

    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.id() as i32)
    }

    /// Open descriptors, once what has ended is put away.
    pub fn settled_descriptors(&self) -> usize {
        let count = || {
            let listing = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
            listing.expect("it lives").count()
        };
        let (mut last, mut same) = (count(), 0);
        while same < 10 {
            std::thread::sleep(Duration::from_millis(10));
            let now = count();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    pub fn client(&self) -> Client {
        Client::new(&self.socket())
    }

    /// Ends it by a signal.
    pub fn stop(mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().expect("it was started");
        kill(Pid::from_raw(child.id() as i32), signal).expect("it lives");
        let status = child.wait().expect("it ends");
        assert_eq!(
            self.socket().exists(),
            signal == Signal::SIGKILL,
            "the socket's file"
        );
        status
    }

    /// Ends it by closing its standard input.
    pub fn leave(mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it was started");
        drop(child.stdin.take());
        child.wait().expect("it ends")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; who reaps it is not the daemon's business once that has ended, too.
    !stat.is_empty() && !stat.contains(") Z ")
}

pub struct Client {
    pub connection: Connection,
    next: u64,
}

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self::over(UnixStream::connect(socket).expect("the daemon listens"))
    }

    pub fn over(socket: UnixStream) -> Self {
        let mut client = Self::silent_over(socket);
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            client_name: "test".into(),
        };
        let id = client.ask(Request::Hello(hello));
        assert!(matches!(client.next(id), Reply::Welcome(_)));
        client
    }

    /// One that has not said hello.
    pub fn silent(socket: &Path) -> Self {
        Self::silent_over(UnixStream::connect(socket).expect("the daemon listens"))
    }

    fn silent_over(socket: UnixStream) -> Self {
        let mut connection = Connection::new(socket, Link::Client);
        connection.set_read_timeout(Some(PATIENCE));
        Self {
            connection,
            next: 1,
        }
    }

    pub fn ask(&mut self, request: Request) -> u64 {
        let id = self.next;
        self.next += 1;
        let frame = request_to_frame(id, request).expect("it fits");
        self.connection.send(frame).expect("the daemon listens");
        id
    }

    /// The next answer, which must be to this request.
    pub fn next(&mut self, id: u64) -> Reply {
        let frame = self
            .connection
            .recv()
            .expect("in order")
            .expect("an answer");
        let (of, reply) = frame_to_reply(frame).expect("the daemon speaks the wire");
        assert_eq!(of, id, "{reply:?}");
        reply
    }

    /// The answers to a request up to the last, without progress.
    pub fn all(&mut self, id: u64) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            let reply = self.next(id);
            let closes = reply.closes();
            if !matches!(reply, Reply::Progress(_) | Reply::Accepted { .. }) {
                replies.push(reply);
            }
            if closes {
                return replies;
            }
        }
    }

    pub fn failure(&mut self, id: u64) -> Status {
        match self.all(id).pop() {
            Some(Reply::Failed(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for this many tokens.
    pub fn tokens(&mut self, id: u64, count: u32) {
        let mut seen = 0;
        while seen < count {
            seen += u32::from(matches!(self.next(id), Reply::Token(_)));
        }
    }

    pub fn generate(&mut self, model: &str) -> u64 {
        self.ask(Request::Generate(Box::new(Generate {
            options: WorkOptions {
                credit: 256,
                ..WorkOptions::default()
            },
            ..Generate::new(model, Prompt::Plain("hello".into()))
        })))
    }

    pub fn status(&mut self) -> StatusReport {
        let id = self.ask(Request::GetStatus);
        match self.next(id) {
            Reply::StatusReport(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the daemon has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        loop {
            match self.connection.recv() {
                Ok(Some(_)) => {}
                Ok(None) | Err(mote_wire::WireError::Receive(_)) => return true,
                Err(_) => return false,
            }
        }
    }
}

impl From<Connection> for Client {
    fn from(mut connection: Connection) -> Self {
        connection.set_read_timeout(Some(PATIENCE));
        Self {
            connection,
            next: 1,
        }
    }
}
