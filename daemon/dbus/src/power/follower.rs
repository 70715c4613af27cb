//! The one task that hears the peers and holds the lock.

use super::peers::{DISPLAY_DEVICE, PEERS, PROPERTIES, Peer, Place, changes};
use super::{PowerError, PowerNews};
use crate::bus::Bus;
use crate::names::BUS;
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, OwnedVariant, Variant};

type Values = BTreeMap<String, OwnedVariant>;

/// An answer to what was asked. Nobody answers when the peer is not there, or has no such thing.
enum Answer {
    Owner(Peer, Option<String>),
    /// Properties of an object of a peer, with the owner that was asked.
    Properties(Peer, Place, String, Option<Values>),
    Lock(Option<OwnedFd>),
    Nothing,
}

/// A peer that is there.
#[derive(Debug, Default)]
struct Present {
    /// Its unique name. Signals of nobody else are believed: the bus passes on what anybody sends to
    /// this connection directly.
    owner: String,
    active: Option<String>,
    degraded: Option<String>,
    on_battery: Option<bool>,
}

pub(super) struct Follower {
    bus: Bus,
    messages: MessageStream,
    working: watch::Receiver<bool>,
    news: mpsc::Sender<PowerNews>,
    present: BTreeMap<Peer, Present>,
    /// Peers of whose coming or going the bus has told: what it answered before is older.
    told_of: BTreeSet<Peer>,
    percent: Option<u8>,
    works: bool,
    lock: Option<OwnedFd>,
    locking: bool,
    asked: JoinSet<Answer>,
}

impl Follower {
    pub fn new(
        connection: Connection,
        working: watch::Receiver<bool>,
        news: mpsc::Sender<PowerNews>,
    ) -> Self {
        Self {
            bus: Bus::new(connection.clone()),
            messages: MessageStream::from(connection),
            working,
            news,
            present: BTreeMap::new(),
            told_of: BTreeSet::new(),
            percent: None,
            works: false,
            lock: None,
            locking: false,
            asked: JoinSet::new(),
        }
    }

    pub async fn run(mut self) -> PowerError {
        for peer in PEERS {
            for rule in peer.rules() {
                self.listen("AddMatch", rule);
            }
            self.ask_owner(peer);
        }
        match self.serve().await {
            Ok(()) => PowerError::Gone,
            Err(error) => error,
        }
    }

    async fn serve(&mut self) -> Result<(), PowerError> {
        loop {
            tokio::select! {
                message = self.messages.next() => match message {
                    Some(Ok(message)) => self.hear(&message).await?,
                    Some(Err(error)) => log::debug!("from the bus: {error}"),
                    None => return Ok(()),
                },
                Some(answer) = self.asked.join_next() => {
                    self.answered(answer.unwrap_or(Answer::Nothing)).await?;
                }
                changed = self.working.changed() => {
                    changed.map_err(|_| PowerError::Unheard)?;
                    let works = *self.working.borrow_and_update();
                    self.works(works).await?;
                }
            }
        }
    }

    async fn tell(&self, news: PowerNews) -> Result<(), PowerError> {
        let told = self.news.send(news).await;
        told.map_err(|_| PowerError::Unheard)
    }

    /// Adds or removes a match rule.
    fn listen(&mut self, method: &'static str, rule: String) {
        let bus = self.bus.clone();
        self.asked.spawn(async move {
            if let Err(error) = bus.ask_bus(method, &rule).await {
                log::warn!("the bus refuses to {method}: {error}");
            }
            Answer::Nothing
        });
    }

    fn ask_owner(&mut self, peer: Peer) {
        let bus = self.bus.clone();
        self.asked.spawn(async move {
            let reply = bus.ask_bus("GetNameOwner", &peer.name()).await;
            // It has none when the peer is not there.
            Answer::Owner(peer, reply.ok().and_then(|reply| text_of(&reply)))
        });
    }

    fn ask_properties(&mut self, peer: Peer, place: Place) {
        let Some(owner) = self.present.get(&peer).map(|one| one.owner.clone()) else {
            return;
        };
        let bus = self.bus.clone();
        self.asked.spawn(async move {
            let target = (owner.as_str(), place.0, PROPERTIES);
            let reply = bus.ask(target, "GetAll", &place.1).await;
            let values = match reply {
                Ok(reply) => reply.body().deserialize().ok(),
                Err(error) => {
                    log::debug!("{peer} does not tell its properties: {error}");
                    None
                }
            };
            Answer::Properties(peer, place, owner, values)
        });
    }

