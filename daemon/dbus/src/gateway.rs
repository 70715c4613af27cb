//! The connection to the bus: hands each message to its sender's task.

use crate::bus::{Bus, Call};
use crate::caller::{self, Admission, Handle, Shared};
use crate::door::{Credentials, Door};
use crate::failure::Failure;
use crate::limits::{
    BUS_QUEUE_MAX, CALL_BYTES_MAX, CALL_BYTES_WAITING_MAX, CALLERS_MAX, CALLERS_PER_UID_MAX,
    CALLS_WAITING_MAX,
};
use crate::mirror::Mirror;
use crate::names::{BUS, SERVICE};
use crate::polkit::Policy;
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use zbus::message::{Message, Type};
use zbus::{MessageStream, connection};

/// `RequestName` without waiting for another owner to leave.
const DO_NOT_QUEUE: u32 = 4;
/// `RequestName`: the name is ours.
const PRIMARY_OWNER: u32 = 1;

/// Which bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusAddress {
    /// The system's.
    System,
    /// The user's.
    Session,
    /// Another one, by its address; polkit is asked there as on the system's.
    At(String),
}

impl From<&str> for BusAddress {
    /// `system`, `session`, or an address.
    fn from(text: &str) -> Self {
        match text {
            "system" => Self::System,
            "session" => Self::Session,
            address => Self::At(address.to_owned()),
        }
    }
}

/// What the gateway is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The daemon's own user and process.
    pub own: Credentials,
    /// Models by their use, without the `use:`.
    pub uses: BTreeMap<String, String>,
}

