//! Parses magic, metadata and the tensor table. Nothing is allocated before the bytes
//! that would fill it are known to be in the file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
};

use super::{
    Array, GgmlType, GgufError, Limit, Metadata, Place, TensorInfo, Value,
    limits::{
        ALIGNMENT_BYTES_MAX, ARRAY_COUNT_MAX, ARRAY_COUNT_TOTAL_MAX, DIMENSION_COUNT_MAX,
        HEADER_BYTES_MAX, KEY_BYTES_MAX, METADATA_COUNT_MAX, STRING_BYTES_MAX, TENSOR_COUNT_MAX,
        TENSOR_ELEMENTS_MAX, TENSOR_NAME_BYTES_MAX,
    },
};

const ALIGNMENT_BYTES_DEFAULT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// What precedes the tensor data. Offsets in `tensors` are absolute.
pub(super) struct Header {
    pub metadata: Metadata,
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// Reads the header of `file`, which is `file_bytes` long and positioned at its start.
pub(super) fn read(file: &File, file_bytes: u64) -> Result<Header, GgufError> {
    let mut reader = Reader {
        file: BufReader::new(file),
        position: 0,
        file_bytes,
        array_count_total: 0,
    };
    let (tensor_count, metadata_count) = reader.preamble()?;
    let metadata = reader.metadata(metadata_count)?;
    let alignment = alignment(&metadata)?;
    let mut tensors = reader.tensor_table(tensor_count)?;
    let data_start = reader.position.next_multiple_of(alignment);
    place(&mut tensors, data_start, alignment, file_bytes)?;
    let mut by_name = BTreeMap::new();
    for tensor in tensors {
        if let Some(twin) = by_name.insert(tensor.name.clone(), tensor) {
            return Err(GgufError::DuplicateTensor { tensor: twin.name });
        }
    }
    Ok(Header {
        metadata,
        tensors: by_name,
    })
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let bytes = metadata
        .integer(ALIGNMENT_KEY)?
        .unwrap_or(ALIGNMENT_BYTES_DEFAULT);
    if bytes.is_power_of_two() && (8..=ALIGNMENT_BYTES_MAX).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(GgufError::Alignment { bytes })
    }
}

/// Makes offsets absolute, after checking that tensors are aligned, disjoint and in the file.
fn place(
    tensors: &mut [TensorInfo],
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<(), GgufError> {
    for tensor in tensors.iter_mut() {
        let offset = tensor.offset;
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned {
                tensor: tensor.name.clone(),
                offset,
            });
        }
        let start = data_start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(tensor.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= file_bytes => tensor.offset = start,
            _ => {
                return Err(GgufError::OutsideFile {
                    tensor: tensor.name.clone(),
                    offset,
                    bytes: tensor.bytes,
                });
            }
        }
    }
    tensors.sort_by_key(|tensor| tensor.offset);
    match tensors
        .windows(2)
        .find(|pair| pair[0].offset + pair[0].bytes > pair[1].offset)
    {
        Some(pair) if pair[0].name == pair[1].name => Err(GgufError::DuplicateTensor {
            tensor: pair[0].name.clone(),
        }),
        Some(pair) => Err(GgufError::Overlap {
            first: pair[0].name.clone(),
            second: pair[1].name.clone(),
        }),
        None => Ok(()),
    }
}

struct Reader<'a> {
    file: BufReader<&'a File>,
    position: u64,
    file_bytes: u64,
    array_count_total: u64,
}

