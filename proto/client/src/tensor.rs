//! Tensors as callers see them.

use crate::buffer::Buffer;
use crate::error::ClientError;
use mote_wire::limits::{INLINE_BYTES_MAX, RANGE_ALIGNMENT_BYTES};
use mote_wire::types::{BufferRange, DType, OutputTarget, Tensor, TensorData};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Bytes of all inputs that travel in one frame; further ones go through a buffer.
const FRAME_INLINE_BYTES_MAX: usize = 1 << 20;

/// An input: row-major, dense.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    name: &'a str,
    dtype: DType,
    shape: &'a [u64],
    data: InputData<'a>,
}

#[derive(Clone, Copy)]
enum InputData<'a> {
    Bytes(&'a [u8]),
    Range(BufferRange),
}

impl std::fmt::Debug for InputData<'_> {
    /// Inputs never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Range(range) => range.fmt(f),
        }
    }
}

impl<'a> Input<'a> {
    /// An input whose elements are copied: in native byte order, as many as `shape` says.
    pub fn bytes(name: &'a str, dtype: DType, shape: &'a [u64], elements: &'a [u8]) -> Self {
        Self {
            name,
            dtype,
            shape,
            data: InputData::Bytes(elements),
        }
    }

    /// An input at the start of a registered buffer; nothing is copied.
    pub fn buffer(name: &'a str, dtype: DType, shape: &'a [u64], buffer: &'a Buffer) -> Self {
        Self::buffer_at(name, dtype, shape, (buffer, 0))
    }

    /// An input in a registered buffer, at an offset that is a multiple of 64.
    pub fn buffer_at(
        name: &'a str,
        dtype: DType,
        shape: &'a [u64],
        (buffer, offset): (&'a Buffer, u64),
    ) -> Self {
        // A size that does not fit is refused by the daemon, by name of the field.
        let bytes = dtype.tensor_bytes(shape).unwrap_or(u64::MAX);
        Self {
            name,
            dtype,
            shape,
            data: InputData::Range(buffer.range(offset, bytes)),
        }
    }
}

/// Where an output is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    name: &'a str,
    range: BufferRange,
    shape: &'a [u64],
    // The daemon writes there while the call lasts.
    _buffer: &'a Buffer,
}

impl<'a> Output<'a> {
    /// `bytes` bytes of a registered buffer at `offset`, which is a multiple of 64.
    pub fn buffer(name: &'a str, buffer: &'a Buffer, offset: u64, bytes: u64) -> Self {
        Self {
            name,
            range: buffer.range(offset, bytes),
            shape: &[],
            _buffer: buffer,
        }
    }

    /// The shape expected, when the model's own is not fixed.
    pub fn shape(self, shape: &'a [u64]) -> Self {
        Self { shape, ..self }
    }
}

/// An output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedTensor {
    /// Name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Its elements, row-major, in native byte order.
    pub data: OwnedData,
}

/// Where the elements of an output are.
#[derive(Clone, PartialEq, Eq)]
pub enum OwnedData {
    /// Here.
    Bytes(Vec<u8>),
    /// In the caller's buffer, where they were asked for.
    InBuffer(BufferRange),
}

impl std::fmt::Debug for OwnedData {
    /// Outputs never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::InBuffer(range) => range.fmt(f),
        }
    }
}

impl OwnedTensor {
    /// The elements, unless they are in the caller's buffer.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.data {
            OwnedData::Bytes(bytes) => Some(bytes),
            OwnedData::InBuffer(_) => None,
        }
    }

    /// The elements themselves, unless they are in the caller's buffer.
    pub(crate) fn into_bytes(self) -> Option<Vec<u8>> {
        match self.data {
            OwnedData::Bytes(bytes) => Some(bytes),
            OwnedData::InBuffer(_) => None,
        }
    }

    pub(crate) fn read(tensor: Tensor) -> Result<Self, ClientError> {
        let data = match tensor.data {
            TensorData::Inline(bytes) => OwnedData::Bytes(bytes),
            TensorData::Range(range) => OwnedData::InBuffer(range),
            TensorData::Passed { fd, bytes } => OwnedData::Bytes(read_passed(fd, bytes)?),
        };
        Ok(Self {
            name: tensor.name,
            dtype: tensor.dtype,
            shape: tensor.shape,
            data,
        })
    }

    pub(crate) fn read_all(tensors: Vec<Tensor>) -> Result<Vec<Self>, ClientError> {
        tensors.into_iter().map(Self::read).collect()
    }
}

fn read_passed(fd: OwnedFd, bytes: u64) -> Result<Vec<u8>, ClientError> {
    let read = || {
        let length = usize::try_from(bytes).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        let mut elements = vec![0; length];
        File::from(fd).read_exact_at(&mut elements, 0)?;
        Ok(elements)
    };
    read().map_err(|cause| ClientError::Memory { bytes, cause })
}

/// Which inputs travel in the frame; the others are copied to a buffer.
pub(crate) struct Staging {
    inline: Vec<bool>,
    /// Bytes of buffer that the others take; 0 when there are none.
    pub(crate) bytes: u64,
}

impl Staging {
    pub(crate) fn of(inputs: &[Input<'_>]) -> Self {
        let (mut inline_bytes, mut bytes) = (0, 0u64);
        let inline = inputs.iter().map(|input| match input.data {
            InputData::Range(_) => true,
            InputData::Bytes(elements) => {
                let fits = elements.len() <= INLINE_BYTES_MAX
                    && inline_bytes + elements.len() <= FRAME_INLINE_BYTES_MAX;
                if fits {
                    inline_bytes += elements.len();
                } else {
                    bytes += aligned(elements);
                }
                fits
            }
        });
        Self {
            inline: inline.collect(),
            bytes,
        }
    }

    /// The inputs as they travel; `buffer` has room for what must be copied to it.
    pub(crate) fn lower(
        &self,
        inputs: &[Input<'_>],
        mut buffer: Option<&mut Buffer>,
    ) -> Result<Vec<Tensor>, ClientError> {
        let mut offset = 0;
        let lower = |(input, inline): (&Input<'_>, &bool)| {
            let data = match (input.data, &mut buffer) {
                (InputData::Range(range), _) => TensorData::Range(range),
                (InputData::Bytes(elements), Some(buffer)) if !inline => {
                    buffer.copy_in(offset, elements)?;
                    let range = buffer.range(offset, elements.len() as u64);
                    offset += aligned(elements);
                    TensorData::Range(range)
                }
                (InputData::Bytes(elements), _) => TensorData::Inline(elements.into()),
            };
            Ok(Tensor {
                name: input.name.into(),
                dtype: input.dtype,
                shape: input.shape.into(),
                data,
            })
        };
        inputs.iter().zip(&self.inline).map(lower).collect()
    }
}

pub(crate) fn lower_outputs(outputs: &[Output<'_>]) -> Vec<OutputTarget> {
    let lower = |output: &Output<'_>| OutputTarget {
        name: output.name.into(),
        range: output.range,
        shape: output.shape.into(),
    };
    outputs.iter().map(lower).collect()
}

fn aligned(elements: &[u8]) -> u64 {
    (elements.len() as u64).next_multiple_of(RANGE_ALIGNMENT_BYTES)
}
