//! A bounded reader of GGUF version 2 and 3 files (little-endian).
//!
//! The file is untrusted: counts, lengths, types, offsets and overlaps are checked before
//! anything is allocated or read. Format: the GGUF specification of the ggml project.

mod dequantise;
mod error;
mod header;
pub mod limits;
mod value;

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

pub use dequantise::GgmlType;
pub use error::{GgufError, Limit, Place};
pub use value::{Array, Metadata, Value, required};

/// One entry of the tensor table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, unique in the file.
    pub name: String,
    /// Element encoding.
    pub ggml_type: GgmlType,
    /// Elements of the fastest dimension; a whole number of blocks.
    pub columns: usize,
    /// Product of the other dimensions; 1 for a vector.
    pub rows: usize,
    /// Length in the file, in bytes.
    pub bytes: u64,
    /// First byte, counted from the start of the file.
    pub offset: u64,
}

/// An open GGUF file with its parsed header.
#[derive(Debug)]
pub struct Gguf {
    file: File,
    file_bytes: u64,
    path: PathBuf,
    metadata: Metadata,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Opens `path` and parses its header.
    ///
    /// # Errors
    /// Every malformed or hostile header is refused with the key or tensor named.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let open = |source| GgufError::Open {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(open)?;
        let file_bytes = file.metadata().map_err(open)?.len();
        let header = header::read(&file, file_bytes)?;
        Ok(Self {
            file,
            file_bytes,
            path: path.to_owned(),
            metadata: header.metadata,
            tensors: header.tensors,
        })
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The path the file was opened under.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file in bytes when it was opened.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// All tensors in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, GgufError> {
        self.tensors
            .get(name)
            .ok_or_else(|| GgufError::MissingTensor {
                tensor: name.to_owned(),
            })
    }

    /// Fills `bytes` from `offset` of the file, for digests.
    pub fn read_bytes(&self, offset: u64, bytes: &mut [u8]) -> Result<(), GgufError> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|source| GgufError::Read {
                place: Place::Header,
                source,
            })
    }

    /// Dequantises rows of `tensor`, beginning at `first_row`, until `out` is full.
    ///
    /// # Errors
    /// Refuses rows outside the tensor, an `out` that is no whole number of rows, and
    /// values that are not finite.
    pub fn read_rows(
        &self,
        tensor: &TensorInfo,
        first_row: usize,
        out: &mut [f32],
    ) -> Result<(), GgufError> {
        let row_count = out.len() / tensor.columns;
        let end = first_row.saturating_add(row_count);
        if end > tensor.rows || row_count * tensor.columns != out.len() {
            return Err(GgufError::RowRange {
                tensor: tensor.name.clone(),
                first: first_row,
                end,
            });
        }
        let (block_elements, block_bytes) = tensor.ggml_type.block();
        let row_bytes = tensor.columns / block_elements * block_bytes;
        let mut encoded = vec![0; row_bytes * row_count];
        self.file
            .read_exact_at(
                &mut encoded,
                tensor.offset + row_bytes as u64 * first_row as u64,
            )
            .map_err(|source| GgufError::Read {
                place: Place::Tensor(tensor.name.clone()),
                source,
            })?;
        tensor.ggml_type.dequantise(&encoded, out);
        if out.iter().all(|value| value.is_finite()) {
            Ok(())
        } else {
            Err(GgufError::NotFinite {
                tensor: tensor.name.clone(),
            })
        }
    }
}
