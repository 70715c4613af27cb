//! Why a folder of safetensors files is refused.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a Hugging Face folder cannot be read.
#[derive(Debug, Error)]
pub enum SafetensorsError {
    /// A file cannot be opened or its size not be found.
    #[error("cannot open {path}", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading bytes that a file should hold failed.
    #[error("cannot read {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or header exceeds its bound.
    #[error("{path} claims {bytes} bytes where at most {max} are read", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it has or claims, in bytes.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// A file ends inside its header.
    #[error("{path} ends inside its header", path = .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// JSON does not parse, nests too deeply, or has a count over its bound.
    #[error("cannot parse {path}", path = .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// The index names more files, or all files hold more tensors, than are read.
    #[error("{path} has more than {max} {what}", path = .path.display())]
    TooMany {
        /// The index or folder.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The index names a file outside the folder.
    #[error("the index names {name:?}, which is no safetensors file of the folder")]
    ShardName {
        /// The name.
        name: String,
    },
    /// The index and the files disagree on where a tensor is.
    #[error("tensor {tensor:?} is not in the file that the index names")]
    Misplaced {
        /// The tensor.
        tensor: String,
    },
    /// A tensor occurs twice.
    #[error("tensor {tensor:?} occurs twice")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
    },
    /// Dimensions are zero, too many or too large, or do not fill the tensor's bytes.
    #[error("tensor {tensor:?} has impossible dimensions {dimensions:?}")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// Its dimensions, slowest first.
        dimensions: Vec<u64>,
    },
    /// A tensor does not begin where the one before it ends: bytes are shared or unused.
    #[error("tensor {tensor:?} begins at offset {offset}, not at {expected}")]
    Offset {
        /// The tensor.
        tensor: String,
        /// Where it begins in the data section, in bytes.
        offset: u64,
        /// Where the one before it ends.
        expected: u64,
    },
    /// The tensors do not end where the file ends.
    #[error("the tensors of {path} take {bytes} bytes, the file has {found}", path = .path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the header describes.
        bytes: u64,
        /// Bytes after the header.
        found: u64,
    },
    /// A tensor is required and absent.
    #[error("tensor {tensor:?} is missing")]
    MissingTensor {
        /// The tensor.
        tensor: String,
    },
    /// A tensor's element type cannot be read here.
    #[error("tensor {tensor:?} has element type {dtype:?}, which is not supported")]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// The type's name.
        dtype: String,
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
