//! From a call to what serves it: objects as this caller sees them, and the bus's own interfaces.

use super::{Caller, Reaction};
use crate::bus::{Answer, Call};
use crate::describe::{
    self, DEVICE, EVERYWHERE, INTROSPECTABLE, Interface, MANAGER, MODEL, OBJECT_MANAGER, PEER,
    PROPERTIES,
};
use crate::failure::Failure;
use crate::limits::DEVICES_WAIT_MS;
use crate::mirror::{Objects, Snapshot};
use crate::names::{BUS, BUS_PATH, Kind, Place, ROOT};
use crate::values::Dict;
use mote_wire::limits::WIRE_VERSION;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use zbus::ObjectPath;

/// Version of the interfaces.
const INTERFACE_VERSION: u32 = 1;

/// An object as this caller sees it.
struct Object {
    /// Its own interfaces; the first is the one with properties.
    interfaces: &'static [&'static Interface],
    properties: Dict,
    children: Vec<String>,
}

impl Caller {
    pub(super) async fn react(&mut self, call: &Call) -> Reaction {
        let reacted = self.dispatch(call).await;
        reacted.unwrap_or_else(|failure| Reaction::Now(Err(failure)))
    }

    async fn dispatch(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let no_object = || Failure::NoObject {
            path: call.path.clone(),
        };
        let place = Place::of(&call.path).ok_or_else(no_object)?;
        let object = self.object(&place, &call.path).await?;
        let object = object.ok_or_else(no_object)?;
        let interface = find_method(&object, call)?;
        let answer = match (interface.name, place) {
            (name, _) if name == MANAGER.name => return self.manager(call),
            (name, _) if name == OBJECT_MANAGER.name => return Ok(self.managed_objects(call)),
            (name, _) if name == INTROSPECTABLE.name => introspect(&object, call),
            (name, _) if name == PROPERTIES.name => properties(object, call),
            (name, _) if name == PEER.name => return self.peer(call),
            (_, Place::Own(kind, _, token)) => return self.own_method(call, kind, token).await,
            _ => Err(Failure::NoMethod {
                name: call.member.clone(),
            }),
        };
        Ok(Reaction::Now(answer))
    }

    async fn own_method(
        &mut self,
        call: &Call,
        kind: Kind,
        token: &str,
    ) -> Result<Reaction, Failure> {
        let answer = match (kind, call.member.as_str()) {
            (Kind::Job, "Cancel") => self.cancel_job(call, token),
            (Kind::Job, "Pause") => self.pause_job(call, token, true),
            (Kind::Job, "Resume") => self.pause_job(call, token, false),
            (Kind::Job, "Steer") => self.steer_job(call, token),
            (Kind::Job, "Release") => self.release_job(call, token).await,
            (Kind::Session, "Close") => self.close_session(call, token).await,
            (Kind::Hold, "Release") => return self.release_hold(call, token).await,
            (_, other) => Err(Failure::NoMethod { name: other.into() }),
        };
        Ok(Reaction::Now(answer))
    }

    /// The object at a path; `None` when there is none that this caller may see.
    async fn object(&self, place: &Place<'_>, path: &str) -> Result<Option<Object>, Failure> {
        Ok(match place {
            Place::Folder => self.folder(path).await?,
            Place::Manager => {
                let known = self.shared.mirror.current().await?;
                Some(Object {
                    interfaces: &[&MANAGER, &OBJECT_MANAGER],
                    properties: self.manager_properties(&known),
                    children: self.folders(&known),
                })
            }
            Place::Model(name) => {
                let known = self.shared.mirror.current().await?;
                let view = known.models.as_ref().and_then(|all| all.get(*name));
                view.map(|view| leaf(&[&MODEL], view.properties()))
            }
            Place::Device(name) => {
                let known = self.shared.mirror.current().await?;
                let view = known.devices.as_ref().and_then(|all| all.get(*name));
                view.map(|view| leaf(&[&DEVICE], view.properties()))
            }
            Place::Own(kind, caller, token) => {
                let own = *caller == self.element;
                let values = own.then(|| self.own_properties(*kind, token)).flatten();
                values.map(|values| leaf(own_interfaces(*kind), values))
            }
        })
    }

