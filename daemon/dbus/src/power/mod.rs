//! What the machine's services say about power: profile, supply, sleep. And the lock that delays sleep
//! while work lasts.
//!
//! A client of power-profiles-daemon, UPower and logind. None of them is started for it, and any of
//! them may be missing, come and go. It waits for signals and sets no timer. How full the battery is
//! changes all the time, so that is followed only while work lasts.

mod follower;
mod peers;

use crate::BusAddress;
use follower::Follower;
use std::num::NonZeroUsize;
use tokio::sync::{mpsc, watch};
use zbus::connection;

/// Messages read from the bus ahead of those being handled.
const POWER_QUEUE_MAX: usize = 8;

/// Something has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PowerNews {
    /// The power profile.
    Profile {
        /// The active one; `None` when nobody keeps profiles.
        active: Option<String>,
        /// Why the machine cannot be as fast as the profile wants.
        degraded: Option<String>,
    },
    /// The supply.
    Supply {
        /// Whether it is a battery; `None` when nobody knows.
        on_battery: Option<bool>,
        /// How full the batteries are, as far as that was asked for.
        percent: Option<u8>,
    },
    /// Whether a lock is held that delays sleep.
    Lock(bool),
    /// The machine is about to sleep.
    Sleeping,
    /// It has slept, or does not sleep after all.
    Awake,
}

/// Why nothing more is heard.
#[derive(Debug, thiserror::Error)]
pub enum PowerError {
    /// No bus.
    #[error("cannot connect to the bus")]
    Connect(#[source] zbus::Error),
    /// The bus does not let it listen.
    #[error("cannot listen on the bus")]
    Listen(#[source] zbus::Error),
    /// The bus has closed the connection.
    #[error("the bus has gone")]
    Gone,
    /// Nobody wants to hear the news any more.
    #[error("nobody listens")]
    Unheard,
}

/// Follows what happens on the bus until it goes, which is what it returns.
///
/// `working` tells whether work lasts that sleep should wait for: as long as it does, a lock of logind
/// is held that delays sleep.
pub async fn follow_power(
    address: &BusAddress,
    working: watch::Receiver<bool>,
    news: mpsc::Sender<PowerNews>,
) -> PowerError {
    let builder = match address {
        BusAddress::System => connection::Builder::system(),
        BusAddress::Session => connection::Builder::session(),
        BusAddress::At(address) => connection::Builder::address(address.as_str()),
    };
    let queue = NonZeroUsize::new(POWER_QUEUE_MAX).unwrap_or(NonZeroUsize::MIN);
    match builder.max_queued(queue).build().await {
        Ok(connection) => Follower::new(connection, working, news).run().await,
        Err(error) => PowerError::Connect(error),
    }
}