impl Reader<'_> {
    /// Returns the tensor count and the metadata count.
    fn preamble(&mut self) -> Result<(u64, u64), GgufError> {
        let magic: [u8; 4] = self.array(&Place::Header)?;
        if &magic != b"GGUF" {
            return Err(GgufError::Magic { found: magic });
        }
        let version = u32::from_le_bytes(self.array(&Place::Header)?);
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { version });
        }
        let tensor_count = self.u64(&Place::Header)?;
        within(
            &Place::Header,
            Limit::TensorCount,
            tensor_count,
            TENSOR_COUNT_MAX,
        )?;
        let metadata_count = self.u64(&Place::Header)?;
        within(
            &Place::Header,
            Limit::MetadataCount,
            metadata_count,
            METADATA_COUNT_MAX,
        )?;
        Ok((tensor_count, metadata_count))
    }

    fn metadata(&mut self, count: u64) -> Result<Metadata, GgufError> {
        let mut entries = BTreeMap::new();
        for index in 0..count {
            let key = self.text(&Place::MetadataEntry(index), Limit::KeyBytes, KEY_BYTES_MAX)?;
            let place = Place::Key(key.clone());
            let kind = self.u32(&place)?;
            let value = self.value(&place, kind)?;
            if entries.insert(key.clone(), value).is_some() {
                return Err(GgufError::DuplicateKey { key });
            }
        }
        Ok(Metadata(entries))
    }

    fn value(&mut self, place: &Place, kind: u32) -> Result<Value, GgufError> {
        Ok(match kind {
            0 | 2 | 4 | 10 => Value::Unsigned(self.unsigned(place, kind)?),
            1 | 3 | 5 | 11 => Value::Signed(self.signed(place, kind)?),
            6 | 12 => Value::Float(self.float(place, kind)?),
            7 => Value::Bool(self.bool(place)?),
            8 => Value::Text(self.text(place, Limit::StringBytes, STRING_BYTES_MAX)?),
            9 => Value::Array(self.value_array(place)?),
            _ => {
                return Err(GgufError::UnknownValueType {
                    place: place.clone(),
                    kind,
                });
            }
        })
    }

    fn value_array(&mut self, place: &Place) -> Result<Array, GgufError> {
        let kind = self.u32(place)?;
        let count = self.u64(place)?;
        within(place, Limit::ArrayCount, count, ARRAY_COUNT_MAX)?;
        self.array_count_total += count;
        within(
            place,
            Limit::ArrayCountTotal,
            self.array_count_total,
            ARRAY_COUNT_TOTAL_MAX,
        )?;
        let element_bytes_min = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => {
                return Err(GgufError::NestedArray {
                    place: place.clone(),
                });
            }
            _ => {
                return Err(GgufError::UnknownValueType {
                    place: place.clone(),
                    kind,
                });
            }
        };
        self.reserve(place, count * element_bytes_min)?;
        Ok(match kind {
            0 | 2 | 4 | 10 => Array::Unsigned(
                (0..count)
                    .map(|_| self.unsigned(place, kind))
                    .collect::<Result<_, _>>()?,
            ),
            1 | 3 | 5 | 11 => Array::Signed(
                (0..count)
                    .map(|_| self.signed(place, kind))
                    .collect::<Result<_, _>>()?,
            ),
            6 | 12 => Array::Float(
                (0..count)
                    .map(|_| self.float(place, kind))
                    .collect::<Result<_, _>>()?,
            ),
            7 => Array::Bool(
                (0..count)
                    .map(|_| self.bool(place))
                    .collect::<Result<_, _>>()?,
            ),
            _ => Array::Text(
                (0..count)
                    .map(|_| self.text(place, Limit::StringBytes, STRING_BYTES_MAX))
                    .collect::<Result<_, _>>()?,
            ),
        })
    }

    fn tensor_table(&mut self, count: u64) -> Result<Vec<TensorInfo>, GgufError> {
        (0..count).map(|index| self.tensor(index)).collect()
    }

    fn tensor(&mut self, index: u64) -> Result<TensorInfo, GgufError> {
        let name = self.text(
            &Place::TensorEntry(index),
            Limit::TensorNameBytes,
            TENSOR_NAME_BYTES_MAX,
        )?;
        let place = Place::Tensor(name.clone());
        let dimension_count = u64::from(self.u32(&place)?);
        within(
            &place,
            Limit::DimensionCount,
            dimension_count,
            DIMENSION_COUNT_MAX,
        )?;
        let dimensions = (0..dimension_count)
            .map(|_| self.u64(&place))
            .collect::<Result<Vec<_>, _>>()?;
        let kind = self.u32(&place)?;
        let offset = self.u64(&place)?;
        tensor_info(name, dimensions, kind, offset)
    }

    fn unsigned(&mut self, place: &Place, kind: u32) -> Result<u64, GgufError> {
        Ok(match kind {
            0 => u64::from(self.array::<1>(place)?[0]),
            2 => u64::from(u16::from_le_bytes(self.array(place)?)),
            4 => u64::from(self.u32(place)?),
            _ => self.u64(place)?,
        })
    }

    fn signed(&mut self, place: &Place, kind: u32) -> Result<i64, GgufError> {
        Ok(match kind {
            1 => i64::from(i8::from_le_bytes(self.array(place)?)),
            3 => i64::from(i16::from_le_bytes(self.array(place)?)),
            5 => i64::from(i32::from_le_bytes(self.array(place)?)),
            _ => i64::from_le_bytes(self.array(place)?),
        })
    }

    fn float(&mut self, place: &Place, kind: u32) -> Result<f64, GgufError> {
        Ok(match kind {
            6 => f64::from(f32::from_le_bytes(self.array(place)?)),
            _ => f64::from_le_bytes(self.array(place)?),
        })
    }

    fn bool(&mut self, place: &Place) -> Result<bool, GgufError> {
        match self.array::<1>(place)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(GgufError::NotBoolean {
                place: place.clone(),
                value,
            }),
        }
    }

    fn text(&mut self, place: &Place, limit: Limit, max: u64) -> Result<String, GgufError> {
        let length = self.u64(place)?;
        within(place, limit, length, max)?;
        self.reserve(place, length)?;
        // `length` is at most `max`, which fits memory by its choice.
        let mut bytes = vec![0; length as usize];
        self.fill(place, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| GgufError::NotUtf8 {
            place: place.clone(),
        })
    }

    fn u32(&mut self, place: &Place) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(place)?))
    }

    fn u64(&mut self, place: &Place) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(place)?))
    }

    fn array<const N: usize>(&mut self, place: &Place) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.reserve(place, N as u64)?;
        self.fill(place, &mut bytes)?;
        Ok(bytes)
    }

    /// Checks that `bytes` more bytes are in the file and within the header's bound.
    fn reserve(&self, place: &Place, bytes: u64) -> Result<(), GgufError> {
        let end = self.position.saturating_add(bytes);
        if end > self.file_bytes {
            return Err(GgufError::Truncated {
                place: place.clone(),
            });
        }
        within(place, Limit::HeaderBytes, end, HEADER_BYTES_MAX)
    }

    fn fill(&mut self, place: &Place, bytes: &mut [u8]) -> Result<(), GgufError> {
        self.file
            .read_exact(bytes)
            .map_err(|source| GgufError::Read {
                place: place.clone(),
                source,
            })?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}

