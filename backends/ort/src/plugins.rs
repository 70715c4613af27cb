//! Libraries that bring execution providers of their own.

use crate::failure::{backend_error, chain, open_absence};
use crate::providers::{Provider, is_of};
use mote_api::{Absence, DeviceKind};
use ort::environment::Environment;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// The binding has no room for more, and panics.
const NAME_BYTES_MAX: usize = 127;
/// What a provider of several devices counts as.
const KINDS_BY_RANK: [DeviceKind; 3] = [DeviceKind::Npu, DeviceKind::Gpu, DeviceKind::Cpu];

/// What was plugged in, for good: such a library is never unloaded.
pub(crate) struct Plugged {
    libraries: Vec<PathBuf>,
    /// Providers, in the table or beyond it.
    pub(crate) rows: Vec<&'static Provider>,
}

static PLUGGED: RwLock<Plugged> = RwLock::new(Plugged {
    libraries: Vec::new(),
    rows: Vec::new(),
});

/// What was plugged in. To be held while devices are listed: the binding reads ONNX Runtime's list
/// after that has let go of its own lock, and a library that is plugged in makes the list grow.
pub(crate) fn plugged() -> RwLockReadGuard<'static, Plugged> {
    PLUGGED.read().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the provider `name` known, which `library` brings. When the table does not have it, its
/// kind is that of the device that the library presents.
///
/// A library is registered once, whatever it brings. Each time it would present all its devices
/// anew, and of one provider ONNX Runtime takes only those of one registration.
pub(crate) fn plug_in(
    environment: &Environment,
    name: &str,
    library: &Path,
) -> Result<(), Absence> {
    let rejected = |why: String| Absence::LibraryRejected {
        name: library.display().to_string(),
        why,
    };
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(rejected(format!("{name:?} cannot be a provider's name")));
    }
    let path = library
        .canonicalize()
        .map_err(|error| rejected(error.to_string()))?;
    let mut plugged = PLUGGED.write().unwrap_or_else(PoisonError::into_inner);
    if !plugged.libraries.contains(&path) {
        environment
            .register_ep_library(name, &path)
            .map_err(|error| {
                let error = backend_error("register a provider library", &error);
                open_absence(&path, &chain(&error))
            })?;
        plugged.libraries.push(path);
    }
    if plugged.rows.iter().any(|row| row.name == name) {
        return Ok(());
    }
    let presents = |kind: &DeviceKind| {
        let mut devices = environment.devices();
        devices.any(|device| is_of(&device, *kind) && device.ep().is_ok_and(|ep| ep == name))
    };
    let row = match Provider::in_table(name) {
        Some(row) => row,
        None => {
            let kind = KINDS_BY_RANK.into_iter().find(presents);
            Provider::beyond_table(name, kind.ok_or(Absence::NoDevice)?)
        }
    };
    plugged.rows.push(row);
    Ok(())
}
