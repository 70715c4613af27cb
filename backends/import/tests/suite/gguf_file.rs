//! Builds GGUF files for tests, well-formed or not.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

pub const F32: u32 = 0;
pub const Q8_0: u32 = 8;

/// Metadata values in the encoding of the format.
pub enum Meta<'a> {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(&'a str),
    Texts(&'a [String]),
    I32s(&'a [i32]),
    F32s(&'a [f32]),
    /// Type number and raw bytes.
    Raw(u32, Vec<u8>),
}

/// A tensor: dimensions with the fastest first, and encoded data.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<u64>,
    pub kind: u32,
    pub data: Vec<u8>,
    /// Replaces the offset that follows from the order.
    pub offset: Option<u64>,
}

impl Tensor {
    pub fn f32(name: &str, dims: &[u64], values: &[f32]) -> Self {
        assert_eq!(dims.iter().product::<u64>(), values.len() as u64);
        Self {
            name: name.to_owned(),
            dims: dims.to_vec(),
            kind: F32,
            data: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            offset: None,
        }
    }
}

/// A GGUF file under construction.
#[derive(Clone)]
pub struct GgufFile {
    pub version: u32,
    pub tensor_count: Option<u64>,
    pub metadata_count: Option<u64>,
    pub metadata: Vec<Vec<u8>>,
    pub tensors: Vec<Tensor>,
}

impl Default for GgufFile {
    fn default() -> Self {
        Self {
            version: 3,
            tensor_count: None,
            metadata_count: None,
            metadata: Vec::new(),
            tensors: Vec::new(),
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl GgufFile {
    pub fn meta(mut self, key: &str, value: Meta<'_>) -> Self {
        let array = |kind: u32, count: usize| {
            let mut bytes = kind.to_le_bytes().to_vec();
            bytes.extend((count as u64).to_le_bytes());
            bytes
        };
        let (kind, bytes): (u32, Vec<u8>) = match value {
            Meta::U32(number) => (4, number.to_le_bytes().to_vec()),
            Meta::F32(number) => (6, number.to_le_bytes().to_vec()),
            Meta::Bool(flag) => (7, vec![u8::from(flag)]),
            Meta::Text(value) => (8, text(value)),
            Meta::Texts(values) => {
                let mut bytes = array(8, values.len());
                bytes.extend(values.iter().flat_map(|value| text(value)));
                (9, bytes)
            }
            Meta::I32s(values) => {
                let mut bytes = array(5, values.len());
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                (9, bytes)
            }
            Meta::F32s(values) => {
                let mut bytes = array(6, values.len());
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                (9, bytes)
            }
            Meta::Raw(kind, bytes) => (kind, bytes),
        };
        let mut entry = text(key);
        entry.extend(kind.to_le_bytes());
        entry.extend(bytes);
        self.metadata.push(entry);
        self
    }

    pub fn tensor(mut self, tensor: Tensor) -> Self {
        self.tensors.push(tensor);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        let tensor_count = self.tensor_count.unwrap_or(self.tensors.len() as u64);
        let metadata_count = self.metadata_count.unwrap_or(self.metadata.len() as u64);
        out.extend(tensor_count.to_le_bytes());
        out.extend(metadata_count.to_le_bytes());
        out.extend(self.metadata.iter().flatten());
        let mut data = Vec::new();
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }

    /// Writes the file into `folder`.
    pub fn write(&self, folder: &TempDir) -> PathBuf {
        let path = folder.path().join("source.gguf");
        fs::write(&path, self.bytes()).expect("temporary folders are writable");
        path
    }
}
