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
//! Providers: [`CPU`] (also the empty name), [`XNNPACK`], and [`EXTERNAL`]: a delegate in a shared
//! object that the provider option `path` names; all other options are handed to it. A delegate
//! that takes no node is refused.
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
    Backend, BackendKind, Capability, DeviceInfo, DeviceKind, DriverPath, LoadError, LoadRequest,
    Model, ProbeError, driver,
};
use std::path::Path;
use std::sync::Arc;

/// The built-in kernels.
pub const CPU: &str = "TFLITE-CPU";
/// The library's XNNPACK delegate: optimised kernels on the CPU.
pub const XNNPACK: &str = "XNNPACK";
/// An external delegate by path.
pub const EXTERNAL: &str = "EXTERNAL";

/// What the driver of a provider opens: of an external delegate, whatever such delegates open.
pub fn driver_paths(provider: &str) -> &'static [DriverPath] {
    match provider {
        EXTERNAL => driver::DELEGATES,
        _ => &[],
    }
}

/// A loaded TensorFlow Lite library.
pub struct TfliteBackend {
    api: Arc<sys::Api>,
    flavour: String,
    version: String,
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
        })
    }

    /// Proves an external delegate that computes on `device`, as [`Backend::probe`] proves the
    /// library's own. Whoever configures a delegate knows its device; the library does not.
    pub fn probe_external(&self, options: &[(String, String)], device: DeviceInfo) -> Capability {
        self.capability(EXTERNAL, options, device)
    }

    fn capability(
        &self,
        provider: &str,
        options: &[(String, String)],
        device: DeviceInfo,
    ) -> Capability {
        let absence = probe::self_test(&self.api, provider, options).err();
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
    }
}

impl Backend for TfliteBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Tflite
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn probe(&self) -> Vec<Capability> {
        [XNNPACK, CPU]
            .iter()
            .map(|provider| self.capability(provider, &[], cpu()))
            .collect()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Model>, LoadError> {
        let object = model_file::ModelObject::read(self.api.clone(), &request.file)?;
        Ok(Arc::new(model::TfliteModel::compile(object, request)?))
    }
}
