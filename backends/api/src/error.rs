//! Errors of the backend traits. A variant names the operation that failed; the library's own
//! error is its source.

use crate::capability::Absence;
use crate::tensor::{DType, TensorError};
use std::path::PathBuf;

/// An error of an inference library, as its own text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct BackendError {
    /// The library call that failed.
    pub operation: &'static str,
    /// What the library said.
    pub message: String,
}

impl BackendError {
    /// An error of the library call `operation`.
    pub fn new(operation: &'static str, cause: impl std::fmt::Display) -> Self {
        Self {
            operation,
            message: cause.to_string(),
        }
    }
}

/// Why an inference library cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {library}")]
pub struct ProbeError {
    /// The library asked for.
    pub library: String,
    /// The typed reason.
    #[source]
    pub absence: Absence,
}

/// Why a model could not be loaded on a provider.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum LoadError {
    #[error("cannot read model file {}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{} is not a model this backend can read", file.display())]
    Malformed {
        file: PathBuf,
        #[source]
        cause: BackendError,
    },
    #[error("{} needs operators that {provider} does not have: {}", file.display(), operators.join(", "))]
    UnsupportedOperators {
        file: PathBuf,
        provider: String,
        operators: Vec<String>,
    },
    #[error("provider {provider} is not to be had")]
    ProviderAbsent {
        provider: String,
        #[source]
        absence: Absence,
    },
    #[error("{provider} left {cpu_nodes} of {nodes} nodes to the CPU, more than is allowed")]
    CpuForbidden {
        provider: String,
        nodes: u32,
        cpu_nodes: u32,
    },
    #[error("model tensor {name:?} has an element type that is not served: {dtype}")]
    UnservedType { name: String, dtype: String },
    #[error(
        "dimension {place} of input {input:?} is open: the manifest's dimensions do not name it, or \
         this backend cannot fix it"
    )]
    OpenDimension { input: String, place: usize },
    #[error("cannot compile {} for {provider}", file.display())]
    Compile {
        file: PathBuf,
        provider: String,
        #[source]
        cause: BackendError,
    },
    #[error("cannot make a session")]
    Session(#[source] BackendError),
    #[error("cannot change threads")]
    Threads(#[source] BackendError),
}

/// Why a run did not give results.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum RunError {
    #[error("input {name:?} wants {want_dtype} {want_shape}, not {have_dtype} {have_shape:?}")]
    Input {
        name: String,
        want_dtype: DType,
        want_shape: String,
        have_dtype: DType,
        have_shape: Vec<usize>,
    },
    #[error("input {name:?} is not bound")]
    InputMissing { name: String },
    #[error("there is no input or output number {index}")]
    NoSuchTensor { index: usize },
    #[error("output {name:?}: {why}")]
    Output { name: String, why: String },
    #[error("state {name:?}: {why}")]
    State { name: String, why: String },
    #[error("{device} has no room for {bytes} bytes of {name:?}")]
    DeviceMemory {
        name: String,
        device: String,
        bytes: u64,
        #[source]
        cause: BackendError,
    },
    #[error("the run was cancelled")]
    Cancelled,
    #[error("device {device} was lost")]
    DeviceLost {
        device: String,
        #[source]
        cause: BackendError,
    },
    #[error("the library failed")]
    Compute(#[source] BackendError),
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl RunError {
    /// The error for a tensor that does not fit `spec`.
    pub fn input(spec: &crate::backend::TensorSpec, dtype: DType, shape: &[usize]) -> Self {
        let dims: Vec<String> = spec
            .shape
            .iter()
            .map(|dim| dim.map_or("?".into(), |d| d.to_string()))
            .collect();
        Self::Input {
            name: spec.name.clone(),
            want_dtype: spec.dtype,
            want_shape: format!("[{}]", dims.join(", ")),
            have_dtype: dtype,
            have_shape: shape.to_vec(),
        }
    }
}
