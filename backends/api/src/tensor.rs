//! Tensors: element type, shape, and a range of a [`Buffer`].

use crate::memory::Buffer;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// More dimensions than any model we know of; longer shapes are refused as malformed.
pub const RANK_MAX: usize = 8;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(
    missing_docs,
    reason = "the variants are the names of the types themselves"
)]
pub enum DType {
    F32,
    F16,
    Bf16,
    F64,
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    Bool,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// Whether kernels may use elements as indices. Such inputs are copied out of memory that a
    /// client can still write, because kernels check bounds first and index later.
    pub const fn may_index(self) -> bool {
        matches!(self, Self::I32 | Self::I64 | Self::U32 | Self::U64)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::Bool => "bool",
        })
    }
}

mod sealed {
    pub trait Plain: Copy + Default + 'static {}
}

/// A Rust type that is an element type: every bit pattern is a value.
pub trait Element: sealed::Plain {
    /// Its element type.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {$(
        impl sealed::Plain for $rust {}
        impl Element for $rust { const DTYPE: DType = DType::$dtype; }
    )*};
}
elements!(f32 => F32, f16 => F16, bf16 => Bf16, f64 => F64, i8 => I8, u8 => U8, i16 => I16,
    u16 => U16, i32 => I32, u32 => U32, i64 => I64, u64 => U64);

/// Why a tensor cannot be made, read or written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum TensorError {
    #[error("rank {rank} is more than {RANK_MAX}")]
    Rank { rank: usize },
    #[error("shape {shape:?} of {dtype} overflows the address space")]
    Overflow { dtype: DType, shape: Vec<usize> },
    #[error("{need_bytes} bytes at offset {offset} do not fit a buffer of {have_bytes} bytes")]
    OutOfBuffer {
        offset: usize,
        need_bytes: usize,
        have_bytes: usize,
    },
    #[error("offset {offset} is not a multiple of {alignment}")]
    Misaligned { offset: usize, alignment: usize },
    #[error("tensor holds {have}, not {asked}")]
    DType { have: DType, asked: DType },
    #[error("tensor has {have} elements, not {asked}")]
    Length { have: usize, asked: usize },
    #[error("tensor lies in read-only memory")]
    ReadOnly,
    #[error(transparent)]
    Memory(#[from] crate::memory::MemoryError),
}

/// Elements of one type, row-major and dense, in a range of a [`Buffer`].
///
/// A `Tensor` is a handle: clones share the memory. Access is by copy only, since the memory may
/// be shared with another process or bound to a running session; no Rust reference into it exists.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    buffer: Buffer,
    offset: usize,
}

impl Tensor {
    /// A tensor of `shape` at byte `offset` of `buffer`.
    ///
    /// # Errors
    /// When the rank exceeds [`RANK_MAX`], the size overflows, the range leaves the buffer, or the
    /// offset is not a multiple of the element size.
    pub fn new(
        dtype: DType,
        shape: &[usize],
        buffer: Buffer,
        offset: usize,
    ) -> Result<Self, TensorError> {
        let need_bytes = Self::bytes_of(dtype, shape)?;
        if !offset.is_multiple_of(dtype.bytes()) {
            return Err(TensorError::Misaligned {
                offset,
                alignment: dtype.bytes(),
            });
        }
        let have_bytes = buffer.len();
        if offset
            .checked_add(need_bytes)
            .is_none_or(|end| end > have_bytes)
        {
            return Err(TensorError::OutOfBuffer {
                offset,
                need_bytes,
                have_bytes,
            });
        }
        Ok(Self {
            dtype,
            shape: shape.to_vec(),
            buffer,
            offset,
        })
    }

    /// A zeroed tensor in private memory of its own.
    ///
    /// # Errors
    /// As [`Tensor::new`], and when the system has no memory.
    pub fn zeroed(dtype: DType, shape: &[usize]) -> Result<Self, TensorError> {
        let bytes = Self::bytes_of(dtype, shape)?;
        Self::new(dtype, shape, Buffer::private(bytes)?, 0)
    }

    /// A tensor in private memory holding `values`.
    ///
    /// # Errors
    /// As [`Tensor::zeroed`], and when the number of values does not fit the shape.
    pub fn from_slice<T: Element>(shape: &[usize], values: &[T]) -> Result<Self, TensorError> {
        let tensor = Self::zeroed(T::DTYPE, shape)?;
        tensor.write(values)?;
        Ok(tensor)
    }

