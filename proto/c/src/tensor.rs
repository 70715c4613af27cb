//! Inputs and targets as C gives them.

use crate::codes::*;
use crate::failure::Failure;
use crate::options::{no_flags, unknown};
use crate::structs::{Target, Tensor};
use mote_client::{DType, Input, Output};

/// The inputs of a call.
pub(crate) fn inputs<'a>(given: &'a [Tensor<'a>]) -> Result<Vec<Input<'a>>, Failure> {
    let input = |(index, tensor): (usize, &'a Tensor<'a>)| {
        let field = |name: &str| format!("inputs[{index}].{name}");
        let name = tensor.name.required(field("name"))?;
        let dtype = dtype(tensor.dtype);
        let dtype = dtype.ok_or_else(|| Failure::invalid(field("dtype"), unknown(tensor.dtype)))?;
        let shape = tensor.shape.take(tensor.rank as usize, field("shape"))?;
        check_reserved(tensor.reserved, || field("reserved"))?;
        match (tensor.buffer.optional(), tensor.data.is_null()) {
            (None, _) => {
                let elements = tensor.data.take(tensor.bytes, field("data"))?;
                Ok(Input::bytes(name, dtype, shape, elements))
            }
            (Some(buffer), true) => {
                let place = (&buffer.buffer, tensor.offset);
                Ok(Input::buffer_at(name, dtype, shape, place))
            }
            (Some(_), false) => Err(Failure::invalid(
                field("data"),
                "is given, and a buffer as well",
            )),
        }
    };
    given.iter().enumerate().map(input).collect()
}

/// The targets of a call.
pub(crate) fn targets<'a>(given: &'a [Target<'a>]) -> Result<Vec<Output<'a>>, Failure> {
    let output = |(index, target): (usize, &'a Target<'a>)| {
        let field = |name: &str| format!("targets[{index}].{name}");
        let name = target.name.required(field("name"))?;
        let shape = target.shape.take(target.rank as usize, field("shape"))?;
        let buffer = target.buffer.optional();
        let buffer = buffer.ok_or_else(|| Failure::null(field("buffer")))?;
        no_flags(target.flags, field("flags"))?;
        check_reserved(target.reserved, || field("reserved"))?;
        Ok(Output::buffer(name, &buffer.buffer, target.offset, target.bytes).shape(shape))
    };
    given.iter().enumerate().map(output).collect()
}

fn check_reserved(reserved: [u64; 2], field: impl FnOnce() -> String) -> Result<(), Failure> {
    if reserved == [0; 2] {
        Ok(())
    } else {
        Err(Failure::invalid(field(), "must be 0"))
    }
}

fn dtype(number: i32) -> Option<DType> {
    Some(match number {
        MOTE_DTYPE_F32 => DType::F32,
        MOTE_DTYPE_F16 => DType::F16,
        MOTE_DTYPE_BF16 => DType::Bf16,
        MOTE_DTYPE_F64 => DType::F64,
        MOTE_DTYPE_I8 => DType::I8,
        MOTE_DTYPE_U8 => DType::U8,
        MOTE_DTYPE_I16 => DType::I16,
        MOTE_DTYPE_U16 => DType::U16,
        MOTE_DTYPE_I32 => DType::I32,
        MOTE_DTYPE_U32 => DType::U32,
        MOTE_DTYPE_I64 => DType::I64,
        MOTE_DTYPE_U64 => DType::U64,
        MOTE_DTYPE_BOOL => DType::Bool,
        _ => return None,
    })
}

/// The number of an element type.
pub(crate) fn dtype_number(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => MOTE_DTYPE_F32,
        DType::F16 => MOTE_DTYPE_F16,
        DType::Bf16 => MOTE_DTYPE_BF16,
        DType::F64 => MOTE_DTYPE_F64,
        DType::I8 => MOTE_DTYPE_I8,
        DType::U8 => MOTE_DTYPE_U8,
        DType::I16 => MOTE_DTYPE_I16,
        DType::U16 => MOTE_DTYPE_U16,
        DType::I32 => MOTE_DTYPE_I32,
        DType::U32 => MOTE_DTYPE_U32,
        DType::I64 => MOTE_DTYPE_I64,
        DType::U64 => MOTE_DTYPE_U64,
        DType::Bool => MOTE_DTYPE_BOOL,
    }
}
