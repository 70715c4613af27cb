//! Writes a GGUF version 3 file whose tensor table comes before its tensors are known in
//! full.

use std::collections::VecDeque;

use half::f16;

use crate::{
    ImportError,
    checkpoint::Rows,
    folder::StagedFile,
    gguf::{Array, Value},
    onnx::for_each_block,
    progress::Monitor,
    quantise::{BLOCK, Bits, Storage, all_numbers, quantise},
};

const ALIGNMENT_BYTES: u64 = 32;
/// Bytes of a block's scale.
const SCALE_BYTES: u64 = 2;

/// A tensor to be written.
pub(super) struct Planned<'a> {
    name: String,
    /// Fastest dimension first, as the format has it.
    dims: Vec<u64>,
    storage: Storage,
    rows: Box<dyn Rows + 'a>,
}

/// A tensor's entry in the table.
pub(super) struct Entry {
    name: String,
    dims: Vec<u64>,
    storage: Storage,
}

impl<'a> Planned<'a> {
    /// A matrix of one row, kept in f32, as a tensor of one dimension.
    pub fn vector(name: String, rows: Box<dyn Rows + 'a>) -> Self {
        Self {
            name,
            dims: vec![rows.columns() as u64],
            storage: Storage::F32,
            rows,
        }
    }

    /// A matrix.
    pub fn matrix(name: String, rows: Box<dyn Rows + 'a>, storage: Storage) -> Self {
        Self {
            name,
            dims: vec![rows.columns() as u64, rows.rows() as u64],
            storage,
            rows,
        }
    }

    /// Matrices of `experts` experts, one below the other, as a tensor of three dimensions.
    pub fn experts(
        name: String,
        rows: Box<dyn Rows + 'a>,
        (experts, storage): (usize, Storage),
    ) -> Self {
        let height = rows.rows() / experts;
        Self {
            dims: vec![rows.columns() as u64, height as u64, experts as u64],
            ..Self::matrix(name, rows, storage)
        }
    }

    /// The tensor's entry in the table.
    pub fn entry(&self) -> Entry {
        Entry {
            name: self.name.clone(),
            dims: self.dims.clone(),
            storage: self.storage,
        }
    }
}

impl Entry {
    fn bytes(&self) -> u64 {
        let elements: u64 = self.dims.iter().product();
        match self.storage.code_bits() {
            Some(bits) => {
                elements / 8 * bits.count() as u64 + elements / BLOCK as u64 * SCALE_BYTES
            }
            None if self.storage == Storage::F16 => elements * 2,
            None => elements * 4,
        }
    }
}

/// A file whose tensors are still being appended, in the order of its table.
pub(super) struct GgufFile {
    file: StagedFile,
    expected: VecDeque<Entry>,
}

