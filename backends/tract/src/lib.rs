//! ONNX models on tract: pure Rust, on the CPU, nothing to install.
//!
//! tract compiles a graph for the shapes it will see. A model whose dimensions are all fixed is
//! compiled once at load; one with free dimensions is compiled per set of input shapes, and the
//! last [`PLANS_MAX`] of these plans are kept (see `plan.rs`). Inputs and outputs are copied,
//! since tract owns its tensors, and [`RunReport::bytes_copied`](mote_api::RunReport) says so.
//!
//! Models are untrusted: the file is read up to [`ONNX_BYTES_MAX`], unknown operators are found
//! before anything is compiled, external data must lie in the model's folder (tract checks it),
//! and a panic in tract becomes an error.
//!
//! Dependencies: `tract-onnx` is the engine; `tract-linalg` is named to switch its threads on.
#![forbid(unsafe_code)]

mod convert;
mod guard;
mod model;
mod parse;
mod plan;
mod probe;
mod session;
mod signature;

pub use parse::ONNX_BYTES_MAX;
pub use plan::PLANS_MAX;

use mote_api::{
    Absence, Backend, BackendKind, Capability, DeviceInfo, DeviceKind, LoadError, LoadRequest,
    Model, TRACT_FLAVOUR,
};
use std::sync::Arc;

/// The one provider.
pub const PROVIDER: &str = "tract-cpu";
/// Version of tract; a test compares it with the lock file.
pub const TRACT_VERSION: &str = "0.23.9";

/// The built-in engine.
#[derive(Debug, Default)]
pub struct TractBackend(());

impl TractBackend {
    /// Needs nothing.
    pub fn new() -> Self {
        Self(())
    }
}

impl Backend for TractBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Tract
    }

    fn version(&self) -> &str {
        TRACT_VERSION
    }

    fn providers(&self) -> Vec<String> {
        vec![PROVIDER.into()]
    }

    fn probe_provider(&self, _: &str) -> Vec<Capability> {
        vec![Capability {
            flavour: TRACT_FLAVOUR.into(),
            backend: BackendKind::Tract,
            library_version: TRACT_VERSION.into(),
            provider: PROVIDER.into(),
            device: Some(DeviceInfo {
                id: "cpu".into(),
                kind: DeviceKind::Cpu,
                name: "CPU".into(),
                simulated: false,
            }),
            absence: probe::self_test().err(),
        }]
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Model>, LoadError> {
        if !request.provider.is_empty() && request.provider != PROVIDER {
            return Err(LoadError::ProviderAbsent {
                provider: request.provider.clone(),
                absence: Absence::NotCompiledIn,
            });
        }
        let parsed = parse::read(&request.file, &request.dimensions)?;
        let model = model::TractModel::compile(parsed, &request.file, request.threads)?;
        if request.forbid_cpu {
            let nodes = model.placement().nodes();
            return Err(LoadError::CpuForbidden {
                provider: PROVIDER.into(),
                nodes,
                cpu_nodes: nodes,
            });
        }
        Ok(Arc::new(model))
    }
}