    /// A tensor in private memory holding `bytes` as they are.
    ///
    /// # Errors
    /// As [`Tensor::zeroed`], and when the number of bytes does not fit the shape.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self, TensorError> {
        let tensor = Self::zeroed(dtype, shape)?;
        tensor.write_bytes(bytes)?;
        Ok(tensor)
    }

    /// Bytes of a dense tensor.
    ///
    /// # Errors
    /// When the rank exceeds [`RANK_MAX`] or the product overflows.
    pub fn bytes_of(dtype: DType, shape: &[usize]) -> Result<usize, TensorError> {
        if shape.len() > RANK_MAX {
            return Err(TensorError::Rank { rank: shape.len() });
        }
        shape
            .iter()
            .try_fold(dtype.bytes(), |product, &dim| product.checked_mul(dim))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| TensorError::Overflow {
                dtype,
                shape: shape.to_vec(),
            })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Number of bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }

    /// The buffer underneath.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Byte offset in the buffer.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Address of the first element, for binding to an inference library. Valid while this handle
    /// or a clone of its buffer lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.buffer.as_ptr().wrapping_add(self.offset)
    }

    /// Some rows of the first dimension, in the same memory; `None` when there are not so many.
    pub fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let (&have, rest) = self.shape.split_first()?;
        if rows.start > rows.end || rows.end > have {
            return None;
        }
        let row_bytes = self.bytes() / have.max(1);
        let mut shape = vec![rows.len()];
        shape.extend_from_slice(rest);
        Some(Self {
            dtype: self.dtype,
            shape,
            buffer: self.buffer.clone(),
            offset: self.offset + rows.start * row_bytes,
        })
    }

    /// The same memory under another shape with the same number of elements, or fewer.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn reshaped(&self, shape: &[usize]) -> Result<Self, TensorError> {
        Self::new(self.dtype, shape, self.buffer.clone(), self.offset)
    }

    /// Copies all elements out.
    ///
    /// # Errors
    /// When `T` is not the element type.
    pub fn read<T: Element>(&self) -> Result<Vec<T>, TensorError> {
        let mut values = vec![T::default(); self.elements()];
        self.read_into(&mut values)?;
        Ok(values)
    }

    /// Copies all elements into `values`.
    ///
    /// # Errors
    /// When `T` is not the element type or the length differs.
    pub fn read_into<T: Element>(&self, values: &mut [T]) -> Result<(), TensorError> {
        self.expect_elements::<T>(values.len())?;
        self.buffer.copy_out(self.offset, values)?;
        Ok(())
    }

    /// Copies `values` in.
    ///
    /// # Errors
    /// When `T` is not the element type, the length differs, or the memory is read-only.
    pub fn write<T: Element>(&self, values: &[T]) -> Result<(), TensorError> {
        self.expect_elements::<T>(values.len())?;
        self.buffer.copy_in(self.offset, values)?;
        Ok(())
    }

    /// Copies the raw bytes out, whatever the element type.
    ///
    /// # Errors
    /// Never for a tensor that was made by [`Tensor::new`]; kept for the buffer's own checks.
    pub fn read_bytes(&self) -> Result<Vec<u8>, TensorError> {
        let mut bytes = vec![0u8; self.bytes()];
        self.buffer.copy_out(self.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies raw bytes in, whatever the element type.
    ///
    /// # Errors
    /// When the length differs or the memory is read-only.
    pub fn write_bytes(&self, bytes: &[u8]) -> Result<(), TensorError> {
        if bytes.len() != self.bytes() {
            return Err(TensorError::Length {
                have: self.bytes(),
                asked: bytes.len(),
            });
        }
        self.buffer.copy_in(self.offset, bytes)?;
        Ok(())
    }

    fn expect_elements<T: Element>(&self, asked: usize) -> Result<(), TensorError> {
        if T::DTYPE != self.dtype {
            return Err(TensorError::DType {
                have: self.dtype,
                asked: T::DTYPE,
            });
        }
        let have = self.elements();
        if have != asked {
            return Err(TensorError::Length { have, asked });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_never_leaves_its_buffer() {
        let buffer = Buffer::private(64).expect("64 bytes");
        assert!(Tensor::new(DType::F32, &[16], buffer.clone(), 0).is_ok());
        let past_the_end = Tensor::new(DType::F32, &[16], buffer.clone(), 4);
        assert!(matches!(
            past_the_end,
            Err(TensorError::OutOfBuffer { need_bytes: 64, .. })
        ));
        let wraps = Tensor::new(DType::F32, &[1], buffer.clone(), usize::MAX - 3);
        assert!(matches!(wraps, Err(TensorError::OutOfBuffer { .. })));
        let odd = Tensor::new(DType::F32, &[1], buffer, 2);
        assert!(matches!(odd, Err(TensorError::Misaligned { .. })));
        let huge = Tensor::bytes_of(DType::F64, &[usize::MAX / 8, 2]);
        assert!(matches!(huge, Err(TensorError::Overflow { .. })));
    }

    #[test]
    fn clones_share_memory_and_types_are_checked() {
        let tensor = Tensor::from_slice(&[2, 2], &[1f32, 2., 3., 4.]).expect("small");
        let other = tensor.clone();
        other
            .write(&[5f32, 6., 7., 8.])
            .expect("same type and length");
        assert_eq!(tensor.read::<f32>().expect("f32"), [5., 6., 7., 8.]);
        assert!(matches!(
            tensor.read::<i32>(),
            Err(TensorError::DType { .. })
        ));
        assert!(matches!(
            tensor.write(&[1f32]),
            Err(TensorError::Length { have: 4, asked: 1 })
        ));
        let empty = Tensor::zeroed(DType::F32, &[0, 3]).expect("an empty tensor is a tensor");
        assert!(empty.read::<f32>().expect("f32").is_empty());
    }
}
