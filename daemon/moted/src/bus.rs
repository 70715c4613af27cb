//! D-Bus: the gateway's way in.

use crate::limits::BUS_VISITORS_MAX;
use crate::session::Credentials;
use mote_dbus::{BusAddress, Door, Gateway, Settings};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A connection that the gateway makes for a caller.
pub type Visitor = (UnixStream, Credentials);

/// What the service on the bus is started with.
#[derive(Clone, Debug)]
pub struct BusOptions {
    /// Which bus.
    pub address: BusAddress,
    /// Models by their use, as in `use:chat`.
    pub uses: BTreeMap<String, String>,
}

struct BusDoor(mpsc::Sender<Visitor>);

impl Door for BusDoor {
    fn serve(&self, socket: UnixStream, peer: mote_dbus::Credentials) -> io::Result<()> {
        let peer = Credentials {
            uid: peer.uid,
            pid: peer.pid,
        };
        self.0
            .try_send((socket, peer))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => io::ErrorKind::WouldBlock.into(),
                mpsc::error::TrySendError::Closed(_) => io::ErrorKind::BrokenPipe.into(),
            })
    }
}

/// Starts the service on the bus, if there is to be one, and gives the connections that it makes.
pub fn start(options: Option<BusOptions>) -> (mpsc::Receiver<Visitor>, Option<JoinHandle<()>>) {
    let (way_in, visitors) = mpsc::channel(BUS_VISITORS_MAX);
    let door: Arc<dyn Door> = Arc::new(BusDoor(way_in));
    let gateway = options.map(|options| tokio::spawn(serve(options, door)));
    (visitors, gateway)
}

async fn serve(options: BusOptions, door: Arc<dyn Door>) {
    let own = mote_dbus::Credentials {
        uid: nix::unistd::getuid().as_raw(),
        pid: nix::unistd::getpid().as_raw(),
    };
    let settings = Settings {
        own,
        uses: options.uses,
    };
    // Without a bus the socket still serves.
    let ended = match Gateway::connect(&options.address, door, settings).await {
        Ok(gateway) => {
            log::info!(name = mote_dbus::SERVICE; "serving on the bus");
            gateway.run().await
        }
        Err(error) => error,
    };
    let cause = std::error::Error::source(&ended).map(ToString::to_string);
    log::error!(
        "no service on the bus: {ended}: {}",
        cause.unwrap_or_default()
    );
}
