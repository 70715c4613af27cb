//! Mote on D-Bus: `org.moted.Inference1`, a gateway in front of the wire.
//!
//! Every caller on the bus is served through a wire connection of its own, which the daemon treats
//! as one that the caller itself had opened: quotas, journal, pins, cancellation and statuses are
//! the wire's. The gateway knows the bus and the wire, and nothing of what is behind the wire.
//!
//! * [`Gateway`]: the connection to the bus; hands each message to its sender's task.
//! * `caller/`: one task per caller, which holds all that is that caller's: nobody else's calls
//!   reach it, so that nobody sees or ends another's work.
//! * `mirror`: models and devices, as objects everybody may see.
//! * `wire`: the client of the wire. `pace`: how far a caller's reading may lag.
//! * `power/`: not the gateway, but the client of the machine's services for power.
//! * `describe/`: what the interfaces look like; what is introspected and checked comes from it.
//!
//! Everything runs on the tokio runtime that is current, sets no timer while nothing is stuck, and
//! starts no thread.
#![deny(unsafe_code)]

mod bus;
mod caller;
mod describe;
mod door;
mod failure;
mod gateway;
mod hang_up;
pub mod limits;
mod mirror;
mod names;
mod options;
mod pace;
mod polkit;
mod power;
mod values;
mod wire;

pub use door::{Credentials, Door};
pub use gateway::{BusAddress, Gateway, GatewayError, Settings};
pub use names::SERVICE;
pub use power::{PowerError, PowerNews, follow_power};
