//! Element types and tensors, to tract and back. tract owns its memory: these copy.

use mote_api::{DType, RunError, Tensor};
use tract_onnx::prelude::{DatumType, Tensor as TractTensor, TractError, TractResult};

/// The element type that stands for tract's; `None` for strings and other unserved types.
pub(crate) fn dtype(datum_type: DatumType) -> Option<DType> {
    Some(match datum_type.unquantized() {
        DatumType::F32 => DType::F32,
        DatumType::F16 => DType::F16,
        DatumType::F64 => DType::F64,
        DatumType::I8 => DType::I8,
        DatumType::U8 => DType::U8,
        DatumType::I16 => DType::I16,
        DatumType::U16 => DType::U16,
        DatumType::I32 => DType::I32,
        DatumType::U32 => DType::U32,
        // Shapes and sizes are tract's own symbolic type inside, 64-bit integers outside.
        DatumType::I64 | DatumType::TDim => DType::I64,
        DatumType::U64 => DType::U64,
        DatumType::Bool => DType::Bool,
        _ => return None,
    })
}

/// tract's own element type; `None` for bf16, which it lacks.
pub(crate) fn datum_type(dtype: DType) -> Option<DatumType> {
    Some(match dtype {
        DType::F32 => DatumType::F32,
        DType::F16 => DatumType::F16,
        DType::Bf16 => return None,
        DType::F64 => DatumType::F64,
        DType::I8 => DatumType::I8,
        DType::U8 => DatumType::U8,
        DType::I16 => DatumType::I16,
        DType::U16 => DatumType::U16,
        DType::I32 => DatumType::I32,
        DType::U32 => DatumType::U32,
        DType::I64 => DatumType::I64,
        DType::U64 => DatumType::U64,
        DType::Bool => DatumType::Bool,
    })
}

/// A copy of `tensor` for tract.
pub(crate) fn to_tract(tensor: &Tensor) -> TractResult<TractTensor> {
    let datum_type = datum_type(tensor.dtype())
        .ok_or_else(|| TractError::msg(format!("no {} here", tensor.dtype())))?;
    let mut copy = TractTensor::zero_dt(datum_type, tensor.shape())?;
    if tensor.bytes() == 0 {
        return Ok(copy);
    }
    if tensor.dtype() == DType::Bool {
        // A Rust bool is 0 or 1; the client's memory holds any byte.
        let truths: Vec<u8> = tensor
            .read_bytes()?
            .into_iter()
            .map(|byte| u8::from(byte != 0))
            .collect();
        copy.as_bytes_mut().copy_from_slice(&truths);
    } else {
        let buffer = tensor.buffer();
        buffer.copy_out(tensor.offset(), copy.as_bytes_mut())?;
    }
    Ok(copy)
}

/// Copies a result of tract into `target`, which has its shape.
pub(crate) fn from_tract(result: &TractTensor, target: &Tensor) -> Result<(), RunError> {
    if result.len() > 0 {
        target.write_bytes(result.as_bytes())?;
    }
    Ok(())
}
