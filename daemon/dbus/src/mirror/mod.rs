//! Models and devices as the daemon told them last, and the signals that tell what changed.
//!
//! Nothing is asked before somebody wants to know. Then the mirror has a connection of its own, on
//! which it watches the daemon's events.

mod views;

pub use views::{DeviceView, ModelView};

use crate::bus::Bus;
use crate::describe::{DEVICE, Interface, MANAGER, MODEL, OBJECT_MANAGER, PROPERTIES};
use crate::door::{Credentials, Door};
use crate::names::{ROOT, element};
use crate::values::Dict;
use crate::wire::{Answers, Wire};
use mote_wire::limits::CREDIT_MAX;
use mote_wire::types::{EventKind, Reply, Request, Status};
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Objects by the last element of their path.
pub type Objects<T> = BTreeMap<String, T>;

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Models; `None` before anybody asked.
    pub models: Option<Objects<ModelView>>,
    /// Devices; `None` before their probes have ended.
    pub devices: Option<Objects<DeviceView>>,
    /// Version of the daemon.
    pub server_version: String,
}

/// The way to the mirror.
#[derive(Clone, Debug)]
pub struct Mirror {
    orders: mpsc::UnboundedSender<Order>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

/// Counts a hold as long as it lives.
#[derive(Debug)]
pub struct Held {
    mirror: Mirror,
    model: String,
}

#[derive(Debug)]
enum Order {
    Models(Asked),
    /// With `probe`, what was found before is not believed.
    Devices {
        probe: bool,
        asked: Asked,
    },
    Held {
        model: String,
        more: bool,
    },
}

type Asked = oneshot::Sender<Result<(), Status>>;

impl Mirror {
    /// Starts its task.
    pub fn start(bus: Bus, door: Arc<dyn Door>, own: Credentials) -> Self {
        // Orders are calls that run, and holds: callers have limits for both.
        let (orders, inbox) = mpsc::unbounded_channel();
        let (told, snapshot) = watch::channel(Arc::default());
        let task = Task {
            bus,
            door,
            own,
            told,
            wire: None,
            events: None,
            heard: 0,
            holds: BTreeMap::new(),
            probes: JoinSet::new(),
        };
        tokio::spawn(task.run(inbox));
        Self { orders, snapshot }
    }

    async fn order(&self, order: impl FnOnce(Asked) -> Order) -> Result<Arc<Snapshot>, Status> {
        let (asked, answer) = oneshot::channel();
        self.orders
            .send(order(asked))
            .map_err(|_| Status::ShuttingDown)?;
        answer.await.unwrap_or(Err(Status::ShuttingDown))?;
        Ok(self.snapshot.borrow().clone())
    }

    /// Asks the daemon for its models.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn models(&self) -> Result<Arc<Snapshot>, Status> {
        self.order(Order::Models).await
    }

    /// Asks the daemon for its devices, which may take as long as probes take.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn devices(&self, probe: bool) -> Result<Arc<Snapshot>, Status> {
        self.order(|asked| Order::Devices { probe, asked }).await
    }

    /// What is known, and models in any case.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn current(&self) -> Result<Arc<Snapshot>, Status> {
        let known = self.snapshot.borrow().clone();
        if known.models.is_some() {
            return Ok(known);
        }
        self.models().await
    }

    /// Counts a hold.
    pub fn hold(&self, model: &str) -> Held {
        let held = Held {
            mirror: self.clone(),
            model: model.to_owned(),
        };
        held.tell(true);
        held
    }
}

impl Held {
    fn tell(&self, more: bool) {
        let model = self.model.clone();
        // When the mirror has gone, nobody counts.
        let _ = self.mirror.orders.send(Order::Held { model, more });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.tell(false);
    }
}

