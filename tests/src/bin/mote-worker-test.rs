//! The worker with more backends: the scripted one, and ONNX Runtime with a provider that fails as it
//! is told. Tests start it in place of `mote-worker`.

use mote_api::{
    Absence, Backend, BackendKind, Capability, Flavour, LoadError, LoadRequest, Model, ProbeError,
};
use mote_ort::OrtBackend;
use mote_tests::faulty::{FAULT_FILE, LIBRARY_FILE, PROVIDER};
use std::path::Path;
use std::sync::Arc;

/// ONNX Runtime with the faulty provider, which is in order while it is probed.
struct Faulty {
    backend: OrtBackend,
    fault: String,
}

impl Backend for Faulty {
    fn kind(&self) -> BackendKind {
        self.backend.kind()
    }

    fn version(&self) -> &str {
        self.backend.version()
    }

    fn providers(&self) -> Vec<String> {
        self.backend.providers()
    }

    fn probe_provider(&self, provider: &str) -> Vec<Capability> {
        self.backend.probe_provider(provider)
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Model>, LoadError> {
        let mut request = request.clone();
        if request.provider == PROVIDER {
            let option = ("fault".to_owned(), self.fault.clone());
            request.provider_options.push(option);
        }
        self.backend.load(&request)
    }
}

fn open(flavour: &Flavour, folder: &Path) -> Result<Box<dyn Backend>, ProbeError> {
    let plugin = folder.join(LIBRARY_FILE);
    match flavour.backend {
        BackendKind::Fake => Ok(Box::new(mote_fake::FakeBackend::new())),
        BackendKind::OnnxRuntime if plugin.exists() => {
            let backend = OrtBackend::load(&flavour.library_path(folder), &flavour.name)?;
            backend.register_plugin(PROVIDER, &plugin)?;
            let fault = std::fs::read_to_string(folder.join(FAULT_FILE));
            let fault = fault.map_err(|error| ProbeError {
                library: plugin.display().to_string(),
                absence: Absence::ProbeFailed {
                    why: error.to_string(),
                },
            })?;
            Ok(Box::new(Faulty { backend, fault }))
        }
        _ => mote_worker::registry::open(flavour, folder),
    }
}

fn main() -> std::process::ExitCode {
    mote_worker::main_with(open)
}
