//! How far a caller's reading may lag behind what it is sent.
//!
//! The bus has no back-pressure: what a receiver does not read piles up in the bus daemon. So a
//! caller is asked now and then whether it reads, by `org.freedesktop.DBus.Peer.Ping`: messages
//! keep their order, so an answer says that all before it was read. The call has a random serial, so
//! that only who has read it can answer. Any answer will do, an error as well.

use crate::bus::Bus;
use crate::limits::{PING_EVERY_BYTES, STALL_MS_MAX, UNREAD_BYTES_MAX};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// The caller has not read for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the caller does not read")]
pub struct Stalled;

/// One caller's.
#[derive(Debug, Default)]
pub struct Pace {
    state: Mutex<State>,
    changed: Notify,
}

/// Bytes are counted from the first one sent.
#[derive(Debug, Default)]
struct State {
    sent: u64,
    read: u64,
    asked: u64,
    ping: Option<NonZeroU32>,
}

impl Pace {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that were sent and not seen to be read.
    pub fn unread(&self) -> u64 {
        let state = self.state();
        state.sent - state.read
    }

    /// Whether more may be sent.
    pub fn is_open(&self) -> bool {
        self.unread() < UNREAD_BYTES_MAX
    }

    /// Waits until more may be sent.
    pub async fn opened(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_open() {
                return;
            }
            changed.await;
        }
    }

    /// As [`Pace::opened`], within limits.
    ///
    /// # Errors
    /// When the caller does not read for [`STALL_MS_MAX`].
    pub async fn admit(&self) -> Result<(), Stalled> {
        if self.is_open() {
            return Ok(());
        }
        let limit = Duration::from_millis(STALL_MS_MAX);
        timeout(limit, self.opened()).await.map_err(|_| Stalled)
    }

    /// Bytes were sent to the caller; asks it, if need be, whether it reads.
    pub async fn sent(&self, bus: &Bus, caller: &str, bytes: u64) {
        let serial = {
            let mut state = self.state();
            state.sent += bytes;
            if state.ping.is_some() || state.sent - state.asked.max(state.read) < PING_EVERY_BYTES {
                return;
            }
            let serial = random_serial();
            state.ping = Some(serial);
            state.asked = state.sent;
            serial
        };
        bus.ping(caller, serial).await;
    }

    /// An answer of the caller to a call with this serial.
    pub fn answered(&self, serial: NonZeroU32) {
        let mut state = self.state();
        if state.ping == Some(serial) {
            state.ping = None;
            state.read = state.read.max(state.asked);
            drop(state);
            self.changed.notify_waiters();
        }
    }

    /// All that was sent until now.
    pub fn mark(&self) -> u64 {
        self.state().sent
    }

    /// The caller says that it has read all up to a [`Pace::mark`].
    pub fn acknowledged(&self, mark: u64) {
        let mut state = self.state();
        state.read = state.read.max(mark);
        drop(state);
        self.changed.notify_waiters();
    }
}

/// A number that nobody else can guess: keyed hashes of the standard library, whose key comes from
/// the system.
fn random_serial() -> NonZeroU32 {
    loop {
        let number = RandomState::new().hash_one(0_u8);
        #[allow(clippy::cast_possible_truncation, reason = "the upper half of 64 bits")]
        if let Some(serial) = NonZeroU32::new((number >> 32) as u32) {
            return serial;
        }
    }
}