struct Task {
    bus: Bus,
    door: Arc<dyn Door>,
    own: Credentials,
    told: watch::Sender<Arc<Snapshot>>,
    wire: Option<Wire>,
    events: Option<Answers>,
    /// Events since credit was granted last.
    heard: u32,
    holds: BTreeMap<String, u32>,
    probes: JoinSet<(Result<Reply, Status>, Asked)>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        loop {
            let event = async {
                match &mut self.events {
                    Some(events) => events.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(order) => self.carry_out(order).await,
                    None => return,
                },
                event = event => self.heard(event).await,
                Some(probed) = self.probes.join_next() => {
                    if let Ok((reply, asked)) = probed {
                        self.probed(reply, asked).await;
                    }
                }
            }
        }
    }

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Models(asked) => {
                let listed = self.list_models().await;
                // Who asked may have left.
                let _ = asked.send(listed);
            }
            Order::Devices { probe, asked } => match self.wire().await {
                Ok(wire) => {
                    self.probes.spawn(async move {
                        let request = Request::ListDevices { refresh: probe };
                        (wire.call(request).await, asked)
                    });
                }
                Err(status) => drop(asked.send(Err(status))),
            },
            Order::Held { model, more } => {
                let count = self.holds.entry(model.clone()).or_default();
                *count = if more {
                    *count + 1
                } else {
                    count.saturating_sub(1)
                };
                if *count == 0 {
                    self.holds.remove(&model);
                }
                let mut models = self.told.borrow().models.clone();
                if let Some(models) = &mut models
                    && let Some(view) = models.get_mut(&element(&model))
                {
                    view.holds = self.holds.get(&model).copied().unwrap_or(0);
                }
                self.tell_models(models).await;
            }
        }
    }

    /// The connection; a new one when there is none, or none any more.
    async fn wire(&mut self) -> Result<Wire, Status> {
        if let Some(wire) = &self.wire
            && !wire.has_ended()
        {
            return Ok(wire.clone());
        }
        let failed = |operation: &str, cause: &dyn std::error::Error| Status::Internal {
            operation: operation.into(),
            cause: cause.to_string(),
        };
        let (ours, theirs) =
            UnixStream::pair().map_err(|error| failed("make a socket pair", &error))?;
        self.door
            .serve(theirs, self.own)
            .map_err(|error| failed("connect to the daemon", &error))?;
        let wire =
            Wire::open(ours, "D-Bus").map_err(|error| failed("connect to the daemon", &error))?;
        self.events = Some(wire.request(Request::Watch, CREDIT_MAX).await?);
        self.heard = 0;
        if let Reply::StatusReport(report) = wire.call(Request::GetStatus).await? {
            let mut snapshot = Snapshot::clone(&self.told.borrow());
            snapshot.server_version = report.server_version;
            self.told.send_replace(Arc::new(snapshot));
        }
        self.wire = Some(wire.clone());
        Ok(wire)
    }

    async fn list_models(&mut self) -> Result<(), Status> {
        let wire = self.wire().await?;
        let reply = wire.call(Request::ListModels).await?;
        if let Reply::ModelList(infos) = reply {
            let view = |info: mote_wire::types::ModelInfo| {
                let holds = self.holds.get(&info.name).copied().unwrap_or(0);
                (element(&info.name), ModelView { info, holds })
            };
            let models = infos.into_iter().map(view).collect();
            self.tell_models(Some(models)).await;
        }
        Ok(())
    }

    async fn heard(&mut self, event: Option<Reply>) {
        let Some(Reply::Event(event)) = event else {
            // The connection has ended; the next order makes another.
            self.events = None;
            return;
        };
        self.heard += 1;
        if self.heard >= CREDIT_MAX / 2
            && let Some(events) = &self.events
        {
            events.grant(std::mem::take(&mut self.heard)).await;
        }
        use EventKind as K;
        if let K::ModelLoaded { .. } | K::ModelUnloaded { .. } | K::EventsDropped { .. } =
            event.kind
            && let Err(status) = self.list_models().await
        {
            log::debug!("models cannot be listed: {status}");
        }
    }

    async fn probed(&mut self, reply: Result<Reply, Status>, asked: Asked) {
        let listed = match reply {
            Ok(Reply::DeviceList(capabilities)) => {
                let devices = views::devices(capabilities);
                self.tell_devices(devices).await;
                // Probing anew reads the stores anew, too.
                self.list_models().await
            }
            Ok(_) => Ok(()),
            Err(status) => Err(status),
        };
        // Who asked may have left.
        let _ = asked.send(listed);
    }

    async fn tell_models(&mut self, models: Option<Objects<ModelView>>) {
        let before = self.told.borrow().clone();
        let mut snapshot = Snapshot::clone(&before);
        snapshot.models = models;
        let now = Arc::new(snapshot);
        self.told.send_replace(Arc::clone(&now));
        // What nobody has seen yet has not changed.
        if let (Some(before), Some(now)) = (&before.models, &now.models) {
            let place = ("model", &MODEL, "Models");
            self.tell_changes(place, before, (now, ModelView::properties))
                .await;
        }
    }

    async fn tell_devices(&mut self, devices: Objects<DeviceView>) {
        let before = self.told.borrow().clone();
        let mut snapshot = Snapshot::clone(&before);
        snapshot.devices = Some(devices);
        let now = Arc::new(snapshot);
        self.told.send_replace(Arc::clone(&now));
        let (none, place) = (Objects::new(), ("device", &DEVICE, "Devices"));
        let before = before.devices.as_ref().unwrap_or(&none);
        if let Some(now) = &now.devices {
            self.tell_changes(place, before, (now, DeviceView::properties))
                .await;
        }
    }

    /// `place` is the folder, the interface, and the manager's property that counts them.
    async fn tell_changes<T>(
        &self,
        place: (&str, &Interface, &str),
        before: &Objects<T>,
        (now, properties): (&Objects<T>, fn(&T) -> Dict),
    ) {
        let (folder, interface, counter) = place;
        let path = |name: &str| format!("{ROOT}/{folder}/{name}");
        for name in before.keys().filter(|name| !now.contains_key(*name)) {
            removed(&self.bus, None, &path(name), interface).await;
        }
        for (name, view) in now {
            let values = properties(view);
            match before.get(name) {
                None => added(&self.bus, None, (&path(name), interface), values).await,
                Some(before) => {
                    let mut old = properties(before);
                    let differs = |name: &str, value: &zbus::Variant<'static>| {
                        old.remove(name).as_ref() != Some(value)
                    };
                    let changed = differing(values, differs);
                    changed_properties(&self.bus, (&path(name), interface), changed).await;
                }
            }
        }
        if before.len() != now.len() {
            let count = u32::try_from(now.len()).unwrap_or(u32::MAX);
            let changed = Dict::from([(counter.to_owned(), count.into())]);
            changed_properties(&self.bus, (ROOT, &MANAGER), changed).await;
        }
    }
}

