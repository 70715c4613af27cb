//! A scripted backend for tests of faults and scheduling; never installed.
//!
//! A "model file" is a TOML script, by convention `*.fake`, of at most [`SCRIPT_BYTES_MAX`]:
//!
//! ```toml
//! compute = "identity"         # or "zeros", or { add = 1.0 }
//! step_ms = 5                  # each run takes this long and can be cancelled meanwhile
//! load_ms = 0                  # the load takes this long
//! weights_bytes = 0            # this much memory is allocated and touched at load
//! stderr = "loading"           # printed to stderr at load
//! nodes = 4                    # nodes of the placement (1 unless said)
//! fall_back_nodes = 0          # so many of them run on `fake-cpu`
//!
//! # Faults. Runs count from 1, over all sessions of the loaded model.
//! exit_at_load = 3             # the process exits with this status
//! fail_load = "text"           # the load fails with this text
//! unsupported_operators = []   # the load fails for want of these
//! crash_at_run = 2             # the process aborts
//! hang_at_run = 2              # the run ends only when it is cancelled …
//! ignore_cancel = false        # … and not even then; `step_ms` also becomes deaf
//! fail_at_run = 2              # the run fails, the session stays usable
//! lose_device_at_run = 2       # likewise, as a lost device
//! wrong_numbers = false        # every value is off by one
//! fault_provider = "fake-npu"  # faults happen on this provider only
//! fault_marker = "/tmp/x"      # faults happen while this file is missing; the first makes it
//!
//! [[input]]
//! name = "x"
//! dtype = "f32"
//! shape = [1, -1]              # -1 is decided at run time
//!
//! [[output]]
//! name = "y"
//! dtype = "f32"
//! shape = [1, -1]
//! ```
//!
//! With `identity` and `add`, output *i* is computed from input *i* and has its element type and
//! shape. With `zeros`, dimensions decided at run time are those of input 0 where the ranks agree,
//! otherwise 1.
//!
//! A `[text]` section makes a text model instead; there are no `[[input]]` and `[[output]]` then:
//!
//! ```toml
//! [text]
//! vocab = 300
//! next = "increment"           # next token: (last + 1) % vocab; "sum": (sum of all + 1) % vocab
//! layers = 1
//! kv_heads = 1
//! head_dim = 1
//! logits = "last"              # [batch, 1, vocab]; "all": [batch, sequence, vocab]
//! ```
//!
//! Its inputs are `input_ids` i64 `[batch, sequence]`, `seqlens_k` i32 `[batch]` (tokens so far
//! and new ones, less one), `total_sequence_length` i32 `[1]`, and per layer
//! `past_key_values.N.key` and `.value`, f32 `[batch, kv_heads, past, head_dim]`; outputs are
//! `logits` f32 and `present.N.key`, `present.N.value`. Past and present may be the same memory.
//! Layer 0's keys hold the tokens themselves, and `sum` reads them back, so a cache that was
//! mixed up shows in the tokens.
//!
//! Providers: `fake-cpu` on the CPU (also the empty name), `fake-npu` on a pretended NPU.
//!
//! Dependencies: `toml` and `serde` read the script.
#![forbid(unsafe_code)]

mod compute;
mod fault;
mod model;
mod script;
mod session;
mod text;

pub use script::{SCRIPT_BYTES_MAX, WEIGHTS_BYTES_MAX};

use mote_api::{
    Absence, Backend, BackendKind, Capability, DeviceInfo, DeviceKind, LoadError, LoadRequest,
    Model,
};
use std::sync::Arc;

/// Name of the one flavour.
pub const FLAVOUR: &str = "fake";
/// The provider that is called a CPU.
pub const CPU_PROVIDER: &str = "fake-cpu";
/// The provider that is called an NPU.
pub const NPU_PROVIDER: &str = "fake-npu";

/// The scripted backend.
#[derive(Debug, Default)]
pub struct FakeBackend(());

impl FakeBackend {
    /// Needs nothing.
    pub fn new() -> Self {
        Self(())
    }
}

impl Backend for FakeBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Fake
    }

    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    fn providers(&self) -> Vec<String> {
        [CPU_PROVIDER, NPU_PROVIDER].map(str::to_owned).into()
    }

    fn probe_provider(&self, provider: &str) -> Vec<Capability> {
        let device = |id: &str, kind| DeviceInfo {
            id: id.into(),
            kind,
            name: format!("pretended {kind}"),
            simulated: false,
        };
        [
            (CPU_PROVIDER, device("cpu", DeviceKind::Cpu)),
            (NPU_PROVIDER, device("npu0", DeviceKind::Npu)),
        ]
        .into_iter()
        .filter(|(name, _)| *name == provider)
        .map(|(provider, device)| Capability {
            flavour: FLAVOUR.into(),
            backend: BackendKind::Fake,
            library_version: self.version().into(),
            provider: provider.into(),
            device: Some(device),
            absence: None,
        })
        .collect()
    }

    fn load(&self, request: &LoadRequest) -> Result<Arc<dyn Model>, LoadError> {
        let provider = match request.provider.as_str() {
            "" | CPU_PROVIDER => CPU_PROVIDER,
            NPU_PROVIDER => NPU_PROVIDER,
            other => {
                return Err(LoadError::ProviderAbsent {
                    provider: other.into(),
                    absence: Absence::NotCompiledIn,
                });
            }
        };
        Ok(Arc::new(model::FakeModel::load(request, provider)?))
    }
}