    async fn folder(&self, path: &str) -> Result<Option<Object>, Failure> {
        let one = |child: &str| Some(vec![child.to_owned()]);
        let children = match path {
            "/" => one("org"),
            "/org" => one("moted"),
            "/org/moted" => one("Inference1"),
            _ => {
                let below = path.strip_prefix(ROOT).unwrap_or_default();
                let mut elements = below.trim_start_matches('/').split('/');
                let (folder, caller) = (elements.next().unwrap_or_default(), elements.next());
                let own = Kind::ALL.into_iter().find(|kind| kind.folder() == folder);
                match (folder, own, caller) {
                    ("model", ..) => {
                        let known = self.shared.mirror.current().await?;
                        known.models.as_ref().map(names)
                    }
                    ("device", ..) => {
                        let known = self.shared.mirror.current().await?;
                        known.devices.as_ref().map(names)
                    }
                    (_, Some(kind), None) if !self.tokens_of(kind).is_empty() => one(&self.element),
                    (_, Some(_), None) => Some(Vec::new()),
                    (_, Some(kind), Some(caller)) if caller == self.element => {
                        Some(self.tokens_of(kind))
                    }
                    _ => None,
                }
            }
        };
        Ok(children.map(|children| Object {
            interfaces: &[],
            properties: Dict::new(),
            children,
        }))
    }

    fn tokens_of(&self, kind: Kind) -> Vec<String> {
        let state = &self.state;
        match kind {
            Kind::Job => names(&state.jobs),
            Kind::Session => names(&state.sessions),
            Kind::Hold => names(&state.holds),
        }
    }

    fn folders(&self, known: &Snapshot) -> Vec<String> {
        let own = Kind::ALL.into_iter();
        let own = own.filter(|kind| !self.tokens_of(*kind).is_empty());
        let devices = known.devices.as_ref().map(|_| "device");
        let folders = ["model"].into_iter().chain(devices);
        folders
            .chain(own.map(Kind::folder))
            .map(str::to_owned)
            .collect()
    }

    fn manager_properties(&self, known: &Snapshot) -> Dict {
        fn count<T>(objects: Option<&Objects<T>>) -> u32 {
            let count = objects.map_or(0, BTreeMap::len);
            u32::try_from(count).unwrap_or(u32::MAX)
        }
        Dict::from([
            ("Version".into(), INTERFACE_VERSION.into()),
            ("ServerVersion".into(), known.server_version.clone().into()),
            ("WireVersion".into(), WIRE_VERSION.into()),
            ("Models".into(), count(known.models.as_ref()).into()),
            ("Devices".into(), count(known.devices.as_ref()).into()),
            ("Uses".into(), self.shared.uses.clone().into()),
        ])
    }

    fn peer(&mut self, call: &Call) -> Result<Reaction, Failure> {
        if call.member == "Ping" {
            return Ok(Reaction::Now(call.answer(&())));
        }
        // The bus runs on the same machine, and knows.
        let bus = self.shared.bus.clone();
        Ok(self.beside(call, |call| async move {
            let target = (BUS, BUS_PATH, PEER.name);
            let reply = bus.ask(target, "GetMachineId", &()).await;
            let id = reply.and_then(|reply| reply.body().deserialize::<String>());
            let failed = |error| crate::bus::internal("ask for the machine's id", &error);
            call.answer(&id.map_err(failed)?)
        }))
    }

