//! Tensors as they travel.

use serde::Serialize;
use std::os::fd::OwnedFd;

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(
    missing_docs,
    reason = "the variants are the names of the types themselves"
)]
pub enum DType {
    F32,
    F16,
    Bf16,
    F64,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    Bool,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Bytes of a dense tensor of this type; `None` when the number does not fit.
    pub fn tensor_bytes(self, shape: &[u64]) -> Option<u64> {
        shape
            .iter()
            .try_fold(self.bytes(), |bytes, size| bytes.checked_mul(*size))
    }
}

/// A tensor: row-major, dense. The number of bytes was checked against type and shape.
#[derive(Debug)]
pub struct Tensor {
    /// Name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Where the elements are.
    pub data: TensorData,
}

/// Where the elements of a tensor are.
#[derive(Debug)]
pub enum TensorData {
    /// In the frame; at most [`crate::limits::INLINE_BYTES_MAX`].
    Inline(Vec<u8>),
    /// In a registered buffer.
    Range(BufferRange),
    /// In a sealed memfd of its own that came with the frame; server to client only.
    Passed {
        /// The memfd.
        fd: OwnedFd,
        /// Its bytes.
        bytes: u64,
    },
}

impl TensorData {
    /// Bytes of the elements.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Range(range) => range.bytes,
            Self::Passed { bytes, .. } => *bytes,
        }
    }
}

/// A range of a registered buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BufferRange {
    /// Id of the buffer.
    pub buffer: u64,
    /// First byte; a multiple of [`crate::limits::RANGE_ALIGNMENT_BYTES`].
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Where an output is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputTarget {
    /// Name in the model.
    pub name: String,
    /// The memory.
    pub range: BufferRange,
    /// The shape expected; empty takes the model's own, which must then be fixed.
    pub shape: Vec<u64>,
}

/// Name, type and shape of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions; `None` is decided at run time.
    pub shape: Vec<Option<u64>>,
}
