//! LiteRT's `CompiledModel`: the way by which NPU vendors bring their libraries forward.
//!
//! | provider | computes on |
//! | --- | --- |
//! | [`LITERT_CPU`] | the CPU, with XNNPACK where it takes an operator |
//! | [`LITERT_NPU`] | the NPU of a vendor's dispatch library, and nowhere else |
//!
//! The NPU is asked for alone. Asked for with the CPU, LiteRT 2.3 runs everything on the CPU and
//! still says "fully accelerated". Alone, it refuses a model of which an operator is left; that
//! none is left is read back from its execution plan.
//!
//! Where the dispatch library lies is for the flavour to say, and how models get compiled for it:
//!
//! ```toml
//! [[plugin]]
//! provider = "LITERT-NPU"
//! library = "/opt/vendor/lib/libLiteRtDispatch_Vendor.so"
//! device = "Vendor NPU"
//!
//! [options.LITERT-NPU]
//! compiler_dir = "/opt/vendor/lib"                 # compiles models as they are loaded
//! cache_dir = "/var/cache/mote/compiled"           # keeps them; the sandbox leaves this open
//! self_test = "/opt/vendor/add_mul.tflite"         # without a compiler: what a probe runs
//! "vendor.qualcomm" = "htp_performance_mode = 2"   # TOML for the vendor's own libraries
//! ```
//!
//! What a vendor's libraries can be told to compute on is for the description to say, too (`kind` of
//! the `[[plugin]]`): Intel's do it on the CPU with `graph.0.graph_backend = 0`.
//!
//! Without a `[[plugin]]`, one that lies beside LiteRT's own library is taken. The self-test's model
//! is `tests/fixtures/add_mul.tflite` of this crate.
//!
//! Tensors lie in bound memory where the device takes memory of the host that is aligned to 64
//! bytes; otherwise they are copied to and from memory that it wants, and the report counts it. A
//! cancel ends a run between two operators.
//!
//! Not yet run on an NPU. Tested are a scripted dispatch library, and Intel's compiler and dispatch
//! library on the CPU.

mod compiled;
mod dispatch;
mod model;
mod objects;
mod session;
mod sys;

use crate::{Delegate, model_file, probe};
use dispatch::Dispatch;
pub use dispatch::has_dispatch_beside;
use mote_api::{Absence, LoadError, LoadRequest, Model};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// LiteRT on the CPU.
pub const LITERT_CPU: &str = "LITERT-CPU";
/// LiteRT on the NPU of a dispatch library.
pub const LITERT_NPU: &str = "LITERT-NPU";

/// What is known of the version of a library that has these functions.
pub(crate) const VERSION_KNOWN: &str = "2.3 or younger";

/// LiteRT of a loaded library.
pub(crate) struct LiteRt {
    api: Arc<sys::Api>,
    library: PathBuf,
    /// Options of [`LITERT_NPU`] that its probe uses.
    pub npu_options: Vec<(String, String)>,
}

impl LiteRt {
    /// Binds LiteRT's functions.
    ///
    /// # Errors
    /// With the typed reason, when the library has them not, or is older than 2.3.
    pub fn load(library: &Path) -> Result<Self, Absence> {
        Ok(Self {
            api: Arc::new(sys::Api::load(library)?),
            library: library.into(),
            npu_options: Vec::new(),
        })
    }

    /// Loads a model on one of the two providers.
    pub fn load_model(
        &self,
        request: &LoadRequest,
        named: Option<&Delegate>,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let npu = match request.provider.as_str() {
            LITERT_NPU => Some(self.dispatch(named, &request.provider_options)?),
            _ => None,
        };
        let bytes = model_file::read(&request.file)?;
        let model = model::LiteRtModel::compile(&self.api, bytes, request, npu.as_ref())?;
        Ok(Arc::new(model))
    }

    fn dispatch(
        &self,
        named: Option<&Delegate>,
        options: &[(String, String)],
    ) -> Result<Dispatch, LoadError> {
        let found = Dispatch::find(named, &self.library, options);
        found.map_err(|absence| LoadError::ProviderAbsent {
            provider: LITERT_NPU.into(),
            absence,
        })
    }

    /// Runs the self-test on a provider.
    pub fn self_test(&self, provider: &str, named: Option<&Delegate>) -> Result<(), Absence> {
        let options = named.map_or(&self.npu_options, |named| &named.options);
        let mut request = probe::request(provider, options);
        let npu = match provider {
            LITERT_NPU => Some(Dispatch::find(named, &self.library, options)?),
            _ => None,
        };
        request.forbid_cpu = npu.is_some();
        let bytes = match npu.as_ref().map(|npu| (npu, &npu.self_test)) {
            Some((_, Some(file))) => {
                let unread = |error: LoadError| probe::absence(error);
                model_file::read(file).map_err(unread)?
            }
            Some((npu, None)) if !npu.has_compiler() => {
                return Err(Absence::DriverMissing {
                    name: "libLiteRtCompilerPlugin_*.so".into(),
                });
            }
            _ => probe::model_bytes()?,
        };
        let model = model::LiteRtModel::compile(&self.api, bytes, &request, npu.as_ref());
        probe::prove(&model.map_err(probe::absence)?)
    }
}
