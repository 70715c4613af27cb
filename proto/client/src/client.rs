//! The connection, and what is asked in one question.

use crate::buffer::Buffer;
use crate::error::{ClientError, ProtocolError};
use crate::link::Link;
use mote_wire::limits::{Limits, WIRE_VERSION};
use mote_wire::types::{
    Capability, Explanation, Hello, ModelDetails, ModelInfo, Progress, Reply, Request,
    StatusReport, Welcome, WorkOptions,
};
use mote_wire::{Connection, Link as WireLink, frame_to_reply, paths, request_to_frame};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a daemon may take to answer the greeting.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Id of the greeting.
const GREETING_ID: u64 = 1;

/// A connection to the daemon.
///
/// Its methods may be called from several threads at once; it has none of its own. Dropping it closes the connection and
/// with it everything that is open on it: work, streams, registered buffers, pins.
#[derive(Debug)]
pub struct Client {
    pub(crate) link: Arc<Link>,
    welcome: Welcome,
}

impl Client {
    /// Connects to the daemon that listens at `path`. `name` is the program's, for status and logs.
    pub fn connect(path: impl AsRef<Path>, name: &str) -> Result<Self, ClientError> {
        let path = path.as_ref();
        let socket = UnixStream::connect(path).map_err(|cause| ClientError::Connect {
            path: path.into(),
            cause,
        })?;
        Self::from_socket(socket, name)
    }

    /// Connects to this user's daemon, or else to the system's; see [`paths::daemon_socket`].
    pub fn connect_default(name: &str) -> Result<Self, ClientError> {
        Self::connect(paths::daemon_socket(), name)
    }

    /// Greets the daemon at the other end of `socket`, which must be in blocking mode.
    pub fn from_socket(socket: UnixStream, name: &str) -> Result<Self, ClientError> {
        let mut connection = Connection::new(socket, WireLink::Client);
        let welcome = greet(&mut connection, name)?;
        let link = Arc::new(Link::new(connection, GREETING_ID + 1));
        Ok(Self { link, welcome })
    }

    /// Version of the daemon.
    pub fn server_version(&self) -> &str {
        &self.welcome.server_version
    }

    /// What the daemon accepts.
    pub fn limits(&self) -> Limits {
        self.welcome.limits
    }

    /// A buffer of `bytes` zeroes that is registered until it is dropped.
    pub fn buffer(&self, bytes: u64) -> Result<Buffer, ClientError> {
        Buffer::create(bytes)?.registered(&self.link)
    }

    /// The catalogue.
    pub fn models(&self) -> Result<Vec<ModelInfo>, ClientError> {
        match self.link.ask(Request::ListModels)? {
            Reply::ModelList(models) => Ok(models),
            _ => Err(ClientError::other_answer("list_models")),
        }
    }

    /// All about one model; its inputs and outputs only when it is loaded.
    pub fn inspect(&self, model: &str) -> Result<ModelDetails, ClientError> {
        self.inspected(model, false)
    }

    /// All about one model, which is loaded first if need be.
    pub fn inspect_loaded(&self, model: &str) -> Result<ModelDetails, ClientError> {
        self.inspected(model, true)
    }

    fn inspected(&self, model: &str, load: bool) -> Result<ModelDetails, ClientError> {
        let model = model.into();
        match self.link.ask(Request::InspectModel { model, load })? {
            Reply::ModelDetails(details) => Ok(*details),
            _ => Err(ClientError::other_answer("inspect_model")),
        }
    }

    /// Devices and providers as they were probed last.
    pub fn devices(&self) -> Result<Vec<Capability>, ClientError> {
        self.listed_devices(false)
    }

    /// Devices and providers, probed anew.
    pub fn probe_devices(&self) -> Result<Vec<Capability>, ClientError> {
        self.listed_devices(true)
    }

