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
//! description gives them ([`Delegate`]). With the option `then = "XNNPACK"` that one takes what the
//! delegate leaves, which the placement tells apart. All other options are handed to a delegate. Each
//! is required: one that fails, or the first that takes no node, is refused, not left out.
//!
//! A library that also, or only, has LiteRT's `CompiledModel` of 2.3 or younger offers
//! [`LITERT_NPU`]: the NPU of a vendor's dispatch library, named in `runtime.toml` (see
//! `litert.rs`), and [`LITERT_CPU`], which is probed only where there is no interpreter.
//!
//! Each session is an interpreter of its own, so recurrent state that a model keeps in variables
//! belongs to the session. Sessions share the file's bytes; XNNPACK packs weights per session.
//!
//! A build for firmware images may be linked to a library instead ([`linked`], feature `tflitec`).
//!
//! The library is never unloaded: its threads and thread-locals outlive their owners.
//!
//! Dependencies: `libloading` finds symbols; `nix` has the constants of `dlopen`.
#![deny(unsafe_code)]

mod binding;
mod cancel;
mod counter;
mod delegate;
mod interpreter;
#[cfg(feature = "tflitec")]
mod linked;
#[cfg(not(feature = "tflitec"))]
#[path = "unlinked.rs"]
mod linked;
mod litert;
mod model;
mod model_file;
mod probe;
mod processor;
mod reporter;
mod session;
mod sys;

pub use litert::{LITERT_CPU, LITERT_NPU, has_dispatch_beside};
pub use model_file::TFLITE_BYTES_MAX;

use mote_api::{
    Absence, Backend, BackendKind, Capability, DeviceInfo, DeviceKind, DriverPath, LoadError,
    LoadRequest, Model, ProbeError, driver, vendor,
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
/// The option for what an external delegate leaves: `XNNPACK`.
const THEN: &str = "then";

/// What the driver of a provider opens: of an external delegate or of an NPU's dispatch library,
/// whatever such libraries open.
pub fn driver_paths(provider: &str) -> &'static [DriverPath] {
    match provider {
        CPU | XNNPACK | LITERT_CPU | "" => &[],
        _ => driver::DELEGATES,
    }
}

