//! TensorFlow Lite models through the library's C API, bound when the library is loaded.
//!
//! Any build of the library serves that exports the C API of 2.6 or younger; what younger versions
//! add is used where it is there:
//!
//! | what | without it |
//! | --- | --- |
//! | custom allocation: tensors lie in bound memory | tensors are copied, and the report counts it |
//! | cancellation between nodes | a cancel ends the run when its computation is done |
//! | opaque delegates: nodes are counted | no delegates; the placement is not read back |
//! | XNNPACK of 2.13 or younger | only the built-in kernels |
//! | declared dimensions | all dimensions are those of the file |
//!
//! Providers: [`CPU`] (also the empty name), [`XNNPACK`], [`EXTERNAL`]: a delegate in a shared
//! object that the provider option `path` names, and delegates of the flavour by the names that its
//! description gives them ([`Delegate`]). All other options are handed to a delegate. One that
//! takes no node is refused.
//!
//! Each session is an interpreter of its own, so recurrent state that a model keeps in variables
//! belongs to the session. Sessions share the file's bytes; XNNPACK packs weights per session.
//!
//! The library is never unloaded: its threads and thread-locals outlive their owners.
//!
//! Dependencies: `libloading` finds symbols; `nix` has the constants of `dlopen`.
#![deny(unsafe_code)]

mod cancel;
mod counter;
mod delegate;
mod interpreter;
mod model;
mod model_file;
mod probe;
mod processor;
mod reporter;
mod session;
mod sys;

pub use model_file::TFLITE_BYTES_MAX;

use mote_api::{
    Absence, Backend, BackendKind, Capability, DeviceInfo, DeviceKind, DriverPath, LoadError,
    LoadRequest, Model, ProbeError, driver,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The built-in kernels.
pub const CPU: &str = "TFLITE-CPU";
/// The library's XNNPACK delegate: optimised kernels on the CPU.
pub const XNNPACK: &str = "XNNPACK";
/// An external delegate by path.
pub const EXTERNAL: &str = "EXTERNAL";

/// The option that names an external delegate's shared object.
const PATH: &str = "path";

/// What the driver of a provider opens: of an external delegate, whatever such delegates open.
pub fn driver_paths(provider: &str) -> &'static [DriverPath] {
    match provider {
        CPU | XNNPACK | "" => &[],
        _ => driver::DELEGATES,
    }
}

/// An external delegate that a flavour names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegate {
    /// Its name as a provider.
    pub name: String,
    /// Its shared object.
    pub library: PathBuf,
    /// What is handed to it when it is probed.
    pub options: Vec<(String, String)>,
    /// What it computes on, as far as anybody said: the library cannot tell.
    pub device: DeviceInfo,
}

impl Delegate {
    /// `options` with the one that names it.
    fn located(&self, options: &[(String, String)]) -> Vec<(String, String)> {
        let path = (PATH.to_owned(), self.library.display().to_string());
        let others = options.iter().filter(|(key, _)| key != PATH).cloned();
        std::iter::once(path).chain(others).collect()
    }
}

/// A loaded TensorFlow Lite library.
pub struct TfliteBackend {
    api: Arc<sys::Api>,
    flavour: String,
    version: String,
    delegates: Vec<Delegate>,
}

impl std::fmt::Debug for TfliteBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TfliteBackend")
            .field("flavour", &self.flavour)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl TfliteBackend {
    /// Loads the library of a flavour, for the life of the process.
    ///
    /// # Errors
    /// With the typed reason, when it is missing, not a TensorFlow Lite library, or demands
    /// another processor.
    pub fn load(library: &Path, flavour: &str) -> Result<Self, ProbeError> {
        let api = processor::check(library).and_then(|()| sys::Api::load(library));
        let api = api.map_err(|absence| ProbeError {
            library: library.display().to_string(),
            absence,
        })?;
        Ok(Self {
            version: api.version_text(),
            api: Arc::new(api),
            flavour: flavour.into(),
            delegates: Vec::new(),
        })
    }

    /// With delegates by name. None of them is opened before it is probed or loaded on.
    #[must_use]
    pub fn with_delegates(self, delegates: Vec<Delegate>) -> Self {
        Self { delegates, ..self }
    }

    fn delegate(&self, name: &str) -> Option<&Delegate> {
        self.delegates.iter().find(|one| one.name == name)
    }

    /// Proves an external delegate that computes on `device`, as [`Backend::probe`] proves the
    /// library's own. Whoever configures a delegate knows its device; the library does not.
    pub fn probe_external(&self, options: &[(String, String)], device: DeviceInfo) -> Capability {
        let absence = probe::self_test(&self.api, EXTERNAL, options).err();
        self.capability(EXTERNAL, absence, device)
    }

    fn capability(
        &self,
        provider: &str,
        absence: Option<Absence>,
        device: DeviceInfo,
    ) -> Capability {
        Capability {
            flavour: self.flavour.clone(),
            backend: BackendKind::Tflite,
            library_version: self.version.clone(),
            provider: provider.into(),
            device: absence.is_none().then_some(device),
            absence,
        }
    }
}

fn cpu() -> DeviceInfo {
    DeviceInfo {
        id: "cpu".into(),
        kind: DeviceKind::Cpu,
        name: "CPU".into(),
        simulated: false,
    }
}

impl Backend for TfliteBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Tflite
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn providers(&self) -> Vec<String> {
        let named = self.delegates.iter().map(|one| one.name.clone());
        [XNNPACK, CPU]
            .map(str::to_owned)
            .into_iter()
            .chain(named)
            .collect()
    }

    fn probe_provider(&self, provider: &str) -> Vec<Capability> {
        let test = |name, options: &[_]| probe::self_test(&self.api, name, options).err();
        vec![match self.delegate(provider) {
            Some(delegate) => {
                let absence = test(provider, &delegate.located(&delegate.options));
                self.capability(provider, absence, delegate.device.clone())
            }
            None => self.capability(provider, test(provider, &[]), cpu()),
        }]
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Model>, LoadError> {
        let object = model_file::ModelObject::read(self.api.clone(), &request.file)?;
        let Some(delegate) = self.delegate(&request.provider) else {
            return Ok(Arc::new(model::TfliteModel::compile(object, request)?));
        };
        let request = LoadRequest {
            provider_options: delegate.located(&request.provider_options),
            ..request.clone()
        };
        Ok(Arc::new(model::TfliteModel::compile(object, &request)?))
    }
}
