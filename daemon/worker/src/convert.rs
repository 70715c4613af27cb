//! Tensors of the wire over mapped memory, and back.

use crate::buffers::Buffers;
use crate::memory;
use crate::status::{chain, internal};
use mote_api::{Buffer, BufferOrigin, DType, Signature, Tensor, TensorSpec};
use mote_pipeline::{NamedTarget, NamedTensor};
use mote_wire::limits::INLINE_BYTES_MAX;
use mote_wire::types as wire;
use mote_wire::types::Status;

/// Element type of the wire as the backends know it.
pub fn dtype_in(dtype: wire::DType) -> DType {
    match dtype {
        wire::DType::F32 => DType::F32,
        wire::DType::F16 => DType::F16,
        wire::DType::Bf16 => DType::Bf16,
        wire::DType::F64 => DType::F64,
        wire::DType::I8 => DType::I8,
        wire::DType::U8 => DType::U8,
        wire::DType::I16 => DType::I16,
        wire::DType::U16 => DType::U16,
        wire::DType::I32 => DType::I32,
        wire::DType::U32 => DType::U32,
        wire::DType::I64 => DType::I64,
        wire::DType::U64 => DType::U64,
        wire::DType::Bool => DType::Bool,
    }
}

/// Element type of the backends as the wire knows it.
pub fn dtype_out(dtype: DType) -> wire::DType {
    match dtype {
        DType::F32 => wire::DType::F32,
        DType::F16 => wire::DType::F16,
        DType::Bf16 => wire::DType::Bf16,
        DType::F64 => wire::DType::F64,
        DType::I8 => wire::DType::I8,
        DType::U8 => wire::DType::U8,
        DType::I16 => wire::DType::I16,
        DType::U16 => wire::DType::U16,
        DType::I32 => wire::DType::I32,
        DType::U32 => wire::DType::U32,
        DType::I64 => wire::DType::I64,
        DType::U64 => wire::DType::U64,
        DType::Bool => wire::DType::Bool,
    }
}

fn dims(shape: &[u64], field: impl Fn() -> String) -> Result<Vec<usize>, Status> {
    let sized = shape
        .iter()
        .map(|&dim| usize::try_from(dim))
        .collect::<Result<_, _>>();
    sized.map_err(|_| {
        let why = "a dimension is too large for this machine";
        Status::invalid(format!("{}.shape", field()), why)
    })
}

/// The buffer of a range, and the range's offset in it.
fn place<'a>(
    range: &wire::BufferRange,
    buffers: &'a Buffers,
    field: impl Fn() -> String,
) -> Result<(&'a Buffer, usize), Status> {
    let buffer = buffers.get(range.buffer).map_err(|_| {
        let why = format!("buffer {} is not registered", range.buffer);
        Status::invalid(format!("{}.range.buffer", field()), why)
    })?;
    let offset = usize::try_from(range.offset).map_err(|_| {
        let why = "is too large for this machine";
        Status::invalid(format!("{}.range.offset", field()), why)
    })?;
    Ok((buffer, offset))
}

/// An input of the wire as a tensor: in place when it lies in a buffer, copied when inline.
pub fn input(tensor: wire::Tensor, buffers: &Buffers) -> Result<NamedTensor, Status> {
    let field = || format!("inputs[{}]", tensor.name);
    let (dtype, shape) = (dtype_in(tensor.dtype), dims(&tensor.shape, field)?);
    let made = match &tensor.data {
        wire::TensorData::Inline(bytes) => Tensor::from_bytes(dtype, &shape, bytes),
        wire::TensorData::Range(range) => {
            let (buffer, offset) = place(range, buffers, field)?;
            Tensor::new(dtype, &shape, buffer.clone(), offset)
        }
        wire::TensorData::Passed { .. } => {
            return Err(Status::invalid(
                field(),
                "clients register buffers, they pass no memory",
            ));
        }
    };
    let made = made.map_err(|error| Status::invalid(field(), chain(&error)))?;
    Ok(NamedTensor {
        name: tensor.name,
        tensor: made,
    })
}

