//! The connection to the bus: calls as they come in, and what goes out.

use crate::describe::PEER;
use crate::failure::Failure;
use crate::limits::MESSAGE_OVERHEAD_BYTES;
use crate::names::{BUS, BUS_PATH};
use crate::values::Dict;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::num::NonZeroU32;
use zbus::message::{Flags, Message, Type as MessageType};
use zbus::{Connection, DynamicType, Type};

/// A method call that came in.
#[derive(Clone, Debug)]
pub struct Call {
    message: Message,
    /// Unique name of the caller.
    pub sender: String,
    /// Object.
    pub path: String,
    /// Interface, when it is told.
    pub interface: Option<String>,
    /// Method.
    pub member: String,
}

/// What a call is answered with.
pub type Answer = Result<Message, Failure>;

impl Call {
    /// A message that is a call, and whole.
    pub fn of(message: &Message) -> Option<Self> {
        let header = message.header();
        if header.message_type() != MessageType::MethodCall {
            return None;
        }
        Some(Self {
            sender: header.sender()?.to_string(),
            path: header.path()?.to_string(),
            interface: header.interface().map(ToString::to_string),
            member: header.member()?.to_string(),
            message: message.clone(),
        })
    }

    /// Bytes of the whole message.
    pub fn bytes(&self) -> usize {
        self.message.data().len()
    }

    /// Types of its arguments, as in the header.
    pub fn signature(&self) -> String {
        self.message.body().signature().to_string_no_parens()
    }

    /// Whether the caller would wait while somebody types a password.
    pub fn is_interactive(&self) -> bool {
        let flags = self.message.primary_header().flags();
        flags.contains(Flags::ALLOW_INTERACTIVE_AUTH)
    }

    /// Whether the caller waits for an answer.
    pub fn wants_reply(&self) -> bool {
        let flags = self.message.primary_header().flags();
        !flags.contains(Flags::NO_REPLY_EXPECTED)
    }

    /// Its arguments, whose types were compared already.
    ///
    /// # Errors
    /// When the body does not hold what the header says.
    pub fn arguments<T: DeserializeOwned + Type>(&self) -> Result<T, Failure> {
        let body = self.message.body();
        body.deserialize().map_err(|error| Failure::Malformed {
            cause: error.to_string(),
        })
    }

    /// An answer that holds `body`.
    ///
    /// # Errors
    /// When it does not fit in a message.
    pub fn answer(&self, body: &(impl Serialize + DynamicType)) -> Answer {
        let built = Message::method_return(&self.message.header()).build(body);
        built.map_err(|error| internal("encode an answer", &error))
    }

    /// An answer that holds the path of an object.
    ///
    /// # Errors
    /// As [`Call::answer`].
    pub fn answer_path(&self, path: &str) -> Answer {
        let path = zbus::ObjectPath::try_from(path);
        self.answer(&path.map_err(|error| internal("name an object", &error))?)
    }

    /// An answer that says why it failed.
    pub fn refusal(&self, failure: &Failure) -> zbus::Result<Message> {
        let body: (String, Dict) = (failure.to_string(), failure.fields());
        Message::error(&self.message.header(), failure.name().into_owned()).build(&body)
    }
}

/// Something inside went wrong.
pub fn internal(operation: &str, cause: &dyn std::error::Error) -> Failure {
    Failure::Status(mote_wire::types::Status::Internal {
        operation: operation.into(),
        cause: cause.to_string(),
    })
}

/// Bytes a message takes in the bus daemon, roughly.
pub fn weight(message: &Message) -> u64 {
    message.data().len() as u64 + MESSAGE_OVERHEAD_BYTES
}

/// Destination, path and interface of a call.
pub type Target<'a> = (&'a str, &'a str, &'a str);

/// The way out.
#[derive(Clone, Debug)]
pub struct Bus {
    connection: Connection,
}

impl Bus {
    /// Over a connection.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Sends a message. When the bus has gone, the gateway ends by itself.
    pub async fn send(&self, message: &Message) {
        if let Err(error) = self.connection.send(message).await {
            log::debug!("a message could not be sent: {error}");
        }
    }

    /// A signal, to `caller` or to whoever listens; `place` is path and interface.
    pub async fn signal(
        &self,
        caller: Option<&str>,
        place: (&str, &str),
        name: &str,
        body: &(impl Serialize + DynamicType),
    ) -> u64 {
        let mut message = Message::signal(place.0, place.1, name);
        if let Some(caller) = caller {
            message = message.destination(caller);
        }
        match message.build(body) {
            Ok(message) => {
                self.send(&message).await;
                weight(&message)
            }
            Err(error) => {
                log::error!("{name} cannot be encoded: {error}");
                0
            }
        }
    }

    /// Calls a method elsewhere. Must not be awaited by the task that reads from the bus.
    ///
    /// # Errors
    /// What the other side answers.
    pub async fn ask(
        &self,
        target: Target<'_>,
        method: &str,
        arguments: &(impl Serialize + DynamicType),
    ) -> zbus::Result<Message> {
        let (destination, path, interface) = target;
        self.connection
            .call_method(Some(destination), path, Some(interface), method, arguments)
            .await
    }

    /// Calls a method of the bus itself.
    ///
    /// # Errors
    /// What the bus answers.
    pub async fn ask_bus(
        &self,
        method: &str,
        arguments: &(impl Serialize + DynamicType),
    ) -> zbus::Result<Message> {
        self.ask((BUS, BUS_PATH, BUS), method, arguments).await
    }

    /// Calls `Ping` of a caller; the answer comes in as any message.
    pub async fn ping(&self, caller: &str, serial: NonZeroU32) {
        let message = Message::method_call("/", "Ping")
            .destination(caller)
            .interface(PEER.name)
            .serial(serial);
        match message.build(&()) {
            Ok(message) => self.send(&message).await,
            Err(error) => log::error!("Ping cannot be encoded: {error}"),
        }
    }
}
