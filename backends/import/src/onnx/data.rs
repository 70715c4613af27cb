//! The external data file: tensors one after the other, each on a page of its own.

use half::f16;

use super::{
    DATA_ALIGNMENT_BYTES,
    proto::{DataLocation, DataType, StringStringEntryProto, TensorProto},
};
use crate::{ImportError, folder::StagedFile};

/// Appends tensors to one file.
pub(crate) struct ExternalData {
    file: StagedFile,
}

impl ExternalData {
    pub fn new(file: StagedFile) -> Self {
        Self { file }
    }

    /// Begins a tensor on the next page and returns its offset.
    pub fn begin(&mut self) -> Result<u64, ImportError> {
        let offset = self.file.bytes().next_multiple_of(DATA_ALIGNMENT_BYTES);
        let padding = offset - self.file.bytes();
        self.file
            .write(&[0; DATA_ALIGNMENT_BYTES as usize][..padding as usize])?;
        Ok(offset)
    }

    /// Appends bytes to the tensor begun last.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        self.file.write(bytes)
    }

    /// Appends little-endian floats to the tensor begun last.
    pub fn write_f32(&mut self, values: &[f32]) -> Result<(), ImportError> {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.write(&bytes)
    }

    /// Appends little-endian halves, rounded to nearest, to the tensor begun last; whether
    /// all of them are finite.
    pub fn write_f16(&mut self, values: &[f32]) -> Result<bool, ImportError> {
        let mut bytes = Vec::with_capacity(values.len() * 2);
        let mut finite = true;
        for &value in values {
            let value = f16::from_f32(value);
            finite &= value.is_finite();
            bytes.extend(value.to_le_bytes());
        }
        self.write(&bytes)?;
        Ok(finite)
    }

    /// Describes the tensor that began at `offset` and ends here.
    pub fn end(&self, offset: u64, name: &str, kind: DataType, dims: &[usize]) -> TensorProto {
        let length = self.file.bytes() - offset;
        debug_assert_eq!(
            length as usize,
            dims.iter().product::<usize>() * kind.bytes(),
            "{name}: bytes written must fill the shape"
        );
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(kind.into()),
            name: Some(name.to_owned()),
            raw_data: None,
            external_data: vec![
                entry("location", self.file.name().to_owned()),
                entry("offset", offset.to_string()),
                entry("length", length.to_string()),
            ],
            data_location: Some(DataLocation::External.into()),
        }
    }

    /// Ends the file.
    pub fn finish(self) -> StagedFile {
        self.file
    }
}
