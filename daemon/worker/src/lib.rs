//! The worker: one process, one runtime flavour, one model.
//!
//! The broker starts it with one end of a socket pair as descriptor 3 and tells it what to load.
//! Whatever the vendor's library does to this process (crash, hang, leak) stays in this process.
//!
//! * [`serve`]: the process itself: handshake, [`inbox`], [`engine`] on the main thread.
//! * [`engine`]: runs jobs step by step; between steps it obeys cancel, pause and credit.
//! * [`stream`]: a client's stream, one thread each, straight from the client's socket.
//! * [`sandbox`]: what the process gives up before it reads anything of a vendor or a model.
//! * [`probe`]: the short-lived form that only tells what works here.
//! * [`trial`]: the other one, which tries one way to run a model.
//!
//! The release binary knows three backends ([`registry`]); the test suite builds its own binary
//! over this library that knows the scripted one too.

pub mod registry;
pub mod sandbox;

mod buffers;
mod convert;
mod engine;
mod inbox;
mod inherited;
mod jobs;
mod link;
mod load;
mod memory;
mod probe;
mod serve;
mod status;
mod stream;
mod threads;
mod throttle;
mod trial;
mod usage;

pub use serve::{Options, SOCKET_FD, WorkerError, main_with};

/// What both ends of the socket pair must agree on: they come from one build of one version.
pub const BUILD_ID: &str = env!("CARGO_PKG_VERSION");