    /// Everything this caller may see. Devices that are being probed are waited for, within reason.
    fn managed_objects(&mut self, call: &Call) -> Reaction {
        let mut objects: BTreeMap<String, (&'static str, Dict)> = BTreeMap::new();
        for kind in Kind::ALL {
            for token in self.tokens_of(kind) {
                if let Some(values) = self.own_properties(kind, &token) {
                    let name = Self::own_interface(kind).name;
                    objects.insert(self.path(kind, &token), (name, values));
                }
            }
        }
        let mirror = self.shared.mirror.clone();
        self.beside(call, |call| async move {
            let mut known: Arc<Snapshot> = mirror.models().await?;
            if known.devices.is_none() {
                let wait = Duration::from_millis(DEVICES_WAIT_MS);
                if let Ok(probed) = timeout(wait, mirror.devices(false)).await {
                    known = probed?;
                }
            }
            for (name, view) in known.models.iter().flatten() {
                let path = format!("{ROOT}/model/{name}");
                objects.insert(path, (MODEL.name, view.properties()));
            }
            for (name, view) in known.devices.iter().flatten() {
                let path = format!("{ROOT}/device/{name}");
                objects.insert(path, (DEVICE.name, view.properties()));
            }
            let objects = objects.into_iter().filter_map(|(path, (name, values))| {
                let path = ObjectPath::try_from(path).ok()?;
                Some((path, BTreeMap::from([(name, values)])))
            });
            call.answer(&objects.collect::<BTreeMap<_, _>>())
        })
    }
}

fn names<T>(objects: &Objects<T>) -> Vec<String> {
    objects.keys().cloned().collect()
}

fn leaf(interfaces: &'static [&'static Interface], properties: Dict) -> Object {
    Object {
        interfaces,
        properties,
        children: Vec::new(),
    }
}

fn own_interfaces(kind: Kind) -> &'static [&'static Interface] {
    match kind {
        Kind::Job => &[&describe::JOB],
        Kind::Session => &[&describe::SESSION],
        Kind::Hold => &[&describe::HOLD],
    }
}

/// The interface whose method is called, with arguments of its types.
fn find_method(object: &Object, call: &Call) -> Result<&'static Interface, Failure> {
    let mut interfaces: Vec<&'static Interface> = object.interfaces.to_vec();
    interfaces.extend(EVERYWHERE);
    if let Some(name) = &call.interface {
        interfaces.retain(|interface| interface.name == name);
        if interfaces.is_empty() {
            return Err(Failure::NoInterface { name: name.clone() });
        }
    }
    let methods = interfaces.into_iter().flat_map(|interface| {
        let methods = interface.methods.iter();
        methods.map(move |method| (interface, method))
    });
    let mut named = methods.filter(|(_, method)| method.name == call.member);
    let (interface, method) = named.next().ok_or_else(|| Failure::NoMethod {
        name: call.member.clone(),
    })?;
    let (wanted, got) = (method.input_signature(), call.signature());
    if wanted != got {
        return Err(Failure::Arguments { wanted, got });
    }
    Ok(interface)
}

fn introspect(object: &Object, call: &Call) -> Answer {
    let mut interfaces = object.interfaces.to_vec();
    interfaces.extend(EVERYWHERE);
    let children = object.children.iter().map(String::as_str);
    call.answer(&describe::xml(&interfaces, children))
}

fn properties(object: Object, call: &Call) -> Answer {
    let Object {
        interfaces,
        mut properties,
        ..
    } = object;
    let own = |name: &str| {
        let known = EVERYWHERE.into_iter().chain(interfaces.iter().copied());
        let has = interfaces.first().is_some_and(|first| first.name == name);
        match (has, known.clone().any(|interface| interface.name == name)) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => Err(Failure::NoInterface { name: name.into() }),
        }
    };
    let unknown = |name: String| Failure::NoProperty { name };
    match call.member.as_str() {
        "Get" => {
            let (interface, name): (String, String) = call.arguments()?;
            let found = if interface.is_empty() || own(&interface)? {
                properties.remove(&name)
            } else {
                None
            };
            call.answer(&found.ok_or_else(|| unknown(name))?)
        }
        "GetAll" => {
            let interface: String = call.arguments()?;
            if !interface.is_empty() && !own(&interface)? {
                properties.clear();
            }
            call.answer(&properties)
        }
        _ => {
            let (interface, name, _): (String, String, zbus::OwnedVariant) = call.arguments()?;
            if !own(&interface)? || !properties.contains_key(&name) {
                return Err(unknown(name));
            }
            Err(Failure::ReadOnly { name })
        }
    }
}