    async fn answered(&mut self, answer: Answer) -> Result<(), PowerError> {
        match answer {
            Answer::Owner(peer, owner) if !self.told_of.contains(&peer) => {
                self.owned(peer, owner).await
            }
            Answer::Properties(peer, place, owner, Some(values)) => {
                if self.is_from(peer, &owner) {
                    self.take(peer, place, &values).await?;
                }
                Ok(())
            }
            Answer::Lock(lock) => {
                self.locking = false;
                self.set_lock(lock.filter(|_| self.works)).await
            }
            Answer::Owner(..) | Answer::Properties(_, _, _, None) | Answer::Nothing => Ok(()),
        }
    }

    fn is_from(&self, peer: Peer, sender: &str) -> bool {
        self.present
            .get(&peer)
            .is_some_and(|present| present.owner == sender)
    }

    /// A peer has come, gone, or was there all the time.
    async fn owned(&mut self, peer: Peer, owner: Option<String>) -> Result<(), PowerError> {
        if self.present.get(&peer).map(|one| &one.owner) == owner.as_ref() {
            return Ok(());
        }
        log::debug!(peer:% = peer, there = owner.is_some(); "a power service");
        self.present.remove(&peer);
        let is_here = owner.is_some();
        if let Some(owner) = owner {
            let present = Present {
                owner,
                ..Present::default()
            };
            self.present.insert(peer, present);
        }
        match peer {
            Peer::Profiles | Peer::ProfilesOld if is_here => {
                self.ask_properties(peer, peer.place())
            }
            Peer::Profiles | Peer::ProfilesOld => self.tell_profile().await?,
            Peer::Supply => {
                self.percent = None;
                self.tell_supply().await?;
                self.ask_properties(peer, peer.place());
                if self.works {
                    self.ask_properties(peer, DISPLAY_DEVICE);
                }
            }
            Peer::Login => {
                // A lock of one that has gone locks nothing.
                self.set_lock(None).await?;
                self.lock_if_working();
                if !is_here {
                    self.tell(PowerNews::Awake).await?;
                }
            }
        }
        Ok(())
    }