/// An output target of the wire as a tensor over the client's memory.
pub fn target(
    target: &wire::OutputTarget,
    signature: &Signature,
    buffers: &Buffers,
) -> Result<NamedTarget, Status> {
    let field = || format!("outputs[{}]", target.name);
    let spec = signature
        .outputs
        .iter()
        .find(|spec| spec.name == target.name);
    let spec = spec.ok_or_else(|| {
        Status::invalid(format!("{}.name", field()), "the model has no such output")
    })?;
    let shape = target_shape(target, spec, field)?;
    let (buffer, offset) = place(&target.range, buffers, field)?;
    let refuse = |why: String| Status::invalid(format!("{}.range", field()), why);
    let end = target.range.offset.checked_add(target.range.bytes);
    if end.is_none_or(|end| end > buffer.len() as u64) {
        return Err(refuse(format!(
            "it leaves the buffer's {} bytes",
            buffer.len()
        )));
    }
    let tensor = Tensor::new(spec.dtype, &shape, buffer.clone(), offset)
        .map_err(|error| Status::invalid(field(), chain(&error)))?;
    if tensor.bytes() as u64 > target.range.bytes {
        return Err(refuse(format!(
            "{} bytes do not fit the range's {}",
            tensor.bytes(),
            target.range.bytes
        )));
    }
    Ok(NamedTarget {
        name: target.name.clone(),
        tensor,
    })
}

fn target_shape(
    target: &wire::OutputTarget,
    spec: &TensorSpec,
    field: impl Fn() -> String,
) -> Result<Vec<usize>, Status> {
    if !target.shape.is_empty() {
        return dims(&target.shape, field);
    }
    let fixed: Option<Vec<usize>> = spec.shape.iter().copied().collect();
    fixed.ok_or_else(|| {
        let why = "the model leaves its shape open: name one";
        Status::invalid(format!("{}.shape", field()), why)
    })
}

/// A result as a tensor of the wire: named by range when it lies in the client's buffer, inline
/// when small, otherwise in memory of its own. Answers the bytes copied, too.
pub fn output(
    result: &NamedTensor,
    range: Option<wire::BufferRange>,
) -> Result<(wire::Tensor, u64), Status> {
    let tensor = &result.tensor;
    let bytes = tensor.bytes();
    let (data, copied) = match range {
        Some(range) if tensor.buffer().origin() == BufferOrigin::Shared => (
            wire::TensorData::Range(wire::BufferRange {
                bytes: bytes as u64,
                ..range
            }),
            0,
        ),
        _ if bytes <= INLINE_BYTES_MAX => {
            let contents = tensor
                .read_bytes()
                .map_err(|error| internal("read output", &error))?;
            (wire::TensorData::Inline(contents), bytes as u64)
        }
        _ => {
            let fd = memory::pass(tensor).map_err(|error| internal("pass output", &error))?;
            (
                wire::TensorData::Passed {
                    fd,
                    bytes: bytes as u64,
                },
                bytes as u64,
            )
        }
    };
    let shape = tensor.shape().iter().map(|&dim| dim as u64).collect();
    let dtype = dtype_out(tensor.dtype());
    Ok((
        wire::Tensor {
            name: result.name.clone(),
            dtype,
            shape,
            data,
        },
        copied,
    ))
}

/// Inputs or outputs as the wire tells them.
pub fn specs(specs: &[TensorSpec]) -> Vec<wire::TensorSpec> {
    let dims = |shape: &[Option<usize>]| shape.iter().map(|d| d.map(|d| d as u64)).collect();
    specs
        .iter()
        .map(|spec| wire::TensorSpec {
            name: spec.name.clone(),
            dtype: dtype_out(spec.dtype),
            shape: dims(&spec.shape),
        })
        .collect()
}