/// Why there is no service on the bus.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No bus.
    #[error("cannot connect to the bus")]
    Connect(#[source] zbus::Error),
    /// The bus does not give the name.
    #[error("cannot own {SERVICE}")]
    Name(#[source] zbus::Error),
    /// Another daemon serves this bus.
    #[error("{SERVICE} is owned already")]
    NameTaken,
    /// The bus has closed the connection.
    #[error("the bus has gone")]
    Gone,
}

/// `org.moted.Inference1` on a bus.
pub struct Gateway {
    shared: Arc<Shared>,
    messages: MessageStream,
    /// What came before the name was ours for certain.
    early: Vec<Message>,
    admissions: mpsc::Receiver<Admission>,
    callers: HashMap<String, Handle>,
    tasks: JoinSet<(String, u64)>,
    generation: u64,
}

impl Gateway {
    /// Connects to the bus and takes the name. Calls are answered once it runs.
    ///
    /// # Errors
    /// When there is no bus, or it does not give the name.
    pub async fn connect(
        address: &BusAddress,
        door: Arc<dyn Door>,
        settings: Settings,
    ) -> Result<Self, GatewayError> {
        let builder = match address {
            BusAddress::System => connection::Builder::system(),
            BusAddress::Session => connection::Builder::session(),
            BusAddress::At(address) => connection::Builder::address(address.as_str()),
        };
        let queue = NonZeroUsize::new(BUS_QUEUE_MAX).unwrap_or(NonZeroUsize::MIN);
        let connection = builder
            .max_queued(queue)
            .build()
            .await
            .map_err(GatewayError::Connect)?;
        let bus = Bus::new(connection.clone());
        let policy = Policy {
            own_uid: settings.own.uid,
            ask: *address != BusAddress::Session,
        };
        let (admit, admissions) = mpsc::channel(CALLERS_MAX);
        let shared = Arc::new(Shared {
            mirror: Mirror::start(bus.clone(), Arc::clone(&door), settings.own),
            bus,
            door,
            policy,
            uses: settings.uses,
            admit,
        });
        // Calls that waited for the name come with it.
        let mut messages = MessageStream::from(connection);
        let mut early = Vec::new();
        let named = shared.bus.clone();
        let mut taken = pin!(named.ask_bus("RequestName", &(SERVICE, DO_NOT_QUEUE)));
        let reply = loop {
            tokio::select! {
                reply = &mut taken => break reply.map_err(GatewayError::Name)?,
                message = messages.next() => match message {
                    Some(message) => early.extend(message.ok()),
                    None => return Err(GatewayError::Gone),
                },
            }
        };
        let code: u32 = reply.body().deserialize().map_err(GatewayError::Name)?;
        if code != PRIMARY_OWNER {
            return Err(GatewayError::NameTaken);
        }
        Ok(Self {
            shared,
            messages,
            early,
            admissions,
            callers: HashMap::new(),
            tasks: JoinSet::new(),
            generation: 0,
        })
    }

    /// Serves until the bus goes, which is what it returns. What callers hold ends with the future.
    pub async fn run(mut self) -> GatewayError {
        for message in std::mem::take(&mut self.early) {
            self.take(&message).await;
        }
        loop {
            tokio::select! {
                message = self.messages.next() => match message {
                    Some(Ok(message)) => self.take(&message).await,
                    Some(Err(error)) => log::debug!("from the bus: {error}"),
                    None => return GatewayError::Gone,
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Ok((name, generation)) = ended
                        && self.callers.get(&name).is_some_and(|one| one.generation == generation)
                    {
                        self.callers.remove(&name);
                    }
                }
                Some(admission) = self.admissions.recv() => self.admit(admission),
            }
        }
    }

    async fn take(&mut self, message: &Message) {
        match message.message_type() {
            Type::MethodCall => {
                if let Some(call) = Call::of(message) {
                    self.route(call).await;
                }
            }
            Type::Signal => self.signal(message),
            Type::MethodReturn | Type::Error => {
                let header = message.header();
                if let (Some(sender), Some(serial)) = (header.sender(), header.reply_serial())
                    && let Some(handle) = self.callers.get(sender.as_str())
                {
                    handle.pace.answered(serial);
                }
            }
        }
    }

    fn signal(&mut self, message: &Message) {
        let header = message.header();
        let from_bus = header.sender().is_some_and(|sender| sender.as_str() == BUS);
        let member = header.member().map(|member| member.as_str());
        if !from_bus || member != Some("NameOwnerChanged") {
            return;
        }
        let body = message.body();
        if let Ok((name, _, "")) = body.deserialize::<(&str, &str, &str)>() {
            // Its task ends, and with it all that it holds.
            self.callers.remove(name);
        }
    }

    /// Hands a call to its caller's task. Full queues refuse; a caller that does not even read
    /// refusals gets none.
    async fn route(&mut self, call: Call) {
        if !self.callers.contains_key(&call.sender) {
            if self.callers.len() >= CALLERS_MAX && !self.make_room(None) {
                let over = Failure::over("callers", CALLERS_MAX + 1, CALLERS_MAX);
                refuse(&self.shared.bus, &call, &over).await;
                return;
            }
            self.generation += 1;
            let (handle, task) =
                caller::caller(Arc::clone(&self.shared), &call.sender, self.generation);
            self.callers.insert(call.sender.clone(), handle);
            let ended = (call.sender.clone(), self.generation);
            self.tasks.spawn(async move {
                task.run().await;
                ended
            });
        }
        let Some(handle) = self.callers.get(&call.sender) else {
            return;
        };
        let bytes = call.bytes();
        let waiting = handle.waiting_bytes() + bytes;
        let over = if bytes > CALL_BYTES_MAX {
            Failure::over("bytes of a call", bytes, CALL_BYTES_MAX)
        } else if waiting > CALL_BYTES_WAITING_MAX {
            Failure::over("bytes of calls that wait", waiting, CALL_BYTES_WAITING_MAX)
        } else {
            let Err(call) = handle.give(call) else {
                return;
            };
            let limit = CALLS_WAITING_MAX;
            let over = Failure::over("calls that wait", limit + 1, limit);
            return self.refuse_unless_stuck(&call, &over).await;
        };
        self.refuse_unless_stuck(&call, &over).await;
    }

    async fn refuse_unless_stuck(&self, call: &Call, failure: &Failure) {
        if let Some(handle) = self.callers.get(&call.sender)
            && handle.pace.is_open()
        {
            let bytes = refuse(&self.shared.bus, call, failure).await;
            handle
                .pace
                .sent(&self.shared.bus, &call.sender, bytes)
                .await;
        }
    }

    /// A caller has told who it is.
    fn admit(&mut self, admission: Admission) {
        let of_user = |callers: &HashMap<String, Handle>| {
            let same = |one: &&Handle| one.uid == Some(admission.uid);
            callers.values().filter(same).count()
        };
        let admitted =
            of_user(&self.callers) < CALLERS_PER_UID_MAX || self.make_room(Some(admission.uid));
        if let Some(handle) = self.callers.get_mut(&admission.name) {
            handle.uid = Some(admission.uid);
        }
        // It may have left.
        let _ = admission.answer.send(admitted);
    }

    /// Forgets a caller (of this user) that holds nothing and has read about all.
    fn make_room(&mut self, uid: Option<u32>) -> bool {
        let idle = self
            .callers
            .iter()
            .find(|(_, handle)| handle.is_idle() && (uid.is_none() || handle.uid == uid));
        let Some(name) = idle.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.callers.remove(&name).is_some()
    }
}

async fn refuse(bus: &Bus, call: &Call, failure: &Failure) -> u64 {
    if !call.wants_reply() {
        return 0;
    }
    match call.refusal(failure) {
        Ok(message) => {
            bus.send(&message).await;
            crate::bus::weight(&message)
        }
        Err(error) => {
            log::error!("an error cannot be encoded: {error}");
            0
        }
    }
}
