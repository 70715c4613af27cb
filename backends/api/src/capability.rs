//! What works on this machine, and the typed reason for what does not.

use crate::manifest::BackendKind;
use serde::{Deserialize, Serialize};

/// Kind of processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum DeviceKind {
    Cpu,
    Gpu,
    Npu,
}

impl std::fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Npu => "npu",
        })
    }
}

/// One device as a runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Stable name on this machine: `cpu`, `gpu0`, `npu0`, …
    pub id: String,
    /// Kind.
    pub kind: DeviceKind,
    /// What the vendor calls it.
    pub name: String,
    /// It is none, but a program that computes as it would, on the processor: good for trying what a
    /// device takes, and ranked as the processor, which its kind says.
    #[serde(default)]
    pub simulated: bool,
}

/// One execution provider (or delegate) of one runtime flavour on one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Runtime flavour it belongs to.
    pub flavour: String,
    /// Inference library.
    pub backend: BackendKind,
    /// The library's own version; empty when it could not be loaded.
    pub library_version: String,
    /// The runtime's own name of the provider; empty when the library itself is absent.
    pub provider: String,
    /// Where it computes; `None` when it is absent.
    pub device: Option<DeviceInfo>,
    /// `None` when a tiny model ran there with CPU fallback forbidden; otherwise why not.
    pub absence: Option<Absence>,
}

impl Capability {
    /// Whether it was proven to work.
    pub fn works(&self) -> bool {
        self.absence.is_none()
    }
}

/// The names of options that are told with what their values are.
fn names(options: &[String]) -> String {
    let names = options.iter().map(|option| option.split(' ').next());
    names.flatten().collect::<Vec<_>>().join(", ")
}

/// Why a provider cannot be used here. [`Absence::next_step`] says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Absence {
    #[error("runtime {flavour} is not installed")]
    NotFetched { flavour: String },
    #[error("library {name} is missing")]
    LibraryMissing { name: String },
    #[error("{name} is not a library this backend can use: {why}")]
    LibraryRejected { name: String, why: String },
    #[error("{name} does not match its digest; fetch it again")]
    LibraryAltered { name: String },
    #[error("the library does not export {symbol}")]
    SymbolMissing { symbol: String },
    #[error("library version {have} is older than the {need} needed")]
    VersionSkew { have: String, need: String },
    #[error("a vendor library is missing: {name}")]
    DriverMissing { name: String },
    #[error("the provider is not compiled into this library")]
    NotCompiledIn,
    #[error("the provider found no device")]
    NoDevice,
    #[error("there is no sign of {hardware} here, {nodes} being absent; also, {also}")]
    HardwareMissing {
        hardware: String,
        nodes: String,
        also: String,
    },
    #[error("no permission to open {path}")]
    NoPermission { path: String },
    #[error("the processor lacks {feature}, which the library needs")]
    ProcessorFeature { feature: String },
    #[error("the library used an instruction the processor lacks, probably one of {feature}")]
    IllegalInstruction { feature: String },
    #[error("the probe died of signal {signal}")]
    ProbeCrashed { signal: i32 },
    #[error("the probe did not answer within {limit_ms} ms")]
    ProbeTimedOut { limit_ms: u64 },
    #[error("the probe failed: {why}")]
    ProbeFailed { why: String },
    #[error("the self-test ran {cpu_nodes} of {nodes} nodes on the CPU")]
    FellBackToCpu { nodes: u32, cpu_nodes: u32 },
    #[error("the self-test computed wrong numbers: off by {error}, {tolerance} allowed")]
    WrongNumbers { error: String, tolerance: String },
    #[error(
        "it has no option {key}, and would ignore it; its options are {}",
        names(known)
    )]
    OptionUnknown {
        key: String,
        /// Each with what its value is, and its default.
        known: Vec<String>,
    },
}
