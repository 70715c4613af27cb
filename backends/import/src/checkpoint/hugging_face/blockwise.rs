//! Weights of eight-bit floats with a factor for each block, as DeepSeek-V3 is published.

use serde_json::{Map, Value};

use super::{CheckpointError, WIDTH_MAX};
use crate::{
    checkpoint::{TensorStore, keys::Keys},
    safetensors::SafetensorsFolder,
};

const CONFIG_KEY: &str = "quantization_config";
/// What the tensor of factors is called beside `X`.
const FACTORS: &str = "_scale_inv";

/// Rows and columns of a block, where `config` says that weights have factors.
pub(super) fn block(
    config: &Map<String, Value>,
) -> Result<Option<(usize, usize)>, CheckpointError> {
    let outer = Keys::Json(config);
    let inner = match config.get(CONFIG_KEY) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(inner)) => inner,
        Some(_) => return Err(outer.unsupported(CONFIG_KEY)),
    };
    let keys = Keys::Json(inner);
    for (name, known) in [("quant_method", "fp8"), ("fmt", "e4m3")] {
        match keys.text(name)? {
            Some(value) if value == known => {}
            None if name == "fmt" => {}
            Some(other) => return Err(keys.unsupported_value(name, other)),
            None => return Err(outer.unsupported(CONFIG_KEY)),
        }
    }
    let sizes: Option<Vec<u64>> = match inner.get("weight_block_size") {
        Some(Value::Array(sizes)) => sizes.iter().map(Value::as_u64).collect(),
        _ => None,
    };
    let sane = |size: u64| (1..=WIDTH_MAX as u64).contains(&size);
    match sizes.as_deref() {
        Some(&[rows, columns]) if sane(rows) && sane(columns) => {
            Ok(Some((rows as usize, columns as usize)))
        }
        _ => Err(keys.unsupported("weight_block_size")),
    }
}

/// A folder whose eight-bit tensors are read times their factors.
pub(super) struct Blockwise<'a> {
    folder: &'a SafetensorsFolder,
    /// Rows and columns that share a factor.
    block: (usize, usize),
}

impl<'a> Blockwise<'a> {
    pub fn new(folder: &'a SafetensorsFolder, block: (usize, usize)) -> Self {
        Self { folder, block }
    }

    /// Multiplies the rows from `first` on in `out` by their factors.
    fn scale(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), CheckpointError> {
        let (_, columns) = self.folder.shape(name)?;
        let (height, width) = self.block;
        let mut factors = vec![0.0; columns.div_ceil(width)];
        let mut read = None;
        for (offset, row) in out.chunks_exact_mut(columns).enumerate() {
            let block = (first + offset) / height;
            if read != Some(block) {
                self.folder
                    .read_rows(&factors_of(name), block, &mut factors)?;
                read = Some(block);
            }
            for (part, factor) in row.chunks_mut(width).zip(&factors) {
                part.iter_mut().for_each(|value| *value *= factor);
            }
        }
        if out.iter().all(|value| value.is_finite()) {
            Ok(())
        } else {
            Err(CheckpointError::Safetensors(
                crate::safetensors::SafetensorsError::NotFinite {
                    tensor: name.to_owned(),
                },
            ))
        }
    }
}

fn factors_of(name: &str) -> String {
    format!("{name}{FACTORS}")
}

impl TensorStore for Blockwise<'_> {
    fn tensor_shape(&self, name: &str) -> Result<(usize, usize), CheckpointError> {
        let (rows, columns) = self.folder.shape(name)?;
        if self.folder.has_eight_bits(name) {
            let tensor = factors_of(name);
            let found = self.folder.shape(&tensor)?;
            let expected = (rows.div_ceil(self.block.0), columns.div_ceil(self.block.1));
            if found != expected {
                return Err(CheckpointError::WrongShape {
                    tensor,
                    expected,
                    found,
                });
            }
        }
        Ok((rows, columns))
    }

    fn tensor_rows(
        &self,
        name: &str,
        first: usize,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        self.folder.read_rows(name, first, out)?;
        match self.folder.has_eight_bits(name) {
            true => self.scale(name, first, out),
            false => Ok(()),
        }
    }

    /// Every tensor but the factors of others.
    fn tensor_names(&self) -> Vec<&str> {
        let is_factors = |name: &str| {
            let of = name.strip_suffix(FACTORS);
            of.is_some_and(|of| self.folder.has_eight_bits(of))
        };
        self.folder
            .names()
            .filter(|name| !is_factors(name))
            .collect()
    }
}
