//! How much power work may cost here, and what slows the machine down: from the user's word, the power
//! profile, the supply and the temperatures.

use crate::limits::{
    BATTERY_LOW_PERCENT, CRITICAL_MARGIN_MILLIDEGREES, HEAT_FRESH_MS, HEAT_READINGS,
};
pub use mote_api::Throttle;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What work may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Whatever makes it faster.
    Performance,
    /// All cores, but no power for nothing where power or cooling is scarce.
    Balanced,
    /// Half of the cores, and nothing for nothing.
    Efficient,
}

/// What the user says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting {
    /// The machine decides.
    #[default]
    Auto,
    /// Always this.
    Always(Policy),
}

/// A word that is no setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write performance, balanced, efficient or auto")]
pub struct UnknownSetting;

/// The profile that power-profiles-daemon has made active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as they are called there")]
pub enum Profile {
    Performance,
    Balanced,
    PowerSaver,
}

/// Where the power comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// From a battery.
    pub on_battery: bool,
    /// How full it is, where that is known.
    pub percent: Option<u8>,
}

/// What the kernel does at a temperature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TripKind {
    /// It slows devices down.
    Passive,
    /// It tells user space.
    Hot,
    /// It turns the machine off.
    Critical,
}

/// A temperature at which the kernel does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// What.
    pub kind: TripKind,
    /// At which temperature, in thousandths of a degree Celsius.
    pub millidegrees: i32,
}

/// A place whose temperature is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The kernel's name for it.
    pub name: String,
    /// Its temperature, in thousandths of a degree Celsius.
    pub millidegrees: i32,
    /// Never empty.
    pub trips: Vec<Trip>,
}

impl Zone {
    /// How far it is above the lowest temperature that counts as hot, in thousandths of a degree.
    fn excess(&self) -> Option<i32> {
        let limit = |trip: &Trip| match trip.kind {
            TripKind::Passive | TripKind::Hot => trip.millidegrees,
            TripKind::Critical => trip
                .millidegrees
                .saturating_sub(CRITICAL_MARGIN_MILLIDEGREES),
        };
        let lowest = self.trips.iter().map(limit).min()?;
        Some(self.millidegrees.saturating_sub(lowest))
    }
}

/// One look at the temperatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// Zones that could be read.
    pub zones: Vec<Zone>,
    /// Cooling devices that slow a processor down, as they cool by doing so; `None` when there is no
    /// such device.
    pub slowed: Option<Vec<String>>,
    /// How often processors have slowed down by themselves since the machine started.
    pub throttled: Option<u64>,
}

/// What was heard or seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The active profile, if there are profiles, and why the machine cannot keep up with it.
    Profile(Option<Profile>, Option<String>),
    /// The supply, if it is known.
    Supply(Option<Supply>),
    /// Temperatures.
    Heat(Reading),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stance {
    /// What work may cost.
    pub policy: Policy,
    /// Whether threads may spin while they wait, on a machine that is idle otherwise.
    pub spin: bool,
    /// Whether work that nobody waits for is done now.
    pub background: bool,
    /// Why.
    pub why: Why,
}

/// Why a stance was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    reason: Reason,
    hot: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Setting,
    Profile(Profile),
    Battery(Option<u8>),
    Default,
}

/// Keeps what was observed, with hysteresis for heat.
#[derive(Clone, Debug)]
pub struct Monitor {
    setting: Setting,
    profile: Option<Profile>,
    degraded: Option<String>,
    supply: Option<Supply>,
    last: Option<Seen>,
    /// Where it was hot when it was last so, until it has been cool for long enough.
    hot: Option<String>,
    cool_in_a_row: u32,
}

/// What is kept of a reading.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    throttled: Option<u64>,
    heat: Throttle,
}

impl Monitor {
    /// Nothing observed yet.
    pub fn new(setting: Setting) -> Self {
        Self {
            setting,
            profile: None,
            degraded: None,
            supply: None,
            last: None,
            hot: None,
            cool_in_a_row: 0,
        }
    }

    /// Takes an observation in; answers whether the stance is another one now.
    pub fn observe(&mut self, observation: Observation) -> bool {
        let before = self.stance();
        match observation {
            Observation::Profile(profile, degraded) => {
                (self.profile, self.degraded) = (profile, degraded);
            }
            Observation::Supply(supply) => self.supply = supply,
            Observation::Heat(reading) => self.heat(&reading),
        }
        self.stance() != before
    }

    fn heat(&mut self, reading: &Reading) {
        let before = self.last.as_ref().and_then(|last| last.throttled);
        let counted = before.zip(reading.throttled);
        let place = hottest(&reading.zones)
            .or_else(|| reading.slowed.as_ref()?.first().cloned())
            .or_else(|| {
                counted
                    .is_some_and(|(then, now)| now > then)
                    .then(|| "cpu".into())
            });
        let can_tell = !reading.zones.is_empty() || reading.slowed.is_some() || counted.is_some();
        let heat = match &place {
            Some(place) => Throttle::Thermal {
                place: place.clone(),
            },
            None if can_tell => Throttle::None,
            None => Throttle::Unknown,
        };
        self.last = Some(Seen {
            at: reading.at,
            throttled: reading.throttled,
            heat,
        });
        match place {
            Some(place) => {
                self.cool_in_a_row = 0;
                // A place that stays hot stays the one that is named.
                self.hot.get_or_insert(place);
            }
            None => {
                self.cool_in_a_row = self.cool_in_a_row.saturating_add(1);
                if self.cool_in_a_row >= HEAT_READINGS {
                    self.hot = None;
                }
            }
        }
    }