    async fn hear(&mut self, message: &Message) -> Result<(), PowerError> {
        let header = message.header();
        if header.message_type() != Type::Signal {
            return Ok(());
        }
        let (Some(sender), Some(member)) = (header.sender(), header.member()) else {
            return Ok(());
        };
        let body = message.body();
        match member.as_str() {
            "NameOwnerChanged" if sender.as_str() == BUS => {
                let Ok((name, _, owner)) = body.deserialize::<(String, String, String)>() else {
                    return Ok(());
                };
                if let Some(peer) = Peer::from_name(&name) {
                    self.told_of.insert(peer);
                    self.owned(peer, (!owner.is_empty()).then_some(owner))
                        .await?;
                }
            }
            "PrepareForSleep" if self.is_from(Peer::Login, sender.as_str()) => {
                if let Ok(sleeps) = body.deserialize::<bool>() {
                    let news = if sleeps {
                        PowerNews::Sleeping
                    } else {
                        PowerNews::Awake
                    };
                    self.tell(news).await?;
                }
            }
            "PropertiesChanged" => {
                let changed = body.deserialize::<(String, Values, Vec<String>)>();
                let (Ok((interface, values, invalidated)), Some(path)) = (changed, header.path())
                else {
                    return Ok(());
                };
                let from = PEERS
                    .into_iter()
                    .filter(|peer| self.is_from(*peer, sender.as_str()));
                let places = from.flat_map(|peer| [(peer, peer.place()), (peer, DISPLAY_DEVICE)]);
                let found = places
                    .into_iter()
                    .find(|(_, place)| *place == (path.as_str(), interface.as_str()));
                if let Some((peer, place)) = found {
                    self.take(peer, place, &values).await?;
                    if !invalidated.is_empty() {
                        self.ask_properties(peer, place);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes properties in that have changed, or all of them.
    async fn take(&mut self, peer: Peer, place: Place, values: &Values) -> Result<(), PowerError> {
        if place == DISPLAY_DEVICE {
            let is_present = flag(values, "IsPresent") != Some(false);
            let percent = number(values, "Percentage");
            if let Some(percent) = percent.filter(|_| is_present && self.works) {
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "it is between 0 and 100"
                )]
                let percent = percent.clamp(0.0, 100.0) as u8;
                if self.percent.replace(percent) != Some(percent) {
                    self.tell_supply().await?;
                }
            }
            return Ok(());
        }
        let Some(present) = self.present.get_mut(&peer) else {
            return Ok(());
        };
        match peer {
            Peer::Profiles | Peer::ProfilesOld => {
                if let Some(active) = text(values, "ActiveProfile") {
                    present.active = Some(active);
                }
                if let Some(degraded) = text(values, "PerformanceDegraded") {
                    present.degraded = Some(degraded).filter(|why| !why.is_empty());
                }
                self.tell_profile().await
            }
            Peer::Supply => match flag(values, "OnBattery") {
                Some(on_battery) if present.on_battery != Some(on_battery) => {
                    present.on_battery = Some(on_battery);
                    self.tell_supply().await
                }
                _ => Ok(()),
            },
            Peer::Login => Ok(()),
        }
    }

    async fn tell_profile(&self) -> Result<(), PowerError> {
        let profiles = [Peer::Profiles, Peer::ProfilesOld];
        let mut known = profiles.iter().filter_map(|peer| self.present.get(peer));
        let known = known.find(|present| present.active.is_some());
        self.tell(PowerNews::Profile {
            active: known.and_then(|present| present.active.clone()),
            degraded: known.and_then(|present| present.degraded.clone()),
        })
        .await
    }

    async fn tell_supply(&self) -> Result<(), PowerError> {
        let supply = self.present.get(&Peer::Supply);
        self.tell(PowerNews::Supply {
            on_battery: supply.and_then(|present| present.on_battery),
            percent: self.percent,
        })
        .await
    }

    /// Work begins to last, or has ended.
    async fn works(&mut self, works: bool) -> Result<(), PowerError> {
        if self.works == works {
            return Ok(());
        }
        self.works = works;
        let rule = changes(Peer::Supply, DISPLAY_DEVICE);
        if works {
            self.listen("AddMatch", rule);
            self.ask_properties(Peer::Supply, DISPLAY_DEVICE);
            self.lock_if_working();
        } else {
            self.listen("RemoveMatch", rule);
            self.set_lock(None).await?;
        }
        Ok(())
    }

    async fn set_lock(&mut self, lock: Option<OwnedFd>) -> Result<(), PowerError> {
        let (held, was_held) = (lock.is_some(), self.lock.is_some());
        self.lock = lock;
        if held == was_held {
            return Ok(());
        }
        self.tell(PowerNews::Lock(held)).await
    }

    fn lock_if_working(&mut self) {
        let login = self.present.get(&Peer::Login);
        let Some(login) = login.filter(|_| self.works && self.lock.is_none() && !self.locking)
        else {
            return;
        };
        self.locking = true;
        let (bus, owner) = (self.bus.clone(), login.owner.clone());
        self.asked.spawn(async move {
            let (path, interface) = Peer::Login.place();
            let arguments = ("sleep", "Mote", "A model is at work", "delay");
            let reply = bus.ask((&owner, path, interface), "Inhibit", &arguments);
            let lock = match reply.await {
                Ok(reply) => reply.body().deserialize::<zbus::OwnedFd>().ok(),
                Err(error) => {
                    log::info!("sleep cannot be delayed: {error}");
                    None
                }
            };
            Answer::Lock(lock.map(OwnedFd::from))
        });
    }
}

fn text_of(reply: &Message) -> Option<String> {
    reply.body().deserialize().ok()
}

fn text(values: &Values, name: &str) -> Option<String> {
    match &**values.get(name)? {
        Variant::Str(text) => Some(text.to_string()),
        _ => None,
    }
}

fn flag(values: &Values, name: &str) -> Option<bool> {
    match &**values.get(name)? {
        Variant::Bool(flag) => Some(*flag),
        _ => None,
    }
}

fn number(values: &Values, name: &str) -> Option<f64> {
    match &**values.get(name)? {
        Variant::F64(number) => Some(*number),
        _ => None,
    }
}
