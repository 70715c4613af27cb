//! The header of one safetensors file: eight bytes of length, then JSON.

use std::{collections::BTreeMap, fmt, fs::File, os::unix::fs::FileExt, path::Path};

use serde::{
    Deserialize,
    de::{self, Deserializer, MapAccess, SeqAccess, Visitor},
};

use super::{SafetensorsError, limits};

const LENGTH_BYTES: u64 = 8;
const METADATA: &str = "__metadata__";

/// Encoding of elements that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    F32,
    F16,
    Bf16,
    /// Sign, 4 bits of exponent, 3 of mantissa; no infinities.
    F8E4M3,
}

impl Encoding {
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F8E4M3 => 1,
        }
    }
}

/// One tensor of a file.
#[derive(Debug)]
pub(super) struct Entry {
    /// The type's name in the header, with its encoding when it can be read.
    pub dtype: String,
    pub encoding: Option<Encoding>,
    pub rows: usize,
    pub columns: usize,
    /// First byte, counted from the start of the file.
    pub offset: u64,
}

#[derive(Deserialize)]
struct Described {
    dtype: String,
    #[serde(deserialize_with = "few")]
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Reads and checks the header of `file`: tensors have sound shapes and lie one after the
/// other from the header's end to the file's end.
pub(super) fn read(
    path: &Path,
    file: &File,
    file_bytes: u64,
) -> Result<BTreeMap<String, Entry>, SafetensorsError> {
    let read = |bytes: &mut [u8], offset| {
        file.read_exact_at(bytes, offset)
            .map_err(|source| SafetensorsError::Read {
                path: path.to_owned(),
                source,
            })
    };
    let truncated = || SafetensorsError::Truncated {
        path: path.to_owned(),
    };
    if file_bytes < LENGTH_BYTES {
        return Err(truncated());
    }
    let mut length = [0; LENGTH_BYTES as usize];
    read(&mut length, 0)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > limits::HEADER_BYTES_MAX {
        return Err(SafetensorsError::TooLarge {
            path: path.to_owned(),
            bytes: header_bytes,
            max: limits::HEADER_BYTES_MAX,
        });
    }
    let data_start = LENGTH_BYTES + header_bytes;
    if data_start > file_bytes {
        return Err(truncated());
    }
    let mut text = vec![0; header_bytes as usize];
    read(&mut text, LENGTH_BYTES)?;
    let Table(described) =
        serde_json::from_slice(&text).map_err(|source| SafetensorsError::Json {
            path: path.to_owned(),
            source,
        })?;
    place(path, described, (data_start, file_bytes))
}

fn place(
    path: &Path,
    described: BTreeMap<String, Described>,
    (data_start, file_bytes): (u64, u64),
) -> Result<BTreeMap<String, Entry>, SafetensorsError> {
    let mut order: Vec<(&String, &Described)> = described.iter().collect();
    order.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut end = 0;
    let mut entries = BTreeMap::new();
    for (name, tensor) in order {
        let [begin, after] = tensor.data_offsets;
        if begin != end || after < begin {
            return Err(SafetensorsError::Offset {
                tensor: name.clone(),
                offset: begin,
                expected: end,
            });
        }
        let entry = entry(tensor, after - begin, data_start.saturating_add(begin));
        let entry = entry.ok_or_else(|| SafetensorsError::Dimensions {
            tensor: name.clone(),
            dimensions: tensor.shape.clone(),
        })?;
        entries.insert(name.clone(), entry);
        end = after;
    }
    let found = file_bytes - data_start;
    if end == found {
        Ok(entries)
    } else {
        Err(SafetensorsError::Length {
            path: path.to_owned(),
            bytes: end,
            found,
        })
    }
}

fn entry(tensor: &Described, bytes: u64, offset: u64) -> Option<Entry> {
    let elements = tensor
        .shape
        .iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    let encoding = match tensor.dtype.as_str() {
        "F32" => Some(Encoding::F32),
        "F16" => Some(Encoding::F16),
        "BF16" => Some(Encoding::Bf16),
        "F8_E4M3" => Some(Encoding::F8E4M3),
        _ => None,
    };
    // Sizes of types that are not read are not known here.
    let fills =
        encoding.is_none_or(|kind| elements.checked_mul(kind.bytes() as u64) == Some(bytes));
    if elements > limits::TENSOR_ELEMENTS_MAX || !fills || (encoding.is_some() && elements == 0) {
        return None;
    }
    let columns = tensor.shape.last().copied().unwrap_or(1).max(1);
    Some(Entry {
        dtype: tensor.dtype.clone(),
        encoding,
        rows: (elements / columns) as usize,
        columns: columns as usize,
        offset,
    })
}

/// The header's map: no name twice, none too long, not too many.
struct Table(BTreeMap<String, Described>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Table;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
                let mut table = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA {
                        map.next_value::<de::IgnoredAny>()?;
                        continue;
                    }
                    if name.len() > limits::TENSOR_NAME_BYTES_MAX {
                        return Err(de::Error::custom("a tensor's name is too long"));
                    }
                    if table.len() >= limits::TENSOR_COUNT_MAX {
                        return Err(de::Error::custom("there are too many tensors"));
                    }
                    if table.contains_key(&name) {
                        let text = format!("tensor {name:?} occurs twice");
                        return Err(de::Error::custom(text));
                    }
                    let described = map.next_value()?;
                    table.insert(name, described);
                }
                Ok(Table(table))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Dimensions, no more than the bound.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    struct Dimensions;
    impl<'de> Visitor<'de> for Dimensions {
        type Value = Vec<u64>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of dimensions")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
            let mut dims = Vec::new();
            while let Some(dim) = seq.next_element()? {
                if dims.len() == limits::DIMENSION_COUNT_MAX {
                    return Err(de::Error::custom("a tensor has too many dimensions"));
                }
                dims.push(dim);
            }
            Ok(dims)
        }
    }
    deserializer.deserialize_seq(Dimensions)
}