fn differing(values: Dict, mut differs: impl FnMut(&str, &zbus::Variant<'static>) -> bool) -> Dict {
    let values = values.into_iter();
    values
        .filter(|(name, value)| differs(name, value))
        .collect()
}

async fn changed_properties(bus: &Bus, object: (&str, &Interface), changed: Dict) {
    if !changed.is_empty() {
        let body = (object.1.name, changed, Vec::<&str>::new());
        let place = (object.0, PROPERTIES.name);
        bus.signal(None, place, "PropertiesChanged", &body).await;
    }
}

/// Tells `caller`, or everybody, of a new object.
pub async fn added(
    bus: &Bus,
    caller: Option<&str>,
    (path, interface): (&str, &Interface),
    properties: Dict,
) {
    let Ok(path) = zbus::ObjectPath::try_from(path) else {
        return;
    };
    let body = (path, BTreeMap::from([(interface.name, properties)]));
    let place = (ROOT, OBJECT_MANAGER.name);
    bus.signal(caller, place, "InterfacesAdded", &body).await;
}

/// Tells `caller`, or everybody, that an object has gone.
pub async fn removed(bus: &Bus, caller: Option<&str>, path: &str, interface: &Interface) {
    let Ok(path) = zbus::ObjectPath::try_from(path) else {
        return;
    };
    let body = (path, vec![interface.name]);
    let place = (ROOT, OBJECT_MANAGER.name);
    bus.signal(caller, place, "InterfacesRemoved", &body).await;
}
