//! A private bus, and on it what passes for power-profiles-daemon, UPower and logind.

use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use zbus::message::{Message, Type};
use zbus::{Connection, Fd, MessageStream, Variant};

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const PROFILES: (&str, &str) = ("/net/hadess/PowerProfiles", "net.hadess.PowerProfiles");
const UPOWER: (&str, &str) = ("/org/freedesktop/UPower", "org.freedesktop.UPower");
const BATTERY: (&str, &str) = (
    "/org/freedesktop/UPower/devices/DisplayDevice",
    "org.freedesktop.UPower.Device",
);
const LOGIN: (&str, &str) = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager");
const NAMES: [&str; 3] = [
    "net.hadess.PowerProfiles",
    "org.freedesktop.UPower",
    "org.freedesktop.login1",
];

/// A `dbus-daemon`; it is killed when this value is dropped.
pub struct Bus {
    child: Child,
    folder: tempfile::TempDir,
}

impl Bus {
    /// Nothing where `dbus-daemon` is not installed.
    pub fn start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("folder");
        let config = folder.path().join("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
             <busconfig><type>system</type><listen>unix:path={}/bus</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>",
            folder.path().display()
        );
        std::fs::write(&config, text).expect("file");
        let child = Command::new("dbus-daemon")
            .arg("--config-file")
            .arg(&config)
            .args(["--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: dbus-daemon cannot be started: {error}");
                return None;
            }
        };
        // It prints its address when it listens.
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is a pipe");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("it tells");
        assert!(!line.is_empty(), "dbus-daemon ended");
        Some(Self { child, folder })
    }

    pub fn address(&self) -> String {
        format!("unix:path={}/bus", self.folder.path().display())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the peers are to do.
enum Act {
    Change((&'static str, &'static str), &'static str, Variant<'static>),
    Sleep(bool),
    /// Say to everyone who has asked anything, under no name at all, that the machine sleeps.
    Forge,
    Leave,
}

#[derive(Default)]
struct Seen {
    /// The other ends of locks.
    locks: Vec<UnixStream>,
    /// What was said when they were asked for.
    arguments: Vec<(String, String, String, String)>,
    callers: Vec<String>,
}

/// The peers.
pub struct Peers {
    acts: mpsc::UnboundedSender<Act>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Peers {
    pub fn start(bus: &Bus) -> Self {
        let (acts, inbox) = mpsc::unbounded_channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (address, of_thread) = (bus.address(), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().expect("runtime");
            runtime.block_on(async {
                let stage = Stage::set(&address, of_thread).await;
                ready.send(()).expect("the test waits");
                stage.play(inbox).await;
            });
        });
        is_ready.recv().expect("the peers are on the bus");
        Self {
            acts,
            seen,
            thread: Some(thread),
        }
    }

    fn act(&self, act: Act) {
        self.acts
            .send(act)
            .unwrap_or_else(|_| panic!("the peers live"));
    }

    pub fn set_profile(&self, profile: &'static str) {
        self.act(Act::Change(PROFILES, "ActiveProfile", profile.into()));
    }

    pub fn set_on_battery(&self, on_battery: bool) {
        self.act(Act::Change(UPOWER, "OnBattery", on_battery.into()));
    }

    pub fn set_percent(&self, percent: f64) {
        self.act(Act::Change(BATTERY, "Percentage", percent.into()));
    }

    pub fn prepare_for_sleep(&self, sleeps: bool) {
        self.act(Act::Sleep(sleeps));
    }

    pub fn forge_sleep(&self) {
        self.act(Act::Forge);
    }

    /// Locks that are held at present.
    pub fn locks_held(&self) -> usize {
        let seen = self.seen.lock().expect("no panic");
        let is_held = |lock: &&UnixStream| {
            let mut byte = [0];
            let mut lock: &UnixStream = lock;
            matches!(lock.read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        };
        seen.locks.iter().filter(is_held).count()
    }

    /// What locks were asked for, all in all.
    pub fn locks_asked_for(&self) -> Vec<(String, String, String, String)> {
        self.seen.lock().expect("no panic").arguments.clone()
    }

    /// All peers leave the bus.
    pub fn leave(mut self) {
        self.act(Act::Leave);
        let thread = self.thread.take().expect("it was started");
        thread.join().expect("no panic");
    }
}

type Values = BTreeMap<&'static str, Variant<'static>>;

struct Stage {
    connection: Connection,
    other: Connection,
    messages: MessageStream,
    objects: BTreeMap<(&'static str, &'static str), Values>,
    seen: Arc<Mutex<Seen>>,
}

impl Stage {
    async fn set(address: &str, seen: Arc<Mutex<Seen>>) -> Self {
        let connect = || zbus::connection::Builder::address(address).build();
        let connection = connect().await.expect("a connection");
        let messages = MessageStream::from(&connection);
        let bus = "org.freedesktop.DBus";
        for name in NAMES {
            let place = "/org/freedesktop/DBus";
            let arguments = (name, 4u32);
            let owned =
                connection.call_method(Some(bus), place, Some(bus), "RequestName", &arguments);
            let code: u32 = owned
                .await
                .expect("an answer")
                .body()
                .deserialize()
                .expect("u");
            assert_eq!(code, 1, "{name} is ours");
        }
        let values = |values: &[(&'static str, Variant<'static>)]| {
            let pairs = values
                .iter()
                .map(|(name, value)| (*name, value.try_clone().expect("plain")));
            pairs.collect::<Values>()
        };
        let objects = [
            (PROFILES, values(&[("ActiveProfile", "balanced".into())])),
            (UPOWER, values(&[("OnBattery", false.into())])),
            (
                BATTERY,
                values(&[("Percentage", 90.0.into()), ("IsPresent", true.into())]),
            ),
        ];
        Self {
            other: connect().await.expect("a connection"),
            connection,
            messages,
            objects: objects.into(),
            seen,
        }
    }

    async fn play(mut self, mut acts: mpsc::UnboundedReceiver<Act>) {
        loop {
            tokio::select! {
                message = self.messages.next() => {
                    let message = message.expect("the bus lives").expect("in order");
                    if message.message_type() == Type::MethodCall {
                        self.answer(&message).await;
                    }
                }
                act = acts.recv() => match act {
                    Some(Act::Change(place, name, value)) => self.change(place, name, value).await,
                    Some(Act::Sleep(sleeps)) => {
                        let signal = Message::signal(LOGIN.0, LOGIN.1, "PrepareForSleep").build(&sleeps);
                        self.connection.send(&signal.expect("plain")).await.expect("it is sent");
                    }
                    Some(Act::Forge) => self.forge().await,
                    Some(Act::Leave) | None => return,
                },
            }
        }
    }

    async fn answer(&self, call: &Message) {
        let header = call.header();
        let caller = header.sender().expect("the bus adds it").to_string();
        self.seen.lock().expect("no panic").callers.push(caller);
        let answer = Message::method_return(&header);
        let member = header.member().map(ToString::to_string);
        let path = header.path().map(ToString::to_string).unwrap_or_default();
        let answer = match member.as_deref() {
            Some("GetAll") => {
                let interface: String = call.body().deserialize().expect("s");
                let place = self
                    .objects
                    .iter()
                    .find(|(place, _)| **place == (&*path, &*interface));
                let (_, values) = place.unwrap_or_else(|| panic!("{path} {interface}"));
                answer.build(values)
            }
            Some("Inhibit") => {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                ours.set_nonblocking(true).expect("a socket");
                let mut seen = self.seen.lock().expect("no panic");
                seen.locks.push(ours);
                seen.arguments
                    .push(call.body().deserialize().expect("ssss"));
                answer.build(&Fd::from(OwnedFd::from(theirs)))
            }
            other => panic!("{path} {other:?}"),
        };
        let answer = answer.expect("it fits");
        self.connection.send(&answer).await.expect("it is sent");
    }

    async fn change(
        &mut self,
        place: (&'static str, &'static str),
        name: &'static str,
        value: Variant<'static>,
    ) {
        let again = value.try_clone().expect("plain");
        self.objects.entry(place).or_default().insert(name, again);
        let changed = (place.1, Values::from([(name, value)]), Vec::<String>::new());
        let signal = Message::signal(place.0, PROPERTIES, "PropertiesChanged").build(&changed);
        self.connection
            .send(&signal.expect("plain"))
            .await
            .expect("it is sent");
    }

    async fn forge(&self) {
        let callers = self.seen.lock().expect("no panic").callers.clone();
        assert!(!callers.is_empty());
        for caller in callers {
            let signal = Message::signal(LOGIN.0, LOGIN.1, "PrepareForSleep")
                .destination(caller.as_str())
                .build(&true);
            self.other
                .send(&signal.expect("plain"))
                .await
                .expect("it is sent");
        }
    }
}