/// The library that this program is linked to, when `library` has its name: in builds with the
/// feature `tflitec`.
pub fn linked(library: &Path, flavour: &str) -> Option<Box<dyn Backend>> {
    linked::backend(library, flavour)
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

/// A loaded TensorFlow Lite library, with one or both of its interfaces.
pub struct TfliteBackend {
    /// The interpreter's.
    api: Result<Arc<sys::Api>, Absence>,
    /// That of `CompiledModel`.
    litert: Result<litert::LiteRt, Absence>,
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
    /// With the typed reason, when it is missing, neither a TensorFlow Lite nor a LiteRT library,
    /// or demands another processor.
    pub fn load(library: &Path, flavour: &str) -> Result<Self, ProbeError> {
        let refused = |absence| ProbeError {
            library: library.display().to_string(),
            absence,
        };
        linked::refusal(library).map_or(Ok(()), |absence| Err(refused(absence)))?;
        processor::check(library).map_err(refused)?;
        let api = sys::Api::load(library).map(Arc::new);
        let litert = litert::LiteRt::load(library);
        let version = match (&api, &litert) {
            (Ok(api), _) => api.version_text(),
            // It exports no version; this is what its functions tell.
            (Err(_), Ok(_)) => litert::VERSION_KNOWN.into(),
            (Err(absence), Err(_)) => return Err(refused(absence.clone())),
        };
        Ok(Self {
            api,
            litert,
            flavour: flavour.into(),
            version,
            delegates: Vec::new(),
        })
    }

    /// With delegates by name; one that is called [`LITERT_NPU`] is the dispatch library of that
    /// provider. None of them is opened before it is probed or loaded on.
    #[must_use]
    pub fn with_delegates(self, delegates: Vec<Delegate>) -> Self {
        Self { delegates, ..self }
    }

    /// With options of [`LITERT_NPU`] that its probe uses.
    #[must_use]
    pub fn with_npu_options(mut self, options: Vec<(String, String)>) -> Self {
        if let Ok(litert) = &mut self.litert {
            litert.npu_options = options;
        }
        self
    }

    fn delegate(&self, name: &str) -> Option<&Delegate> {
        self.delegates.iter().find(|one| one.name == name)
    }

    /// Proves an external delegate that computes on `device`, as [`Backend::probe`] proves the
    /// library's own. Whoever configures a delegate knows its device; the library does not.
    pub fn probe_external(&self, options: &[(String, String)], device: DeviceInfo) -> Capability {
        let absence = self.interpreter_test(EXTERNAL, options).err();
        self.capability(EXTERNAL, absence, device)
    }

    fn interpreter_test(
        &self,
        provider: &str,
        options: &[(String, String)],
    ) -> Result<(), Absence> {
        let api = self.api.as_ref().map_err(Absence::clone)?;
        probe::self_test(api, provider, options)
    }

    fn litert_test(&self, provider: &str) -> Result<(), Absence> {
        let litert = self.litert.as_ref().map_err(Absence::clone)?;
        let tested = litert.self_test(provider, self.delegate(provider));
        tested.map_err(|absence| match provider {
            LITERT_NPU => vendor::explain(LITERT_NPU, DeviceKind::Npu, absence),
            _ => absence,
        })
    }

    /// What the NPU of a dispatch library is, as far as anybody said.
    fn npu(&self) -> DeviceInfo {
        let said = self.delegate(LITERT_NPU).map(|one| one.device.clone());
        said.unwrap_or_else(|| DeviceInfo {
            id: "npu0".into(),
            kind: DeviceKind::Npu,
            name: "NPU".into(),
            simulated: false,
        })
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
        let mut names = Vec::new();
        if self.api.is_ok() {
            names.extend([XNNPACK, CPU].map(str::to_owned));
        }
        if self.litert.is_ok() {
            names.push(LITERT_NPU.into());
            // What the interpreter has is the same kernels.
            names.extend(self.api.is_err().then(|| LITERT_CPU.to_owned()));
        }
        let named = self.delegates.iter().map(|one| one.name.clone());
        let new: Vec<_> = named.filter(|name| !names.contains(name)).collect();
        names.extend(new);
        names
    }

    fn probe_provider(&self, provider: &str) -> Vec<Capability> {
        vec![match (provider, self.delegate(provider)) {
            (LITERT_NPU, _) => {
                let absence = self.litert_test(provider).err();
                self.capability(provider, absence, self.npu())
            }
            (LITERT_CPU, _) => {
                let absence = self.litert_test(provider).err();
                self.capability(provider, absence, cpu())
            }
            (_, Some(delegate)) => {
                let options = delegate.located(&delegate.options);
                let absence = self.interpreter_test(provider, &options).err();
                self.capability(provider, absence, delegate.device.clone())
            }
            (_, None) => {
                let absence = self.interpreter_test(provider, &[]).err();
                self.capability(provider, absence, cpu())
            }
        }]
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Model>, LoadError> {
        let absent = |absence: &Absence| LoadError::ProviderAbsent {
            provider: request.provider.clone(),
            absence: absence.clone(),
        };
        let delegate = self.delegate(&request.provider);
        let by_litert = match request.provider.as_str() {
            LITERT_CPU | LITERT_NPU => true,
            // The plain path of a library without an interpreter.
            "" => self.api.is_err(),
            _ => false,
        };
        if by_litert {
            let litert = self.litert.as_ref().map_err(absent)?;
            return litert.load_model(request, delegate);
        }
        let api = self.api.as_ref().map_err(absent)?;
        let object = model_file::ModelObject::read(api.clone(), &request.file)?;
        let Some(delegate) = delegate else {
            return Ok(Arc::new(model::TfliteModel::compile(object, request)?));
        };
        let request = LoadRequest {
            provider_options: delegate.located(&request.provider_options),
            ..request.clone()
        };
        Ok(Arc::new(model::TfliteModel::compile(object, &request)?))
    }
}
