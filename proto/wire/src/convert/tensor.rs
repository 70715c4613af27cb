//! Tensors, ranges of buffers, descriptions of tensors.

use super::{FdSource, Parsed, Place, check_name, id, invalid, limited, name, required, unique};
use crate::fds::check_sealed;
use crate::limits::{
    BUFFER_BYTES_MAX, INLINE_BYTES_MAX, RANGE_ALIGNMENT_BYTES, RANK_MAX, TENSORS_MAX,
};
use crate::pb;
use crate::types::{BufferRange, DType, OutputTarget, Status, Tensor, TensorData, TensorSpec};
use std::os::fd::{AsFd, OwnedFd};

/// Inputs of a request, their names unique.
pub(super) fn parse_inputs(inputs: Vec<pb::Tensor>) -> Parsed<Vec<Tensor>> {
    limited("inputs", inputs.len(), TENSORS_MAX)?;
    let parse = |(index, tensor): (usize, pb::Tensor)| {
        let at = Place {
            list: "inputs",
            index,
        };
        if matches!(tensor.data, Some(pb::tensor::Data::Passed(_))) {
            let why = "clients name a registered buffer instead";
            return Err(invalid(at.field("passed"), why));
        }
        check_name(at.field("name"), &tensor.name)?;
        parse(tensor, at, &mut FdSource::new(Vec::new()))
    };
    let inputs: Vec<_> = inputs
        .into_iter()
        .enumerate()
        .map(parse)
        .collect::<Result<_, _>>()?;
    unique("inputs", inputs.iter().map(|input| &*input.name))?;
    Ok(inputs)
}

/// Targets of outputs, their names unique. None may overlap another, nor an input: the library
/// writes one while it reads the other.
pub(super) fn parse_targets(
    targets: Vec<pb::OutputTarget>,
    inputs: &[Tensor],
) -> Parsed<Vec<OutputTarget>> {
    limited("outputs", targets.len(), TENSORS_MAX)?;
    let targets: Vec<_> = targets
        .into_iter()
        .enumerate()
        .map(|(index, target)| {
            let at = Place {
                list: "outputs",
                index,
            };
            check_rank(&target.shape, at)?;
            Ok(OutputTarget {
                name: name(at.field("name"), target.name)?,
                range: parse_range(required(at.field("range"), target.range)?, at)?,
                shape: target.shape,
            })
        })
        .collect::<Result<_, Status>>()?;
    unique("outputs", targets.iter().map(|target| &*target.name))?;
    let input_ranges = inputs.iter().filter_map(|input| match &input.data {
        TensorData::Range(range) => Some(range),
        _ => None,
    });
    for (index, target) in targets.iter().enumerate() {
        let earlier = targets[..index].iter().map(|target| &target.range);
        if earlier
            .chain(input_ranges.clone())
            .any(|range| overlap(range, &target.range))
        {
            let at = Place {
                list: "outputs",
                index,
            };
            let why = "it overlaps another output or an input";
            return Err(invalid(at.field("range"), why));
        }
    }
    Ok(targets)
}

/// Tensors that a server sent.
pub(super) fn parse_outputs(
    outputs: Vec<pb::Tensor>,
    list: &'static str,
    fds: &mut FdSource,
) -> Parsed<Vec<Tensor>> {
    let outputs = outputs.into_iter().enumerate();
    outputs
        .map(|(index, tensor)| parse(tensor, Place { list, index }, fds))
        .collect()
}

/// One tensor that a server sent.
pub(super) fn parse_output(
    tensor: Option<pb::Tensor>,
    list: &'static str,
    fds: &mut FdSource,
) -> Parsed<Tensor> {
    parse(required(list, tensor)?, Place { list, index: 0 }, fds)
}

fn parse(tensor: pb::Tensor, at: Place, fds: &mut FdSource) -> Parsed<Tensor> {
    let dtype = parse_dtype(tensor.dtype, at)?;
    check_rank(&tensor.shape, at)?;
    let need = dtype.tensor_bytes(&tensor.shape).ok_or_else(|| {
        invalid(
            at.field("shape"),
            "its number of bytes does not fit 64 bits",
        )
    })?;
    let data = match tensor.data {
        Some(pb::tensor::Data::Inline(bytes)) => {
            let field = at.field("inline");
            limited(
                format_args!("bytes of {field}"),
                bytes.len(),
                INLINE_BYTES_MAX,
            )?;
            TensorData::Inline(bytes)
        }
        Some(pb::tensor::Data::Range(range)) => TensorData::Range(parse_range(range, at)?),
        Some(pb::tensor::Data::Passed(passed)) => {
            let fd = fds.take(at.field("passed"))?;
            check_sealed(fd.as_fd(), passed.bytes, false)?;
            TensorData::Passed {
                fd,
                bytes: passed.bytes,
            }
        }
        None => return Err(invalid(at.field("data"), "it is missing")),
    };
    let have = data.bytes();
    if have != need {
        let why = format!("its type and shape take {need} bytes, its data has {have}");
        return Err(invalid(at.field("shape"), why));
    }
    Ok(Tensor {
        name: tensor.name,
        dtype,
        shape: tensor.shape,
        data,
    })
}

