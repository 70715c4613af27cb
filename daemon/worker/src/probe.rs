//! The short-lived form: what works here?

use crate::link::{Link, LinkError};
use crate::registry::Open;
use crate::sandbox::{self, Mode, Scope};
use crate::status::chain;
use mote_api::{Absence, BackendKind, Capability, Flavour, FlavourError, ProbeError};
use mote_wire::types::WorkerEvent;
use std::path::Path;

/// Probes the flavour in `folder`, or the built-in one, in the sandbox, and tells the broker.
pub fn probe(folder: Option<&Path>, open: Open, mode: Mode, link: &Link) -> Result<(), LinkError> {
    let (flavour, folder) = match folder {
        None => (Ok(Flavour::tract("")), Path::new("")),
        Some(folder) => (Flavour::read(folder), folder),
    };
    let capabilities = match flavour {
        Ok(flavour) => {
            sandbox::enter(mode, &Scope::of_probe(&flavour, folder));
            of(&flavour, folder, open)
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

fn of(flavour: &Flavour, folder: &Path, open: Open) -> Vec<Capability> {
    if let Err(error) = flavour.verify(folder) {
        let name = match &error {
            FlavourError::Altered { path } | FlavourError::Read { path, .. } => file_name(path),
            _ => flavour.name.clone(),
        };
        let absence = match &error {
            FlavourError::Altered { .. } => Absence::LibraryAltered { name },
            FlavourError::Read { .. } => Absence::LibraryMissing { name },
            _ => Absence::ProbeFailed { why: chain(&error) },
        };
        return vec![absent(flavour, absence)];
    }
    match open(flavour, folder) {
        Ok(backend) => {
            let mut found = backend.probe();
            for capability in &mut found {
                capability.flavour.clone_from(&flavour.name);
            }
            // Never unloaded: vendor libraries rarely survive that.
            std::mem::forget(backend);
            found
        }
        Err(ProbeError { absence, .. }) => vec![absent(flavour, absence)],
    }
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
