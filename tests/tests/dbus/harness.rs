//! A bus of the test's own, a daemon on it, and callers.

use crate::common::{Model, write};
use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use mote_tests::daemon::{Daemon, Setup};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tokio::time::timeout;
use zbus::message::{Message, Type};
use zbus::{Connection, DynamicType, MessageStream, OwnedVariant, Variant};

pub const SERVICE: &str = "org.moted.Inference1";
pub const MANAGER: &str = "/org/moted/Inference1";
/// Nothing here takes long; what takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `options` of a call.
pub type Options<'a> = BTreeMap<&'a str, Variant<'a>>;
/// A received dictionary.
pub type Dict = BTreeMap<String, OwnedVariant>;

/// A private `dbus-daemon`; it is killed when this value is dropped.
pub struct Bus {
    child: Child,
    folder: tempfile::TempDir,
}

impl Bus {
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // Callers of other users connect, too.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let socket = folder.path().join("bus");
        let config = folder.path().join("bus.conf");
        std::fs::write(
            &config,
            format!(
                "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
                 \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
                 <busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
                 <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
                 <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>",
                socket.display()
            ),
        )?;
        let mut child = Command::new("dbus-daemon")
            .arg("--config-file")
            .arg(&config)
            .args(["--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start dbus-daemon: is it installed?")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        // It prints its address when it listens.
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(!line.is_empty(), "dbus-daemon ended");
        Ok(Self { child, folder })
    }