pub(super) fn write(tensor: Tensor, fds: &mut Vec<OwnedFd>) -> pb::Tensor {
    let data = match tensor.data {
        TensorData::Inline(bytes) => pb::tensor::Data::Inline(bytes),
        TensorData::Range(range) => pb::tensor::Data::Range(write_range(range)),
        TensorData::Passed { fd, bytes } => {
            fds.push(fd);
            pb::tensor::Data::Passed(pb::PassedMemory { bytes })
        }
    };
    pb::Tensor {
        name: tensor.name,
        dtype: write_dtype(tensor.dtype).into(),
        shape: tensor.shape,
        data: Some(data),
    }
}

pub(super) fn write_all(tensors: Vec<Tensor>, fds: &mut Vec<OwnedFd>) -> Vec<pb::Tensor> {
    let tensors = tensors.into_iter();
    tensors.map(|tensor| write(tensor, fds)).collect()
}

pub(super) fn write_targets(targets: Vec<OutputTarget>) -> Vec<pb::OutputTarget> {
    let write = |target: OutputTarget| pb::OutputTarget {
        name: target.name,
        range: Some(write_range(target.range)),
        shape: target.shape,
    };
    targets.into_iter().map(write).collect()
}

fn parse_range(range: pb::BufferRange, at: Place) -> Parsed<BufferRange> {
    let pb::BufferRange {
        buffer,
        offset,
        bytes,
    } = range;
    id(at.field("range.buffer"), buffer)?;
    if offset % RANGE_ALIGNMENT_BYTES != 0 {
        let why = format!("it is no multiple of {RANGE_ALIGNMENT_BYTES}");
        return Err(invalid(at.field("range.offset"), why));
    }
    if offset
        .checked_add(bytes)
        .is_none_or(|end| end > BUFFER_BYTES_MAX)
    {
        let why = format!("it ends behind {BUFFER_BYTES_MAX}, where every buffer ends");
        return Err(invalid(at.field("range.bytes"), why));
    }
    Ok(BufferRange {
        buffer,
        offset,
        bytes,
    })
}

fn write_range(range: BufferRange) -> pb::BufferRange {
    let BufferRange {
        buffer,
        offset,
        bytes,
    } = range;
    pb::BufferRange {
        buffer,
        offset,
        bytes,
    }
}

fn overlap(one: &BufferRange, other: &BufferRange) -> bool {
    one.buffer == other.buffer
        && one.offset < other.offset + other.bytes
        && other.offset < one.offset + one.bytes
}

fn check_rank(shape: &[u64], at: Place) -> Parsed<()> {
    let field = at.field("shape");
    limited(format_args!("rank of {field}"), shape.len(), RANK_MAX)
}

fn parse_dtype(dtype: i32, at: Place) -> Parsed<DType> {
    let dtype = pb::DType::try_from(dtype).unwrap_or(pb::DType::DtypeUnspecified);
    Ok(match dtype {
        pb::DType::DtypeUnspecified => {
            return Err(invalid(at.field("dtype"), "it is missing or unknown"));
        }
        pb::DType::DtypeF32 => DType::F32,
        pb::DType::DtypeF16 => DType::F16,
        pb::DType::DtypeBf16 => DType::Bf16,
        pb::DType::DtypeF64 => DType::F64,
        pb::DType::DtypeI8 => DType::I8,
        pb::DType::DtypeU8 => DType::U8,
        pb::DType::DtypeI16 => DType::I16,
        pb::DType::DtypeU16 => DType::U16,
        pb::DType::DtypeI32 => DType::I32,
        pb::DType::DtypeU32 => DType::U32,
        pb::DType::DtypeI64 => DType::I64,
        pb::DType::DtypeU64 => DType::U64,
        pb::DType::DtypeBool => DType::Bool,
    })
}

fn write_dtype(dtype: DType) -> pb::DType {
    match dtype {
        DType::F32 => pb::DType::DtypeF32,
        DType::F16 => pb::DType::DtypeF16,
        DType::Bf16 => pb::DType::DtypeBf16,
        DType::F64 => pb::DType::DtypeF64,
        DType::I8 => pb::DType::DtypeI8,
        DType::U8 => pb::DType::DtypeU8,
        DType::I16 => pb::DType::DtypeI16,
        DType::U16 => pb::DType::DtypeU16,
        DType::I32 => pb::DType::DtypeI32,
        DType::U32 => pb::DType::DtypeU32,
        DType::I64 => pb::DType::DtypeI64,
        DType::U64 => pb::DType::DtypeU64,
        DType::Bool => pb::DType::DtypeBool,
    }
}

pub(super) fn parse_specs(
    specs: Vec<pb::TensorSpec>,
    list: &'static str,
) -> Parsed<Vec<TensorSpec>> {
    let parse = |(index, spec): (usize, pb::TensorSpec)| {
        let at = Place { list, index };
        let size = |size: i64| match size {
            -1 => Ok(None),
            size => u64::try_from(size)
                .map(Some)
                .map_err(|_| invalid(at.field("shape"), "a size is below -1")),
        };
        Ok(TensorSpec {
            dtype: parse_dtype(spec.dtype, at)?,
            shape: spec.shape.into_iter().map(size).collect::<Result<_, _>>()?,
            name: spec.name,
        })
    };
    specs.into_iter().enumerate().map(parse).collect()
}

pub(super) fn write_specs(specs: Vec<TensorSpec>) -> Vec<pb::TensorSpec> {
    // No tensor in memory has a side of 2^63.
    let size = |size: Option<u64>| size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
    let write = |spec: TensorSpec| pb::TensorSpec {
        name: spec.name,
        dtype: write_dtype(spec.dtype).into(),
        shape: spec.shape.into_iter().map(size).collect(),
    };
    specs.into_iter().map(write).collect()
}
