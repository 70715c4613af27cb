//! Connections of a caller's own to the wire.

use super::{Caller, Outcome, Reaction};
use crate::bus::{Answer, Call, internal};
use crate::describe::SESSION;
use crate::failure::Failure;
use crate::hang_up::hung_up;
use crate::limits::SESSIONS_PER_CALLER_MAX;
use crate::names::Kind;
use crate::options::Options;
use crate::values::Dict;
use mote_wire::types::Request;
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::task::AbortHandle;
use zbus::{OwnedFd, OwnedVariant};

/// A session. It ends with this value, whoever holds the other end.
pub struct Session {
    model: String,
    /// The daemon's end.
    socket: Arc<UnixStream>,
    watcher: Option<AbortHandle>,
}

impl Session {
    pub fn properties(&self) -> Dict {
        Dict::from([("Model".into(), self.model.clone().into())])
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
        // One whose peer has gone is as closed as it can be.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Caller {
    /// `OpenSession(model, options)`: answered when the model is known to be there.
    pub(super) fn open_session(&mut self, call: &Call) -> Result<Reaction, Failure> {
        let (model, options): (String, BTreeMap<String, OwnedVariant>) = call.arguments()?;
        let mut options = Options::new(options)?;
        let token = self.token(Kind::Session, &mut options)?;
        options.finish()?;
        let model = self.resolve(model)?;
        let have = self.state.sessions.len() + 1;
        if have > SESSIONS_PER_CALLER_MAX {
            return Err(Failure::over("sessions", have, SESSIONS_PER_CALLER_MAX));
        }
        let wire = self.wire()?;
        let (ours, kept) = self.connect()?;
        let session = Session {
            model: model.clone(),
            socket: Arc::new(kept),
            watcher: None,
        };
        self.state.sessions.insert(token.clone(), session);
        let (replier, call) = (self.replier(), call.clone());
        let path = self.path(Kind::Session, &token);
        self.running.spawn(async move {
            let known = wire.call(Request::InspectModel { model, load: false });
            let answer = match known.await {
                Ok(_) => open(&call, &path, ours),
                Err(status) => Err(status.into()),
            };
            let outcome = match &answer {
                Ok(_) => Outcome::SessionBegun(token),
                Err(_) => Outcome::Refused(Kind::Session, token),
            };
            replier.reply(&call, answer).await;
            outcome
        });
        Ok(Reaction::Later)
    }

    /// The caller has its socket.
    pub(super) async fn begin_session(&mut self, token: String) {
        let Some(session) = self.state.sessions.get_mut(&token) else {
            return;
        };
        let (socket, ended) = (Arc::clone(&session.socket), token.clone());
        session.watcher = Some(self.work.spawn(async move {
            match hung_up(socket).await {
                Ok(()) => Outcome::SessionOver(ended),
                Err(error) => {
                    log::warn!("cannot watch a session: {error}");
                    Outcome::Nothing
                }
            }
        }));
        self.tell_added(Kind::Session, &token, &SESSION).await;
    }

    /// `Session.Close(options)`.
    pub(super) async fn close_session(&mut self, call: &Call, token: &str) -> Answer {
        Options::new(call.arguments()?)?.finish()?;
        self.state.sessions.remove(token);
        self.tell_removed(Kind::Session, token, &SESSION).await;
        call.answer(&())
    }
}

fn open(call: &Call, path: &str, socket: UnixStream) -> Answer {
    let path =
        zbus::ObjectPath::try_from(path).map_err(|error| internal("name a session", &error))?;
    let socket = OwnedFd::from(std::os::fd::OwnedFd::from(socket));
    call.answer(&(path, socket))
}
