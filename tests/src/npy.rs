//! NumPy files as raw little-endian elements.

use anyhow::{Context, Result, bail};
use mote_client::DType;
use std::path::Path;

/// A dense row-major array.
#[derive(Clone, Debug)]
pub struct Array {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// Elements.
    pub bytes: Vec<u8>,
}

impl Array {
    /// Reads a file that `numpy.save` wrote (NEP 1, version 1.0, C order, little-endian).
    pub fn read(path: &Path) -> Result<Self> {
        let file =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
        let header = std::str::from_utf8(&file[10..10 + length])?;
        let between = |from: &str, to: &str| -> Result<String> {
            let rest = header.split_once(from).context("header")?.1;
            Ok(rest.split_once(to).context("header")?.0.to_owned())
        };
        let dtype = match between("'descr': '", "'")?.as_str() {
            "<f4" => DType::F32,
            "<i4" => DType::I32,
            "<i8" => DType::I64,
            "|i1" => DType::I8,
            "|u1" => DType::U8,
            other => bail!("{}: {other}", path.display()),
        };
        let shape = between("'shape': (", ")")?;
        let shape = shape
            .split(',')
            .map(str::trim)
            .filter(|dim| !dim.is_empty());
        let shape = shape.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        Ok(Self {
            dtype,
            shape,
            bytes: file[10 + length..].to_vec(),
        })
    }

    /// The `index`-th part along axis 0, without that axis.
    pub fn part(&self, index: usize) -> Self {
        let parts = self.shape[0] as usize;
        let bytes = self.bytes.len() / parts;
        let part = self.bytes[index * bytes..(index + 1) * bytes].to_vec();
        Self {
            dtype: self.dtype,
            shape: self.shape[1..].to_vec(),
            bytes: part,
        }
    }

    /// All elements as numbers.
    pub fn numbers(&self) -> Vec<f64> {
        numbers(self.dtype, &self.bytes)
    }
}

/// Raw elements as numbers.
pub fn numbers(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let chunks = bytes.chunks_exact(N);
        chunks
            .map(|chunk| number(chunk.try_into().expect("a chunk of N bytes")))
            .collect()
    }
    match dtype {
        DType::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        DType::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        DType::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        DType::I8 => each(bytes, |b| f64::from(i8::from_le_bytes(b))),
        _ => bytes.iter().map(|&b| f64::from(b)).collect(),
    }
}

/// The largest absolute difference of two lists of the same length.
pub fn max_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "different lengths");
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}