fn within(place: &Place, limit: Limit, value: u64, max: u64) -> Result<(), GgufError> {
    if value <= max {
        return Ok(());
    }
    Err(GgufError::OverLimit {
        place: place.clone(),
        limit,
        value,
        max,
    })
}

/// Builds a table entry whose `offset` is still relative to the data section.
fn tensor_info(
    name: String,
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
) -> Result<TensorInfo, GgufError> {
    let Some(ggml_type) = GgmlType::from_number(kind) else {
        return Err(GgufError::UnsupportedType { tensor: name, kind });
    };
    let elements = dimensions
        .iter()
        .try_fold(1u64, |product, &dimension| product.checked_mul(dimension))
        .filter(|&elements| elements > 0 && elements <= TENSOR_ELEMENTS_MAX);
    let (block_elements, block_bytes) = ggml_type.block();
    let columns = dimensions.first().copied().unwrap_or(0);
    match elements {
        Some(elements) if columns > 0 && columns.is_multiple_of(block_elements as u64) => {
            Ok(TensorInfo {
                name,
                ggml_type,
                columns: columns as usize,
                rows: (elements / columns) as usize,
                bytes: elements / block_elements as u64 * block_bytes as u64,
                offset,
            })
        }
        _ => Err(GgufError::Dimensions {
            tensor: name,
            dimensions,
        }),
    }
}
