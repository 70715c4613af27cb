//! Telling events to those that watch.

use super::Core;
use crate::ids::{ConnectionId, RequestKey};
use mote_wire::types::{Event, EventKind, Reply};

impl Core {
    /// Tells an event to everyone who watches and has credit left, and counts it for the others.
    pub(super) fn emit(&mut self, kind: EventKind) {
        self.emit_to(&kind, |_| true);
    }

    /// As [`Core::emit`], for what concerns the job of one client: those of other users do not hear
    /// of it, except for root's and the daemon's own.
    pub(super) fn emit_of(&mut self, client: ConnectionId, kind: &EventKind) {
        let user = self.uid_of(client);
        let (root, own) = (0, self.settings.uid);
        self.emit_to(kind, |uid| [root, own].contains(&uid) || Some(uid) == user);
    }

    fn emit_to(&mut self, kind: &EventKind, may_hear: impl Fn(u32) -> bool) {
        let watching = self
            .connections
            .iter()
            .filter(|(_, one)| one.watch.is_some() && may_hear(one.peer.uid));
        for connection in watching.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.tell(connection, kind.clone());
        }
    }

    fn tell(&mut self, connection: ConnectionId, kind: EventKind) {
        let Some(watch) = self
            .connections
            .get_mut(&connection)
            .and_then(|one| one.watch.as_mut())
        else {
            return;
        };
        if watch.credit == 0 {
            watch.dropped += 1;
            return;
        }
        watch.credit -= 1;
        let key = RequestKey {
            connection,
            request: watch.request,
        };
        let at_ms = self.uptime_ms();
        self.reply(key, Reply::Event(Event { at_ms, kind }));
    }

    /// Says how many events were dropped, now that there is credit to say so.
    pub(super) fn tell_dropped(&mut self, connection: ConnectionId) {
        let watch = self
            .connections
            .get_mut(&connection)
            .and_then(|one| one.watch.as_mut());
        if let Some(watch) = watch
            && watch.credit > 0
            && watch.dropped > 0
        {
            let count = std::mem::take(&mut watch.dropped);
            self.tell(connection, EventKind::EventsDropped { count });
        }
    }

    pub(super) fn uptime_ms(&self) -> u64 {
        let uptime = self.now.saturating_duration_since(self.settings.started);
        u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
    }
}
