//! The broker: sockets, catalogue, planner, scheduler, memory ledger, supervision of workers.
//!
//! It never links or loads an inference library; those live in worker processes.
//!
//! * [`daemon`]: the loop that carries events to the core and its effects out.
//! * [`core`]: the one owner of all state, a state machine without I/O.
//! * [`policy`]: planner, ledger, queue, load, history: plain structs the core asks.
//! * [`catalogue`], [`flavours`] and [`drivers`]: what lies on the disk.
//! * [`state`]: files of what was found out.
//! * [`power`]: what the machine's services and sensors say.
//! * [`listen`], [`bus`] and [`session`]: clients. [`workers`] and [`probe`]: child processes.
#![deny(unsafe_code)]

pub mod bus;
pub mod catalogue;
pub mod compiled;
pub mod core;
pub mod daemon;
pub mod drivers;
pub mod flavours;
pub mod ids;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod machine;
pub mod policy;
pub mod power;
pub mod probe;
pub mod service;
pub mod session;
pub mod state;
pub mod trial;
pub mod workers;

mod convert;
mod streams;
mod way;

/// What broker and worker must agree on: they come from one build of one version.
pub const BUILD_ID: &str = env!("CARGO_PKG_VERSION");