    pub fn address(&self) -> String {
        format!("unix:path={}", self.folder.path().join("bus").display())
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a program that finds this bus where it looks for any.
    pub fn run(&self, command: &mut Command) -> Result<Output> {
        command
            .env("DBUS_SESSION_BUS_ADDRESS", self.address())
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {:?}", command.get_program()))
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A daemon on a bus.
pub struct Stage {
    pub daemon: Daemon,
    pub bus: Bus,
    _store: tempfile::TempDir,
}

impl Stage {
    /// With scripted models.
    pub fn scripted(models: &[Model<'_>]) -> Result<Self> {
        let store = tempfile::tempdir()?;
        for model in models {
            write(store.path(), model)?;
        }
        let setup = Setup {
            stores: vec![store.path().into()],
            scripted: true,
            budget_bytes: Some(1 << 30),
            ..Setup::default()
        };
        Self::start(setup, store)
    }

    /// With the models and runtimes that were prepared.
    pub fn real(uses: &[&str]) -> Result<Self> {
        let setup = Setup {
            stores: vec![mote_tests::prepared("MOTE_TEST_MODELS")?],
            runtimes: vec![mote_tests::prepared("MOTE_RUNTIMES")?],
            uses: uses.iter().map(ToString::to_string).collect(),
            ..Setup::default()
        };
        Self::start(setup, tempfile::tempdir()?)
    }

    /// With the embedding model that is checked in.
    pub fn embedding() -> Result<Self> {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/embedding");
        let setup = Setup {
            stores: vec![models],
            runtimes: vec![mote_tests::prepared("MOTE_RUNTIMES")?],
            uses: vec!["search=tiny-bert".into()],
            ..Setup::default()
        };
        Self::start(setup, tempfile::tempdir()?)
    }

    /// With the models for clips that are checked in.
    pub fn clips() -> Result<Self> {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let setup = Setup {
            stores: vec![models.join("diffusion"), models.join("labels")],
            runtimes: vec![mote_tests::prepared("MOTE_RUNTIMES")?],
            choose: Some("ranked"),
            ..Setup::default()
        };
        Self::start(setup, tempfile::tempdir()?)
    }

    fn start(mut setup: Setup, store: tempfile::TempDir) -> Result<Self> {
        let bus = Bus::start()?;
        setup.bus = Some(bus.address());
        setup.uses.push("missing=no-such-model".into());
        let daemon = Daemon::start(&setup)?;
        let stage = Self {
            daemon,
            bus,
            _store: store,
        };
        Ok(stage)
    }

    /// A caller, once the service is on the bus.
    pub async fn caller(&self) -> Result<Caller> {
        let builder = zbus::connection::Builder::address(self.bus.address().as_str());
        let connection = builder.build().await?;
        let messages = MessageStream::from(&connection);
        let mut caller = Caller {
            connection,
            messages,
            signals: VecDeque::new(),
            answers_pings: true,
            pings: Vec::new(),
        };
        let bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
        loop {
            let has = caller
                .ask(bus, "org.freedesktop.DBus", "NameHasOwner", &SERVICE)
                .await??;
            if has.body().deserialize::<bool>()? {
                return Ok(caller);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Runs a test's own part.
pub fn with<F: Future<Output = Result<()>>>(test: F) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let limit = 5 * PATIENCE;
        timeout(limit, test).await.context("it hangs")?
    })
}

/// An error of the bus.
#[derive(Debug)]
pub struct Refused {
    pub name: String,
    pub message: String,
    pub fields: Dict,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {:?}", self.name, self.message, self.fields)
    }
}

impl std::error::Error for Refused {}

/// A connection to the bus.
pub struct Caller {
    connection: Connection,
    messages: MessageStream,
    signals: VecDeque<Message>,
    pub answers_pings: bool,
    /// Those that were not answered.
    pings: Vec<Message>,
}

impl Caller {
    /// Its unique name as an element of a path.
    pub fn element(&self) -> String {
        let name = self.connection.unique_name().map(ToString::to_string);
        name.unwrap_or_default().replace(':', "").replace('.', "_")
    }

    /// The next message that is no ping.
    pub async fn next(&mut self) -> Result<Message> {
        loop {
            let message = timeout(PATIENCE, self.messages.next()).await;
            let message = message
                .context("no message comes")?
                .context("the bus has gone")??;
            if message.message_type() != Type::MethodCall {
                return Ok(message);
            }
            self.pings.push(message);
            if self.answers_pings {
                self.answer_pings().await?;
            }
        }
    }

    /// Leaves the bus.
    pub async fn leave(self) -> Result<()> {
        drop(self.messages);
        Ok(self.connection.close().await?)
    }

    pub async fn answer_pings(&mut self) -> Result<()> {
        for ping in self.pings.drain(..) {
            let pong = Message::method_return(&ping.header()).build(&())?;
            self.connection.send(&pong).await?;
        }
        Ok(())
    }

    /// Sends a call and returns its serial.
    pub async fn send(
        &self,
        (service, path): (&str, &str),
        interface: &str,
        method: &str,
        body: &(impl serde::Serialize + DynamicType),
    ) -> Result<u32> {
        let message = Message::method_call(path, method)
            .destination(service)
            .interface(interface)
            .build(body)?;
        self.connection.send(&message).await?;
        Ok(message.primary_header().serial_num().get())
    }

    /// Calls a method; signals that come meanwhile are kept.
    pub async fn ask(
        &mut self,
        target: (&str, &str),
        interface: &str,
        method: &str,
        body: &(impl serde::Serialize + DynamicType),
    ) -> Result<Result<Message, Refused>> {
        let serial = self.send(target, interface, method, body).await?;
        loop {
            let message = self.next().await?;
            let header = message.header();
            if header.reply_serial().map(std::num::NonZeroU32::get) != Some(serial) {
                self.signals.push_back(message.clone());
                continue;
            }
            return Ok(match header.error_name() {
                None => Ok(message.clone()),
                Some(name) => Err(refused(name.as_str(), &message)),
            });
        }
    }

    /// Calls a method of an object of the service, by its interface's last word.
    pub async fn object(
        &mut self,
        (path, interface): (&str, &str),
        method: &str,
        body: &(impl serde::Serialize + DynamicType),
    ) -> Result<Result<Message, Refused>> {
        let interface = if interface.contains('.') {
            interface.to_owned()
        } else {
            format!("{SERVICE}.{interface}")
        };
        self.ask((SERVICE, path), &interface, method, body).await
    }

    /// Calls a method of the manager.
    pub async fn manager(
        &mut self,
        method: &str,
        body: &(impl serde::Serialize + DynamicType),
    ) -> Result<Result<Message, Refused>> {
        self.object((MANAGER, "Manager"), method, body).await
    }

    /// All properties of an object.
    pub async fn properties(&mut self, path: &str, interface: &str) -> Result<Dict> {
        let interface = format!("{SERVICE}.{interface}");
        let place = (path, "org.freedesktop.DBus.Properties");
        let reply = self.object(place, "GetAll", &interface).await??;
        Ok(reply.body().deserialize()?)
    }

    /// The next signal of this name from an object.
    pub async fn signal(&mut self, path: &str, name: &str) -> Result<Message> {
        let wanted = |message: &Message| {
            let header = message.header();
            header.path().is_some_and(|at| at.as_str() == path)
                && header
                    .member()
                    .is_some_and(|member| member.as_str() == name)
        };
        if let Some(at) = self.signals.iter().position(&wanted) {
            return self.signals.remove(at).context("it is there");
        }
        loop {
            let message = self.next().await?;
            if wanted(&message) {
                return Ok(message);
            }
            self.signals.push_back(message);
        }
    }

    /// Keeps a signal for later.
    pub fn keep(&mut self, message: Message) {
        self.signals.push_back(message);
    }

    /// All signals that have come so far.
    pub fn signals(&self) -> &VecDeque<Message> {
        &self.signals
    }

    /// Starts a job of text and returns its path.
    pub async fn generate(
        &mut self,
        model: &str,
        question: &str,
        options: Options<'_>,
    ) -> Result<Result<String, Refused>> {
        let messages = if options.contains_key("prompt") {
            Vec::new()
        } else {
            vec![("user", question)]
        };
        let body = (model, messages, options);
        let reply = self.manager("Generate", &body).await?;
        reply
            .map(|reply| {
                Ok(reply
                    .body()
                    .deserialize::<zbus::ObjectPath<'_>>()?
                    .to_string())
            })
            .map_or_else(
                |refused| Ok(Err(refused)),
                |path: Result<String>| path.map(Ok),
            )
    }

    /// The text of a job until it ends, how it ended, and its receipt.
    pub async fn follow(&mut self, job: &str) -> Result<(String, String, Dict)> {
        let (mut text, mut others) = (String::new(), Vec::new());
        loop {
            let at = self.signals.iter().position(|message| {
                message
                    .header()
                    .path()
                    .is_some_and(|path| path.as_str() == job)
            });
            let message = match at {
                Some(at) => self.signals.remove(at).context("it is there")?,
                None => self.next().await?,
            };
            let header = message.header();
            let of_job = header.path().is_some_and(|path| path.as_str() == job);
            match header.member().map(|member| member.as_str()) {
                Some("TokensAdded") if of_job => {
                    let body = message.body();
                    let (more, tokens): (String, u32) = body.deserialize()?;
                    ensure!(tokens > 0, "text without tokens");
                    text += &more;
                }
                Some("Finished") if of_job => {
                    self.signals.extend(others);
                    let (status, receipt) = message.body().deserialize()?;
                    return Ok((text, status, receipt));
                }
                _ if of_job => {}
                _ => others.push(message),
            }
        }
    }
}

fn refused(name: &str, message: &Message) -> Refused {
    let body = message.body();
    let (text, fields) = body.deserialize::<(String, Dict)>().unwrap_or_else(|_| {
        let text = body.deserialize::<String>();
        (text.unwrap_or_default(), Dict::new())
    });
    Refused {
        name: name.to_owned(),
        message: text,
        fields,
    }
}

/// The error of a call that must fail.
pub fn error<T>(result: Result<T, Refused>) -> Result<Refused> {
    match result {
        Ok(_) => bail!("it went well"),
        Err(refused) => Ok(refused),
    }
}

/// A text in a dictionary.
pub fn text(dict: &Dict, name: &str) -> String {
    let value = dict
        .get(name)
        .and_then(|value| <&str>::try_from(value).ok());
    value.unwrap_or_default().to_owned()
}

/// A whole number in a dictionary.
pub fn number(dict: &Dict, name: &str) -> Option<u64> {
    match &**dict.get(name)? {
        Variant::U64(number) => Some(*number),
        Variant::U32(number) => Some((*number).into()),
        _ => None,
    }
}
