//! What every inference backend of Mote looks like: three traits for three lifetimes.
//!
//! * [`Backend`]: one inference library, loaded once per process (a *runtime flavour*).
//! * [`Model`]: one model file, loaded and compiled for one execution provider; immutable.
//! * [`Session`]: the running state over a model: bound tensors, a place to cancel from.
//!   [`Stateful`] keeps tensors from run to run over any session, on the device where that can.
//!
//! Around them stand the plain types that travel between the broker (which never loads an
//! inference library) and the workers (which do): [`Capability`] with a typed reason for absence,
//! [`Manifest`], [`Candidate`] and [`Rejection`], [`Trial`] and [`Samples`], [`Placement`], and the
//! tensors over mapped memory.
//!
//! Dependencies: `serde` and `toml` for the manifest (the ecosystem's standard), `sha2` for
//! digests, `nix` for memory mappings, `half` for 16-bit floats. No inference library is reachable
//! from here, which is what lets the broker depend on this crate.

mod backend;
mod capability;
mod digest;
pub mod driver;
mod error;
mod flavour;
mod manifest;
mod memory;
mod paths;
mod plan;
pub mod processor;
mod samples;
mod state;
mod tensor;
mod threads;
mod throttle;
mod tiling;
mod trial;
pub mod vendor;

pub use backend::{
    Backend, Cancel, Canceller, LoadRequest, Model, OutputTarget, Profile, ProfileShare, RunReport,
    Session, Signature, TensorSpec,
};
pub use capability::{Absence, Capability, DeviceInfo, DeviceKind};
pub use digest::{Digest, DigestError, FILE_CHUNK_BYTES};
pub use driver::{DriverPath, DriverPathKind};
pub use error::{BackendError, LoadError, ProbeError, RunError};
pub use flavour::{Flavour, FlavourError, FlavourFile, Plugin, RUNTIME_FILE_NAME, TRACT_FLAVOUR};
pub use manifest::{
    Activation, BackendKind, BoxCoordinates, BoxFormat, CandidateLayout, ChannelOrder, CheckInput,
    CheckSpec, ClassificationSpec, ClipSpec, ColourOrder, ConstantInput, DetectionSpec,
    EmbeddingSpec, Filter, Fit, FrameFit, FrameLayout, FrameState, GenerationSpec, InputHint,
    LabellingKind, LabellingSpec, MANIFEST_BYTES_MAX, MANIFEST_FILE_NAME, Manifest, ManifestError,
    MoeSpec, OutputHint, Padding, PictureLayout, Pooling, Precision, ReasoningTags,
    RestorationKind, RestorationSpec, StateTensor, StreamSpec, Task, TextSpec, ValueRange, Variant,
    WindowGives, WindowJoin,
};
pub use memory::{Access, Buffer, BufferOrigin, MemoryError};
pub use paths::Paths;
pub use plan::{Candidate, Placement, ProviderShare, REASON_TEXT_BYTES_MAX, Rejected, Rejection};
pub use samples::{Difference, SAMPLES_MAX, Samples};
pub use state::{Carry, DeviceStates, STATES_MAX, StatePlace, StateSpec, Stateful};
pub use tensor::{DType, Element, RANK_MAX, Tensor, TensorError};
pub use threads::{Load, Threads};
pub use throttle::Throttle;
pub use tiling::{FRAME_PIXELS_MAX, TILES_MAX, TileLimits, Tiling, TilingError};
pub use trial::{Compare, Trial, TrialTerms, Verdict, Verification, tolerance};
