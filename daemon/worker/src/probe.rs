//! The short-lived form: what works here?

use crate::link::{Link, LinkError};
use crate::registry::Open;
use crate::sandbox::{self, Mode, Scope};
use crate::status::chain;
use mote_api::{Absence, BackendKind, Capability, Flavour, FlavourError, ProbeError};
use mote_wire::types::WorkerEvent;
use std::path::Path;

/// What is to be probed.
pub struct Wanted<'a> {
    /// The folder of a flavour; without one, the built-in flavour.
    pub folder: Option<&'a Path>,
    /// One of its providers; without one, all.
    pub provider: Option<&'a str>,
}

/// Probes in the sandbox, and tells the broker.
pub fn probe(wanted: &Wanted<'_>, open: Open, mode: Mode, link: &Link) -> Result<(), LinkError> {
    let Wanted { folder, provider } = *wanted;
    let (flavour, folder) = match folder {
        None => (Ok(Flavour::tract("")), Path::new("")),
        Some(folder) => (Flavour::read(folder), folder),
    };
    let capabilities = match flavour {
        Ok(flavour) => {
            sandbox::enter(mode, &Scope::of_probe(&flavour, folder, provider));
            of(&flavour, folder, provider, open, link)?
        }
        Err(error) => vec![unreadable(folder, &error)],
    };
    let capabilities_json = match serde_json::to_vec(&capabilities) {
        Ok(json) => json,
        Err(error) => {
            log::error!("cannot write what was found: {error}");
            Vec::new()
        }
    };
    link.send(WorkerEvent::Probed { capabilities_json })
}

fn of(
    flavour: &Flavour,
    folder: &Path,
    provider: Option<&str>,
    open: Open,
    link: &Link,
) -> Result<Vec<Capability>, LinkError> {
    if let Some(absence) = altered(flavour, folder) {
        return Ok(vec![absent(flavour, absence)]);
    }
    let backend = match open(flavour, folder) {
        Ok(backend) => backend,
        Err(ProbeError { absence, .. }) => return Ok(vec![absent(flavour, absence)]),
    };
    let providers = match provider {
        Some(provider) => vec![provider.to_owned()],
        None => backend.providers(),
    };
    // Whoever started this process has to know what else there was, should one of them end it.
    link.send(WorkerEvent::Probing {
        providers: providers.clone(),
    })?;
    let found = providers.iter().map(|name| backend.probe_provider(name));
    let mut found: Vec<_> = found.flatten().collect();
    for capability in &mut found {
        capability.flavour.clone_from(&flavour.name);
    }
    // Never unloaded: vendor libraries rarely survive that.
    std::mem::forget(backend);
    Ok(found)
}

/// What of a flavour's files is not as its description says.
fn altered(flavour: &Flavour, folder: &Path) -> Option<Absence> {
    let error = flavour.verify(folder).err()?;
    let name = match &error {
        FlavourError::Altered { path } | FlavourError::Read { path, .. } => file_name(path),
        _ => flavour.name.clone(),
    };
    Some(match &error {
        FlavourError::Altered { .. } => Absence::LibraryAltered { name },
        FlavourError::Read { .. } => Absence::LibraryMissing { name },
        _ => Absence::ProbeFailed { why: chain(&error) },
    })
}

fn absent(flavour: &Flavour, absence: Absence) -> Capability {
    Capability {
        flavour: flavour.name.clone(),
        backend: flavour.backend,
        library_version: flavour.version.clone(),
        provider: String::new(),
        device: None,
        absence: Some(absence),
    }
}

fn unreadable(folder: &Path, error: &FlavourError) -> Capability {
    Capability {
        flavour: file_name(folder),
        backend: BackendKind::OnnxRuntime,
        library_version: String::new(),
        provider: String::new(),
        device: None,
        absence: Some(Absence::ProbeFailed { why: chain(error) }),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
