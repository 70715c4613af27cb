//! In place of `linked.rs` in builds that are linked to no TensorFlow Lite library.

use mote_api::{Absence, Backend};
use std::path::Path;

/// There is none.
pub(crate) fn backend(_library: &Path, _flavour: &str) -> Option<Box<dyn Backend>> {
    None
}

/// Any library may be loaded.
pub(crate) fn refusal(_library: &Path) -> Option<Absence> {
    None
}
