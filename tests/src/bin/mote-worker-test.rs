//! The worker with one backend more: the scripted one. Tests start it in place of `mote-worker`.

use mote_api::{Backend, BackendKind, Flavour, ProbeError};
use std::path::Path;

fn open(flavour: &Flavour, folder: &Path) -> Result<Box<dyn Backend>, ProbeError> {
    match flavour.backend {
        BackendKind::Fake => Ok(Box::new(mote_fake::FakeBackend::new())),
        _ => mote_worker::registry::open(flavour, folder),
    }
}

fn main() -> std::process::ExitCode {
    mote_worker::main_with(open)
}
