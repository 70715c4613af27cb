//! The one table of backends.

use mote_api::{Absence, Backend, BackendKind, Flavour, ProbeError};
use std::path::Path;

/// Opens the library of a flavour that was read from `folder`.
///
/// # Errors
/// With the typed reason why the library cannot be used.
pub type Open = fn(&Flavour, &Path) -> Result<Box<dyn Backend>, ProbeError>;

/// The backends of a release build.
///
/// # Errors
/// With the typed reason why the library cannot be used.
pub fn open(flavour: &Flavour, folder: &Path) -> Result<Box<dyn Backend>, ProbeError> {
    let library = flavour.library_path(folder);
    match flavour.backend {
        BackendKind::Tract => Ok(Box::new(mote_tract::TractBackend::new())),
        BackendKind::OnnxRuntime => Ok(Box::new(mote_ort::OrtBackend::load(
            &library,
            &flavour.name,
        )?)),
        BackendKind::Tflite => Ok(Box::new(mote_tflite::TfliteBackend::load(
            &library,
            &flavour.name,
        )?)),
        BackendKind::Fake => Err(ProbeError {
            library: BackendKind::Fake.to_string(),
            absence: Absence::NotCompiledIn,
        }),
    }
}
