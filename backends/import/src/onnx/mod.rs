//! Writing ONNX models with external data.

mod check;
mod data;
mod graph;
pub mod proto;

pub use check::CheckError;
pub(crate) use check::check_model;
pub(crate) use data::ExternalData;
pub(crate) use graph::{FloatWidth, GraphWriter, Node, Shape, for_each_block};

/// Version of the ONNX format that is written.
pub const IR_VERSION: i64 = 10;
/// Version of the standard operator set.
pub const OPSET_VERSION: i64 = 21;
/// Domain of ONNX Runtime's own operators.
pub const CONTRIB_DOMAIN: &str = "com.microsoft";
/// Domain of operators of our own.
pub const OWN_DOMAIN: &str = "org.moted";
/// Alignment of tensors in the external data file, in bytes: a page, so that they can be mapped.
pub const DATA_ALIGNMENT_BYTES: u64 = 4096;
/// Tensors below this size stay in the model file, in bytes.
pub const INLINE_BYTES_MAX: usize = 1024;
