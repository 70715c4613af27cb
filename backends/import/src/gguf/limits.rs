//! Bounds on what a GGUF header may claim.
//!
//! Each is far above what published checkpoints use and low enough that a hostile
//! header cannot make the reader allocate more than about a hundred mebibytes.

/// Largest header (metadata and tensor table together), in bytes.
pub const HEADER_BYTES_MAX: u64 = 64 << 20;
/// Most metadata entries.
pub const METADATA_COUNT_MAX: u64 = 4096;
/// Longest metadata key, in bytes.
pub const KEY_BYTES_MAX: u64 = 1024;
/// Longest metadata string, array elements included, in bytes.
pub const STRING_BYTES_MAX: u64 = 1 << 20;
/// Most elements in one metadata array.
pub const ARRAY_COUNT_MAX: u64 = 1 << 21;
/// Most elements in all metadata arrays together.
pub const ARRAY_COUNT_TOTAL_MAX: u64 = 1 << 22;
/// Most tensors.
pub const TENSOR_COUNT_MAX: u64 = 1 << 16;
/// Longest tensor name, in bytes.
pub const TENSOR_NAME_BYTES_MAX: u64 = 256;
/// Most dimensions of a tensor.
pub const DIMENSION_COUNT_MAX: u64 = 4;
/// Most elements in one tensor.
pub const TENSOR_ELEMENTS_MAX: u64 = 1 << 40;
/// Largest alignment of tensor data, in bytes.
pub const ALIGNMENT_BYTES_MAX: u64 = 1 << 16;
