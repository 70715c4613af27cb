//! Why a GGUF file is refused.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

/// The part of a GGUF file that an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Magic, version and counts.
    Header,
    /// The `n`-th metadata entry, before its key is known.
    MetadataEntry(u64),
    /// The metadata entry with this key.
    Key(String),
    /// The `n`-th entry of the tensor table, before its name is known.
    TensorEntry(u64),
    /// The tensor with this name.
    Tensor(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => write!(f, "the header"),
            Self::MetadataEntry(index) => write!(f, "metadata entry {index}"),
            Self::Key(key) => write!(f, "metadata key {key:?}"),
            Self::TensorEntry(index) => write!(f, "tensor entry {index}"),
            Self::Tensor(name) => write!(f, "tensor {name:?}"),
        }
    }
}

/// A bound from [`limits`](super::limits) that a file exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`HEADER_BYTES_MAX`](super::limits::HEADER_BYTES_MAX)
    HeaderBytes,
    /// [`METADATA_COUNT_MAX`](super::limits::METADATA_COUNT_MAX)
    MetadataCount,
    /// [`KEY_BYTES_MAX`](super::limits::KEY_BYTES_MAX)
    KeyBytes,
    /// [`STRING_BYTES_MAX`](super::limits::STRING_BYTES_MAX)
    StringBytes,
    /// [`ARRAY_COUNT_MAX`](super::limits::ARRAY_COUNT_MAX)
    ArrayCount,
    /// [`ARRAY_COUNT_TOTAL_MAX`](super::limits::ARRAY_COUNT_TOTAL_MAX)
    ArrayCountTotal,
    /// [`TENSOR_COUNT_MAX`](super::limits::TENSOR_COUNT_MAX)
    TensorCount,
    /// [`TENSOR_NAME_BYTES_MAX`](super::limits::TENSOR_NAME_BYTES_MAX)
    TensorNameBytes,
    /// [`DIMENSION_COUNT_MAX`](super::limits::DIMENSION_COUNT_MAX)
    DimensionCount,
    /// [`TENSOR_ELEMENTS_MAX`](super::limits::TENSOR_ELEMENTS_MAX)
    TensorElements,
}

/// Why a GGUF file cannot be read.
#[derive(Debug, Error)]
pub enum GgufError {
    /// The file cannot be opened or its size not be found.
    #[error("cannot open {path}", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading bytes that the file should hold failed.
    #[error("cannot read {place}")]
    Read {
        /// Where.
        place: Place,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not begin with `GGUF`.
    #[error("not a GGUF file: it begins with {found:02x?}")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A version this reader does not know (2 and 3, little-endian, are known).
    #[error("GGUF version {version} is not supported")]
    Version {
        /// The version field.
        version: u32,
    },
    /// The file ends inside something.
    #[error("the file ends inside {place}")]
    Truncated {
        /// Inside what.
        place: Place,
    },
    /// A count or length exceeds its bound.
    #[error("{place}: {value} exceeds the limit {limit:?} of {max}")]
    OverLimit {
        /// Where.
        place: Place,
        /// Which bound.
        limit: Limit,
        /// What the file claims.
        value: u64,
        /// The bound's value.
        max: u64,
    },
    /// Text is not UTF-8.
    #[error("{place} holds text that is not UTF-8")]
    NotUtf8 {
        /// Where.
        place: Place,
    },
    /// A metadata value has a type number outside the format.
    #[error("{place} has unknown value type {kind}")]
    UnknownValueType {
        /// Where.
        place: Place,
        /// The type number.
        kind: u32,
    },
    /// An array of arrays, which no known key uses.
    #[error("{place} is an array of arrays")]
    NestedArray {
        /// Where.
        place: Place,
    },
    /// A boolean is neither 0 nor 1.
    #[error("{place} holds {value} where a boolean is 0 or 1")]
    NotBoolean {
        /// Where.
        place: Place,
        /// The byte found.
        value: u8,
    },
    /// A metadata key occurs twice.
    #[error("metadata key {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A tensor name occurs twice.
    #[error("tensor {tensor:?} occurs twice")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
    },
    /// `general.alignment` is not a power of two within bounds.
    #[error("alignment of {bytes} bytes is not a power of two from 8 to 65536")]
    Alignment {
        /// The alignment asked for.
        bytes: u64,
    },
    /// A tensor uses a ggml type that cannot be dequantised here.
    #[error("tensor {tensor:?} has ggml type {kind}, which is not supported")]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// The ggml type number.
        kind: u32,
    },
    /// Dimensions are zero, too large, or rows are no whole number of blocks.
    #[error("tensor {tensor:?} has impossible dimensions {dimensions:?}")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// Its dimensions, fastest first.
        dimensions: Vec<u64>,
    },
    /// A tensor's offset is not a multiple of the alignment.
    #[error("tensor {tensor:?} begins at offset {offset}, which is not aligned")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Its offset within the data section, in bytes.
        offset: u64,
    },
    /// A tensor reaches past the end of the file.
    #[error(
        "tensor {tensor:?} ({bytes} bytes at offset {offset}) reaches past the end of the file"
    )]
    OutsideFile {
        /// The tensor.
        tensor: String,
        /// Its offset within the data section, in bytes.
        offset: u64,
        /// Its length in bytes.
        bytes: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside it.
        second: String,
    },
    /// A metadata key is required and absent.
    #[error("metadata key {key:?} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value has another type than its key needs.
    #[error("metadata key {key:?} is a {found}, not a {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// The type needed.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// A tensor is required and absent.
    #[error("tensor {tensor:?} is missing")]
    MissingTensor {
        /// The tensor.
        tensor: String,
    },
    /// Rows were asked for that the tensor does not have.
    #[error("tensor {tensor:?} has no rows {first}..{end}")]
    RowRange {
        /// The tensor.
        tensor: String,
        /// First row asked for.
        first: usize,
        /// One past the last row asked for.
        end: usize,
    },
    /// A weight is infinite or not a number.
    #[error("tensor {tensor:?} holds a value that is not finite")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
}
