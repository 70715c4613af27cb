//! The services that know about power, as they are called on the bus.

use std::fmt;

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// power-profiles-daemon.
    Profiles,
    /// power-profiles-daemon under the name it had before version 0.20.
    ProfilesOld,
    /// UPower.
    Supply,
    /// logind.
    Login,
}

/// Where a peer has something: path and interface.
pub type Place = (&'static str, &'static str);

pub const PEERS: [Peer; 4] = [Peer::Profiles, Peer::ProfilesOld, Peer::Supply, Peer::Login];

/// All batteries as UPower sums them up.
pub const DISPLAY_DEVICE: Place = (
    "/org/freedesktop/UPower/devices/DisplayDevice",
    "org.freedesktop.UPower.Device",
);

pub const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

impl Peer {
    /// Its name on the bus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Profiles => "org.freedesktop.UPower.PowerProfiles",
            Self::ProfilesOld => "net.hadess.PowerProfiles",
            Self::Supply => "org.freedesktop.UPower",
            Self::Login => "org.freedesktop.login1",
        }
    }

    /// Its object.
    pub fn place(self) -> Place {
        match self {
            Self::Profiles => (
                "/org/freedesktop/UPower/PowerProfiles",
                "org.freedesktop.UPower.PowerProfiles",
            ),
            Self::ProfilesOld => ("/net/hadess/PowerProfiles", "net.hadess.PowerProfiles"),
            Self::Supply => ("/org/freedesktop/UPower", "org.freedesktop.UPower"),
            Self::Login => ("/org/freedesktop/login1", "org.freedesktop.login1.Manager"),
        }
    }

    /// By its name on the bus.
    pub fn from_name(name: &str) -> Option<Self> {
        PEERS.into_iter().find(|peer| peer.name() == name)
    }

    /// Match rules for what of it is of interest at any time.
    pub fn rules(self) -> [String; 2] {
        let name = self.name();
        let owner = format!(
            "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
             member='NameOwnerChanged',arg0='{name}'"
        );
        let (path, interface) = self.place();
        let news = match self {
            Self::Login => format!(
                "type='signal',sender='{name}',path='{path}',interface='{interface}',\
                 member='PrepareForSleep'"
            ),
            _ => changes(self, self.place()),
        };
        [owner, news]
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A match rule for changes of properties.
pub fn changes(peer: Peer, (path, interface): Place) -> String {
    format!(
        "type='signal',sender='{peer}',path='{path}',interface='{PROPERTIES}',\
         member='PropertiesChanged',arg0='{interface}'"
    )
}