    fn listed_devices(&self, refresh: bool) -> Result<Vec<Capability>, ClientError> {
        match self.link.ask(Request::ListDevices { refresh })? {
            Reply::DeviceList(devices) => Ok(devices),
            _ => Err(ClientError::other_answer("list_devices")),
        }
    }

    /// Where a model would run with these options, and why not elsewhere.
    ///
    /// # Errors
    /// When the daemon refuses, or is gone.
    pub fn explain(&self, model: &str, options: &WorkOptions) -> Result<Explanation, ClientError> {
        self.explained(model, options, false)
    }

    /// The same after all ways to run it were tried anew, which takes its time.
    ///
    /// # Errors
    /// As [`Client::explain`].
    pub fn measure(&self, model: &str, options: &WorkOptions) -> Result<Explanation, ClientError> {
        self.explained(model, options, true)
    }

    fn explained(
        &self,
        model: &str,
        options: &WorkOptions,
        measure: bool,
    ) -> Result<Explanation, ClientError> {
        let request = Request::Explain {
            model: model.into(),
            options: options.clone(),
            measure,
        };
        match self.link.ask(request)? {
            Reply::Explanation(explanation) => Ok(*explanation),
            _ => Err(ClientError::other_answer("explain")),
        }
    }

    /// The daemon at a glance.
    pub fn status(&self) -> Result<StatusReport, ClientError> {
        match self.link.ask(Request::GetStatus)? {
            Reply::StatusReport(report) => Ok(*report),
            _ => Err(ClientError::other_answer("get_status")),
        }
    }

    /// Loads a model, so that the first work on it need not wait.
    pub fn load(&self, model: &str, options: &WorkOptions) -> Result<(), ClientError> {
        self.load_with(model, options, |_| {})
    }

    /// As [`Client::load`], telling how far it is.
    pub fn load_with(
        &self,
        model: &str,
        options: &WorkOptions,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<(), ClientError> {
        let request = Request::Load {
            model: model.into(),
            options: options.clone(),
        };
        match self.link.ask_with(request, &mut on_progress)? {
            Reply::Ok | Reply::Done(_) => Ok(()),
            _ => Err(ClientError::other_answer("load")),
        }
    }

    /// Unloads a model.
    pub fn unload(&self, model: &str) -> Result<(), ClientError> {
        let model = model.into();
        self.carried_out("unload", Request::Unload { model })
    }

    /// Keeps a model from being evicted for as long as this connection lives.
    pub fn pin(&self, model: &str) -> Result<(), ClientError> {
        let (model, pinned) = (model.into(), true);
        self.carried_out("pin", Request::Pin { model, pinned })
    }

    /// Takes a pin back.
    pub fn unpin(&self, model: &str) -> Result<(), ClientError> {
        let (model, pinned) = (model.into(), false);
        self.carried_out("pin", Request::Pin { model, pinned })
    }

    /// Has the model stores and runtime folders read again.
    pub fn rescan(&self) -> Result<(), ClientError> {
        self.carried_out("rescan", Request::Rescan)
    }

    fn carried_out(&self, name: &'static str, request: Request) -> Result<(), ClientError> {
        match self.link.ask(request)? {
            Reply::Ok => Ok(()),
            _ => Err(ClientError::other_answer(name)),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.link.close();
    }
}

fn greet(connection: &mut Connection, name: &str) -> Result<Welcome, ClientError> {
    let hello = Request::Hello(Hello {
        version_min: WIRE_VERSION,
        version_max: WIRE_VERSION,
        client_name: name.into(),
    });
    connection.send(request_to_frame(GREETING_ID, hello)?)?;
    connection.set_read_timeout(Some(GREETING_LIMIT));
    let frame = connection.recv()?.ok_or(ClientError::Closed)?;
    connection.set_read_timeout(None);
    let (_, reply) = frame_to_reply(frame).map_err(ProtocolError::Answer)?;
    match reply {
        Reply::Welcome(welcome) => Ok(welcome),
        Reply::Failed(status) => Err(status.into()),
        _ => Err(ClientError::other_answer("hello")),
    }
}