impl GgufFile {
    /// Writes everything that precedes the tensor data.
    pub fn begin(
        mut file: StagedFile,
        metadata: &[(String, Value)],
        index: Vec<Entry>,
    ) -> Result<Self, ImportError> {
        let mut header = Vec::new();
        header.extend(b"GGUF");
        header.extend(3u32.to_le_bytes());
        header.extend((index.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            put_text(&mut header, key);
            put_value(&mut header, value);
        }
        let mut offset = 0u64;
        for entry in &index {
            if !entry.dims[0].is_multiple_of(BLOCK as u64) && entry.storage.code_bits().is_some() {
                return Err(ImportError::RowNotBlocks {
                    tensor: entry.name.clone(),
                    columns: entry.dims[0] as usize,
                });
            }
            put_text(&mut header, &entry.name);
            header.extend((entry.dims.len() as u32).to_le_bytes());
            header.extend(entry.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            header.extend(ggml_type(entry.storage).to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = (offset + entry.bytes()).next_multiple_of(ALIGNMENT_BYTES);
        }
        file.write(&header)?;
        Ok(Self {
            file,
            expected: index.into(),
        })
    }

    /// Appends tensors, which must follow the table's order.
    pub fn append(
        &mut self,
        planned: Vec<Planned<'_>>,
        monitor: &mut Monitor<'_>,
    ) -> Result<(), ImportError> {
        for tensor in planned {
            let entry = self.expected.pop_front();
            assert_eq!(
                entry.map(|entry| entry.name).as_ref(),
                Some(&tensor.name),
                "table and data come from the same plan"
            );
            self.align()?;
            let file = &mut self.file;
            for_each_block(tensor.rows.as_ref(), monitor, |values| {
                check_expressible(&tensor.name, values, tensor.storage)?;
                file.write(&match tensor.storage {
                    Storage::Int8 => q8_0(values),
                    Storage::Int4 => q4_0(values),
                    Storage::F16 => {
                        let halves = values.iter().map(|&value| f16::from_f32(value));
                        halves.flat_map(f16::to_le_bytes).collect()
                    }
                    Storage::F32 => values
                        .iter()
                        .flat_map(|value| value.to_le_bytes())
                        .collect(),
                })
            })?;
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(self) -> StagedFile {
        debug_assert!(self.expected.is_empty(), "every tensor was appended");
        self.file
    }

    fn align(&mut self) -> Result<(), ImportError> {
        let padding = self.file.bytes().next_multiple_of(ALIGNMENT_BYTES) - self.file.bytes();
        self.file
            .write(&[0; ALIGNMENT_BYTES as usize][..padding as usize])
    }
}

/// ggml's number for a kind of tensor.
fn ggml_type(storage: Storage) -> u32 {
    match storage {
        Storage::F32 => 0,
        Storage::F16 => 1,
        Storage::Int4 => 2,
        Storage::Int8 => 8,
    }
}

/// Refuses values of `tensor` that are not finite, or not as they are stored: 16-bit floats and scales
/// end at 65,504.
fn check_expressible(tensor: &str, values: &[f32], storage: Storage) -> Result<(), ImportError> {
    all_numbers(tensor, values)?;
    let limit = match storage {
        Storage::F32 => return Ok(()),
        Storage::F16 => f16::MAX.to_f32(),
        Storage::Int8 => f16::MAX.to_f32() * 127.0,
        Storage::Int4 => f16::MAX.to_f32() * 8.0,
    };
    if values.iter().all(|value| value.abs() <= limit) {
        return Ok(());
    }
    let tensor = tensor.to_owned();
    Err(match storage {
        Storage::F16 => ImportError::HalfOverflow { tensor },
        _ => ImportError::ScaleOverflow { tensor },
    })
}

/// Blocks of ggml's Q4_0: a scale, and codes whose low nibbles are the first half of the block.
fn q4_0(values: &[f32]) -> Vec<u8> {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    quantise(Bits::Four, values, (&mut codes, &mut scales));
    let mut blocks = Vec::with_capacity(codes.len() + 2 * scales.len());
    for (scale, codes) in scales.iter().zip(codes.chunks_exact(BLOCK / 2)) {
        blocks.extend(f16::from_f32(*scale).to_le_bytes());
        let code = |at: usize| codes[at / 2] >> (4 * (at % 2)) & 0xf;
        blocks.extend((0..BLOCK / 2).map(|at| code(at) | code(at + BLOCK / 2) << 4));
    }
    blocks
}

fn q8_0(values: &[f32]) -> Vec<u8> {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    quantise(Bits::Eight, values, (&mut codes, &mut scales));
    let mut blocks = Vec::with_capacity(codes.len() + 2 * scales.len());
    for (scale, codes) in scales.iter().zip(codes.chunks_exact(BLOCK)) {
        blocks.extend(f16::from_f32(*scale).to_le_bytes());
        // From codes around 128 to two's complement.
        blocks.extend(codes.iter().map(|code| code ^ 0x80));
    }
    blocks
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Integers and floats are written with 32 bits, which is what readers expect of the keys
/// that are written here.
fn put_value(out: &mut Vec<u8>, value: &Value) {
    let kind: u32 = match value {
        Value::Unsigned(_) => 4,
        Value::Signed(_) => 5,
        Value::Float(_) => 6,
        Value::Bool(_) => 7,
        Value::Text(_) => 8,
        Value::Array(_) => 9,
    };
    out.extend(kind.to_le_bytes());
    match value {
        Value::Unsigned(number) => out.extend((*number as u32).to_le_bytes()),
        Value::Signed(number) => out.extend((*number as i32).to_le_bytes()),
        Value::Float(number) => out.extend((*number as f32).to_le_bytes()),
        Value::Bool(flag) => out.push(u8::from(*flag)),
        Value::Text(text) => put_text(out, text),
        Value::Array(array) => put_array(out, array),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let (kind, count): (u32, usize) = match array {
        Array::Unsigned(values) => (4, values.len()),
        Array::Signed(values) => (5, values.len()),
        Array::Float(values) => (6, values.len()),
        Array::Bool(values) => (7, values.len()),
        Array::Text(values) => (8, values.len()),
    };
    out.extend(kind.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
    match array {
        Array::Unsigned(values) => {
            out.extend(
                values
                    .iter()
                    .flat_map(|&value| (value as u32).to_le_bytes()),
            );
        }
        Array::Signed(values) => {
            out.extend(
                values
                    .iter()
                    .flat_map(|&value| (value as i32).to_le_bytes()),
            );
        }
        Array::Float(values) => {
            out.extend(
                values
                    .iter()
                    .flat_map(|&value| (value as f32).to_le_bytes()),
            );
        }
        Array::Bool(values) => out.extend(values.iter().map(|&value| u8::from(value))),
        Array::Text(values) => values.iter().for_each(|value| put_text(out, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_be_stored_are_refused_by_what_is_wrong_with_them() {
        let all = [Storage::Int8, Storage::Int4, Storage::F16, Storage::F32];
        for storage in all {
            let check = |value| check_expressible("w", &[1.0, value], storage);
            assert!(check(-65_504.0).is_ok(), "{storage:?}");
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let error = check(value).expect_err("must be refused");
                assert_eq!(error.to_string(), "weights of \"w\" are no numbers");
            }
            let large = check(f32::MAX);
            assert!(
                match storage {
                    Storage::F32 => large.is_ok(),
                    Storage::F16 => matches!(large, Err(ImportError::HalfOverflow { .. })),
                    Storage::Int8 | Storage::Int4 =>
                        matches!(large, Err(ImportError::ScaleOverflow { .. })),
                },
                "{storage:?}"
            );
        }
    }
}
