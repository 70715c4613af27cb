//! A bounded reader of Hugging Face folders: safetensors files, single or sharded, and the
//! JSON beside them.
//!
//! The files are untrusted: counts, lengths, types and offsets are checked before anything is
//! allocated or read. Format: the safetensors README of its reference implementation.

mod error;
mod header;
pub mod limits;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use serde::Deserialize;

pub use error::SafetensorsError;
use header::{Encoding, Entry};

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// An open file of weights.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    bytes: u64,
}

/// The safetensors files of a Hugging Face folder, open, with their parsed headers.
#[derive(Debug)]
pub struct SafetensorsFolder {
    path: PathBuf,
    shards: Vec<Shard>,
    /// Each tensor with the position of its file.
    tensors: BTreeMap<String, (usize, Entry)>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl SafetensorsFolder {
    /// Opens the files of `folder`: what `model.safetensors.index.json` names, or
    /// `model.safetensors`.
    ///
    /// # Errors
    /// Every malformed or hostile header or index is refused with the file or tensor named.
    pub fn open(folder: &Path) -> Result<Self, SafetensorsError> {
        let index = read_optional(&folder.join(INDEX_FILE), limits::INDEX_BYTES_MAX)?;
        let index = match index {
            None => None,
            Some(text) => Some(parse_index(&folder.join(INDEX_FILE), &text)?),
        };
        let names: BTreeSet<String> = match &index {
            None => BTreeSet::from([SINGLE_FILE.to_owned()]),
            Some(index) => index.weight_map.values().cloned().collect(),
        };
        if names.len() > limits::SHARD_COUNT_MAX {
            return Err(SafetensorsError::TooMany {
                path: folder.join(INDEX_FILE),
                what: "files",
                max: limits::SHARD_COUNT_MAX,
            });
        }
        let mut opened = Self {
            path: folder.to_owned(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for name in &names {
            opened.add(name)?;
        }
        for (tensor, name) in index.iter().flat_map(|index| &index.weight_map) {
            let shard = opened.tensors.get(tensor).map(|(shard, _)| *shard);
            let expected = names.iter().position(|known| known == name);
            if shard != expected || shard.is_none() {
                return Err(SafetensorsError::Misplaced {
                    tensor: tensor.clone(),
                });
            }
        }
        Ok(opened)
    }

    fn add(&mut self, name: &str) -> Result<(), SafetensorsError> {
        let is_name = name.ends_with(".safetensors") && !name.contains(['/', '\\', '\0']);
        if !is_name || name.starts_with('.') {
            return Err(SafetensorsError::ShardName {
                name: name.to_owned(),
            });
        }
        let path = self.path.join(name);
        let (file, bytes) = open(&path)?;
        let number = self.shards.len();
        for (tensor, entry) in header::read(&path, &file, bytes)? {
            if self.tensors.len() >= limits::TENSOR_COUNT_MAX {
                return Err(SafetensorsError::TooMany {
                    path: self.path.clone(),
                    what: "tensors",
                    max: limits::TENSOR_COUNT_MAX,
                });
            }
            if self
                .tensors
                .insert(tensor.clone(), (number, entry))
                .is_some()
            {
                return Err(SafetensorsError::DuplicateTensor { tensor });
            }
        }
        self.shards.push(Shard { path, file, bytes });
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Elements of all tensors together.
    pub fn elements(&self) -> u64 {
        let entries = self.tensors.values();
        entries
            .map(|(_, entry)| entry.rows as u64 * entry.columns as u64)
            .fold(0, u64::saturating_add)
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// Rows (all dimensions but the last) and columns of a tensor; a vector has one row.
    pub fn shape(&self, tensor: &str) -> Result<(usize, usize), SafetensorsError> {
        let (_, entry) = self.entry(tensor)?;
        Ok((entry.rows, entry.columns))
    }

    /// Whether a tensor is there and its elements are floats of eight bits.
    pub(crate) fn has_eight_bits(&self, tensor: &str) -> bool {
        let entry = self.tensors.get(tensor);
        entry.is_some_and(|(_, entry)| entry.encoding == Some(Encoding::F8E4M3))
    }

    fn entry(&self, tensor: &str) -> Result<&(usize, Entry), SafetensorsError> {
        self.tensors
            .get(tensor)
            .ok_or_else(|| SafetensorsError::MissingTensor {
                tensor: tensor.to_owned(),
            })
    }

    /// Reads rows of `tensor` as f32, beginning at `first`, until `out` is full.
    ///
    /// # Errors
    /// Refuses element types other than F32, F16, BF16 and F8_E4M3, rows outside the tensor, an `out`
    /// that is no whole number of rows, and values that are not finite.
    pub fn read_rows(
        &self,
        tensor: &str,
        first: usize,
        out: &mut [f32],
    ) -> Result<(), SafetensorsError> {
        let (shard, entry) = self.entry(tensor)?;
        let encoding = entry
            .encoding
            .ok_or_else(|| SafetensorsError::UnsupportedType {
                tensor: tensor.to_owned(),
                dtype: entry.dtype.clone(),
            })?;
        let count = out.len() / entry.columns;
        let end = first.saturating_add(count);
        if end > entry.rows || count * entry.columns != out.len() {
            return Err(SafetensorsError::RowRange {
                tensor: tensor.to_owned(),
                first,
                end,
            });
        }
        let row_bytes = entry.columns * encoding.bytes();
        let mut bytes = vec![0; row_bytes * count];
        let shard = &self.shards[*shard];
        let offset = entry.offset + row_bytes as u64 * first as u64;
        shard
            .file
            .read_exact_at(&mut bytes, offset)
            .map_err(|source| SafetensorsError::Read {
                path: shard.path.clone(),
                source,
            })?;
        decode(encoding, &bytes, out);
        if out.iter().all(|value| value.is_finite()) {
            Ok(())
        } else {
            Err(SafetensorsError::NotFinite {
                tensor: tensor.to_owned(),
            })
        }
    }

    /// Gives every byte of every file to `take`, file by file in the order of their names.
    pub fn for_each_piece<E: From<SafetensorsError>>(
        &self,
        piece: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for shard in &self.shards {
            let mut offset = 0;
            while offset < shard.bytes {
                let count = (shard.bytes - offset).min(piece.len() as u64) as usize;
                let bytes = &mut piece[..count];
                shard.file.read_exact_at(bytes, offset).map_err(|source| {
                    SafetensorsError::Read {
                        path: shard.path.clone(),
                        source,
                    }
                })?;
                take(bytes)?;
                offset += count as u64;
            }
        }
        Ok(())
    }
}

fn decode(encoding: Encoding, bytes: &[u8], out: &mut [f32]) {
    match encoding {
        Encoding::F32 => {
            for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        Encoding::F16 => {
            for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        Encoding::Bf16 => {
            for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *value = bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        Encoding::F8E4M3 => {
            for (value, &byte) in out.iter_mut().zip(bytes) {
                *value = from_f8e4m3(byte);
            }
        }
    }
}

/// What an eight-bit float stands for; both codes with all bits but the sign set are no number.
fn from_f8e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 0x7f) {
        (_, 0x7f) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if byte >= 0x80 { -size } else { size }
}

fn parse_index(path: &Path, text: &[u8]) -> Result<Index, SafetensorsError> {
    let index: Index = serde_json::from_slice(text).map_err(|source| SafetensorsError::Json {
        path: path.to_owned(),
        source,
    })?;
    if index.weight_map.len() > limits::TENSOR_COUNT_MAX {
        return Err(SafetensorsError::TooMany {
            path: path.to_owned(),
            what: "tensors",
            max: limits::TENSOR_COUNT_MAX,
        });
    }
    Ok(index)
}

fn open(path: &Path) -> Result<(File, u64), SafetensorsError> {
    let failed = |source| SafetensorsError::Open {
        path: path.to_owned(),
        source,
    };
    // Opening a pipe would wait for whoever writes to it.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no file")));
    }
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    Ok((file, bytes))
}

/// The content of the file at `path`, at most `max` bytes; `None` when there is none.
pub(crate) fn read_optional(path: &Path, max: u64) -> Result<Option<Vec<u8>>, SafetensorsError> {
    let Some(content) = read_start(path, max + 1)? else {
        return Ok(None);
    };
    if content.len() as u64 > max {
        let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
        return Err(SafetensorsError::TooLarge {
            path: path.to_owned(),
            bytes: bytes.max(max + 1),
            max,
        });
    }
    Ok(Some(content))
}

/// The first bytes of the file at `path`, at most `max`; `None` when there is none.
pub(crate) fn read_start(path: &Path, max: u64) -> Result<Option<Vec<u8>>, SafetensorsError> {
    let (file, _) = match open(path) {
        Err(SafetensorsError::Open { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            return Ok(None);
        }
        opened => opened?,
    };
    let mut content = Vec::new();
    let read = file.take(max).read_to_end(&mut content);
    read.map_err(|source| SafetensorsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(content))
}

/// Like [`read_optional`], but the file must be there.
pub(crate) fn read_required(path: &Path, max: u64) -> Result<Vec<u8>, SafetensorsError> {
    read_optional(path, max)?.ok_or_else(|| SafetensorsError::Open {
        path: path.to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::from_f8e4m3;

    #[test]
    fn eight_bit_floats_match_values_worked_out_by_hand() {
        for (byte, value) in [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x07, 7.0 / 512.0),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0x3d, 1.625),
            (0xc0, -2.0),
            (0x7e, 448.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(from_f8e4m3(byte), value, "{byte:#x}");
        }
        assert!(from_f8e4m3(0x7f).is_nan() && from_f8e4m3(0xff).is_nan());
    }
}
