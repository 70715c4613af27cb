//! The one table of backends.

use mote_api::{Absence, Backend, BackendKind, DriverPath, Flavour, ProbeError};
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

/// What the driver of a provider opens beside the runtime's files; without a name, the drivers of
/// all providers that a probe of the backend looks for.
pub fn driver_paths(backend: BackendKind, provider: Option<&str>) -> Vec<&'static DriverPath> {
    match (backend, provider) {
        (BackendKind::OnnxRuntime, provider) => mote_ort::driver_paths(provider).collect(),
        (BackendKind::Tflite, Some(provider)) => {
            mote_tflite::driver_paths(provider).iter().collect()
        }
        // External delegates are not probed: nobody has named one.
        (BackendKind::Tflite, None) | (BackendKind::Tract | BackendKind::Fake, _) => Vec::new(),
    }
}
