//! Power and heat: the machine's services on the system bus, and sensors in sysfs.
//!
//! Sensors are read only while something computes ([`Power::look`] goes with a look at the load), on a
//! thread that may wait for them; services are heard when they have something to say.

mod sysfs;

pub use sysfs::Sensors;

use crate::core::Event;
use crate::limits::POWER_NEWS_MAX;
use crate::policy::power::{Observation, Profile, Setting, Supply};
use mote_dbus::{BusAddress, PowerError, PowerNews, follow_power};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Where the system bus listens where nobody says otherwise.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// Says otherwise.
const SYSTEM_BUS_VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// What it is started with.
#[derive(Clone, Debug)]
pub struct PowerOptions {
    /// What the user says.
    pub setting: Setting,
    /// Where sysfs is.
    pub sysfs: PathBuf,
}

/// The ways to what is known of power and heat.
#[derive(Debug)]
pub struct Power {
    sysfs: PathBuf,
    sensors: Arc<Mutex<State>>,
    working: watch::Sender<bool>,
    events: mpsc::Sender<Event>,
}

#[derive(Debug)]
enum State {
    /// Not looked for yet.
    Unknown,
    Found(Arc<Sensors>),
    /// They are being read.
    Reading,
    /// There are none.
    Nothing,
}

impl Power {
    /// Begins to listen to services, if there is a bus and the user has not decided.
    pub fn start(options: PowerOptions, events: mpsc::Sender<Event>) -> Self {
        let (working, told) = watch::channel(false);
        if options.setting == Setting::Auto && is_system_bus_there() {
            tokio::spawn(listen(told, events.clone()));
        }
        Self {
            sysfs: options.sysfs,
            sensors: Arc::new(Mutex::new(State::Unknown)),
            working,
            events,
        }
    }

    /// Says whether work lasts that sleep should wait for.
    pub fn work_lasts(&self, lasts: bool) {
        self.working.send_replace(lasts);
    }

    /// Reads the sensors, if there are any; [`Event::Power`] follows.
    pub fn look(&self) {
        let Some(sensors) = take(&self.sensors) else {
            return;
        };
        let (root, slot, events) = (
            self.sysfs.clone(),
            Arc::clone(&self.sensors),
            self.events.clone(),
        );
        // A sensor may take its time.
        tokio::task::spawn_blocking(move || {
            let sensors = sensors.unwrap_or_else(|| find(&root));
            let is_empty = sensors.is_empty();
            let reading = (!is_empty).then(|| sensors.read());
            let mut state = slot.lock().unwrap_or_else(PoisonError::into_inner);
            // Unless they are to be looked for anew.
            if matches!(*state, State::Reading) {
                *state = if is_empty {
                    State::Nothing
                } else {
                    State::Found(sensors)
                };
            }
            drop(state);
            if let Some(reading) = reading {
                // The daemon is ending when nobody listens.
                let _ = events.blocking_send(Event::Power(Observation::Heat(reading)));
            }
        });
    }

    /// Has sensors looked for anew when they are read next: devices may have come or gone.
    pub fn forget_sensors(&self) {
        *self.sensors.lock().unwrap_or_else(PoisonError::into_inner) = State::Unknown;
    }
}

/// What to read, unless that is going on or there is nothing; `Some(None)` is to be looked for first.
fn take(sensors: &Mutex<State>) -> Option<Option<Arc<Sensors>>> {
    let mut state = sensors.lock().unwrap_or_else(PoisonError::into_inner);
    let found = match &*state {
        State::Unknown => None,
        State::Found(sensors) => Some(Arc::clone(sensors)),
        State::Reading | State::Nothing => return None,
    };
    *state = State::Reading;
    Some(found)
}

fn find(root: &Path) -> Arc<Sensors> {
    Arc::new(Sensors::find(root))
}

fn is_system_bus_there() -> bool {
    std::env::var_os(SYSTEM_BUS_VARIABLE).is_some() || Path::new(SYSTEM_BUS).exists()
}

/// Passes on what services say, until the bus goes.
async fn listen(working: watch::Receiver<bool>, events: mpsc::Sender<Event>) {
    let (tell, mut news) = mpsc::channel(POWER_NEWS_MAX);
    let follow = follow_power(&BusAddress::System, working, tell);
    let pass_on = async {
        while let Some(news) = news.recv().await {
            if events.send(event(news)).await.is_err() {
                break;
            }
        }
    };
    let (ended, ()) = tokio::join!(follow, pass_on);
    if let PowerError::Unheard = ended {
        return;
    }
    let cause = std::error::Error::source(&ended).map(ToString::to_string);
    log::info!(
        "nothing is heard of the machine's power: {ended}: {}",
        cause.unwrap_or_default()
    );
    for unknown in [
        Event::Power(Observation::Profile(None, None)),
        Event::Power(Observation::Supply(None)),
        Event::SleepDelayed(false),
        Event::Resumed,
    ] {
        let _ = events.send(unknown).await;
    }
}

fn event(news: PowerNews) -> Event {
    match news {
        PowerNews::Profile { active, degraded } => {
            let profile = active.as_deref().and_then(Profile::from_name);
            Event::Power(Observation::Profile(profile, degraded))
        }
        PowerNews::Supply {
            on_battery,
            percent,
        } => Event::Power(Observation::Supply(on_battery.map(|on_battery| Supply {
            on_battery,
            percent,
        }))),
        PowerNews::Lock(held) => Event::SleepDelayed(held),
        PowerNews::Sleeping => Event::Sleeping,
        PowerNews::Awake => Event::Resumed,
    }
}