    fn battery_is_low(&self) -> bool {
        let low = |supply: Supply| {
            supply.on_battery && supply.percent.is_some_and(|p| p <= BATTERY_LOW_PERCENT)
        };
        self.supply.is_some_and(low)
    }

    fn on_battery(&self) -> bool {
        self.supply.is_some_and(|supply| supply.on_battery)
    }

    fn hot(&self) -> Option<&String> {
        self.degraded.as_ref().or(self.hot.as_ref())
    }

    fn policy(&self) -> (Policy, Reason) {
        let percent = self.supply.and_then(|supply| supply.percent);
        match (self.setting, self.profile) {
            (Setting::Always(policy), _) => (policy, Reason::Setting),
            (_, Some(profile @ Profile::Performance)) => {
                (Policy::Performance, Reason::Profile(profile))
            }
            (_, Some(profile @ Profile::PowerSaver)) => {
                (Policy::Efficient, Reason::Profile(profile))
            }
            _ if self.battery_is_low() => (Policy::Efficient, Reason::Battery(percent)),
            _ if self.on_battery() => (Policy::Balanced, Reason::Battery(percent)),
            (_, Some(profile)) => (Policy::Balanced, Reason::Profile(profile)),
            (_, None) => (Policy::Balanced, Reason::Default),
        }
    }

    /// What is to be done as things stand.
    pub fn stance(&self) -> Stance {
        let (policy, reason) = self.policy();
        let hot = self.hot().cloned();
        Stance {
            policy,
            spin: match policy {
                Policy::Performance => true,
                Policy::Balanced => hot.is_none() && !self.on_battery(),
                Policy::Efficient => false,
            },
            background: policy != Policy::Efficient || (hot.is_none() && !self.battery_is_low()),
            why: Why { reason, hot },
        }
    }

    /// What slows work down at this moment. Temperatures that were taken too long ago say nothing.
    pub fn throttle(&self, now: Instant) -> Throttle {
        if let Some(why) = &self.degraded {
            return Throttle::Thermal { place: why.clone() };
        }
        let fresh = |seen: &&Seen| {
            now.saturating_duration_since(seen.at) <= Duration::from_millis(HEAT_FRESH_MS)
        };
        let last = self.last.as_ref().filter(fresh);
        let heat = last.map_or(Throttle::Unknown, |seen| seen.heat.clone());
        if self.policy().0 == Policy::Efficient {
            return heat.max(Throttle::PowerSaver);
        }
        heat
    }
}

/// The zone that is hottest by its own measure, if any is hot.
fn hottest(zones: &[Zone]) -> Option<String> {
    let by_excess = |zone: &Zone| Some((zone.excess()?, zone.name.clone()));
    let (excess, name) = zones.iter().filter_map(by_excess).max_by_key(|one| one.0)?;
    (excess >= 0).then_some(name)
}

impl Stance {
    /// The most threads of one model on a machine of `cores` cores, where that is less than all.
    pub fn threads_max(&self, cores: usize) -> Option<usize> {
        let fewer = cores.div_ceil(2);
        (self.policy == Policy::Efficient && fewer < cores).then_some(fewer)
    }
}

impl Profile {
    /// By the name it has on the bus.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "performance" => Self::Performance,
            "balanced" => Self::Balanced,
            "power-saver" => Self::PowerSaver,
            _ => return None,
        })
    }
}

impl FromStr for Setting {
    type Err = UnknownSetting;

    fn from_str(text: &str) -> Result<Self, UnknownSetting> {
        Ok(match text {
            "auto" => Self::Auto,
            "performance" => Self::Always(Policy::Performance),
            "balanced" => Self::Always(Policy::Balanced),
            "efficient" => Self::Always(Policy::Efficient),
            _ => return Err(UnknownSetting),
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Performance => "performance",
            Self::Balanced => "balanced",
            Self::Efficient => "efficient",
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Performance => "performance",
            Self::Balanced => "balanced",
            Self::PowerSaver => "power-saver",
        })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Setting => f.write_str("the daemon was started so")?,
            Reason::Profile(profile) => write!(f, "the power profile is {profile}")?,
            Reason::Battery(Some(percent)) => write!(f, "on battery, {percent} % left")?,
            Reason::Battery(None) => f.write_str("on battery")?,
            Reason::Default => f.write_str("nothing asks for another")?,
        }
        match &self.hot {
            Some(place) => write!(f, "; hot ({place})"),
            None => Ok(()),
        }
    }
}
