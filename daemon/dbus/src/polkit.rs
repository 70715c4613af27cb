//! Who may change the machine.

use crate::bus::Bus;
use crate::door::Credentials;
use crate::failure::Failure;
use crate::limits::POLKIT_WAIT_MS;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;
use zbus::Variant;

/// Reading stores and runtimes anew.
pub const MANAGE_MODELS: &str = "org.moted.Inference1.manage-models";
/// Unloading a model that others hold or use.
pub const UNLOAD_MODELS: &str = "org.moted.Inference1.unload-models";

const AUTHORITY: &str = "org.freedesktop.PolicyKit1";
const AUTHORITY_PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const AUTHORITY_INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";
/// `AllowUserInteraction` of `CheckAuthorization`.
const INTERACTION: u32 = 1;

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The daemon's own user, who may do everything, as root may.
    pub own_uid: u32,
    /// Whether polkit decides about all others; otherwise they may not.
    pub ask: bool,
}

/// A caller that wants to change the machine.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its unique name.
    pub name: &'a str,
    /// Who it is.
    pub credentials: Credentials,
    /// Whether it is ready to wait while somebody types a password.
    pub interactive: bool,
}

impl Policy {
    /// Asks whether `asker` may do `action`. May take as long as a person does.
    ///
    /// # Errors
    /// [`Failure::NotAuthorized`], also when polkit is not there.
    pub async fn check(
        &self,
        bus: &Bus,
        asker: Asker<'_>,
        action: &'static str,
    ) -> Result<(), Failure> {
        let uid = asker.credentials.uid;
        if uid == 0 || uid == self.own_uid {
            return Ok(());
        }
        let refuse = |why: String| Failure::NotAuthorized { action, why };
        if !self.ask {
            return Err(refuse("it is for the user of the daemon alone".into()));
        }
        let limit = Duration::from_millis(POLKIT_WAIT_MS);
        let (authorized, challenge) = timeout(limit, ask(bus, asker, action))
            .await
            .map_err(|_| refuse("nobody answered the question".into()))?
            .map_err(|error| refuse(format!("polkit cannot be asked: {error}")))?;
        match (authorized, challenge) {
            (true, _) => Ok(()),
            (false, true) => Err(refuse("it takes a password".into())),
            (false, false) => Err(refuse("polkit's rules forbid it".into())),
        }
    }
}

async fn ask(bus: &Bus, asker: Asker<'_>, action: &str) -> zbus::Result<(bool, bool)> {
    let subject = BTreeMap::from([("name", Variant::from(asker.name))]);
    let flags = if asker.interactive { INTERACTION } else { 0 };
    let arguments = (
        ("system-bus-name", subject),
        action,
        BTreeMap::<&str, &str>::new(),
        flags,
        "",
    );
    let place = (AUTHORITY, AUTHORITY_PATH, AUTHORITY_INTERFACE);
    let reply = bus.ask(place, "CheckAuthorization", &arguments).await?;
    let result: (bool, bool, BTreeMap<String, String>) = reply.body().deserialize()?;
    Ok((result.0, result.1))
}
