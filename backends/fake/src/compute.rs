//! What tensor models compute.

use crate::script::Compute;
use crate::session::Outputs;
use mote_api::{BackendError, DType, Element, RunError, Tensor, TensorSpec};

/// Fills all outputs; `wrong` puts every value off by one.
pub(crate) fn compute(
    compute: &Compute,
    wrong: bool,
    inputs: &[Tensor],
    outputs: &mut Outputs,
) -> Result<(), RunError> {
    let offset = if wrong { 1.0 } else { 0.0 };
    for index in 0..outputs.len() {
        match compute {
            Compute::Zeros => {
                let shape = shape_of_zeros(outputs.spec(index), inputs.first());
                let output = outputs.prepare(index, &shape)?;
                output.write_bytes(&vec![0; output.bytes()])?;
                add(&output.clone(), offset, &output)?;
            }
            Compute::Identity => copy_plus(inputs, index, offset, outputs)?,
            Compute::Add(value) => copy_plus(inputs, index, value + offset, outputs)?,
        }
    }
    Ok(())
}

fn copy_plus(
    inputs: &[Tensor],
    index: usize,
    value: f64,
    outputs: &mut Outputs,
) -> Result<(), RunError> {
    let input = &inputs[index];
    let output = outputs.prepare(index, input.shape())?;
    add(input, value, &output)
}

fn shape_of_zeros(spec: &TensorSpec, like: Option<&Tensor>) -> Vec<usize> {
    let like = like.filter(|tensor| tensor.shape().len() == spec.shape.len());
    let dims = spec.shape.iter().enumerate();
    dims.map(|(axis, dim)| dim.unwrap_or_else(|| like.map_or(1, |tensor| tensor.shape()[axis])))
        .collect()
}

/// `output = input + value`, saturating at the element type's limits.
fn add(input: &Tensor, value: f64, output: &Tensor) -> Result<(), RunError> {
    if value == 0.0 {
        return Ok(output.write_bytes(&input.read_bytes()?)?);
    }
    fn typed<T: Element>(
        input: &Tensor,
        output: &Tensor,
        plus: impl Fn(T) -> T,
    ) -> Result<(), RunError> {
        let values: Vec<T> = input.read::<T>()?.into_iter().map(plus).collect();
        Ok(output.write(&values)?)
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "saturation is what the script format says"
    )]
    match input.dtype() {
        DType::F32 => typed::<f32>(input, output, |x| x + value as f32),
        DType::F64 => typed::<f64>(input, output, |x| x + value),
        DType::I8 => typed::<i8>(input, output, |x| (f64::from(x) + value) as i8),
        DType::U8 => typed::<u8>(input, output, |x| (f64::from(x) + value) as u8),
        DType::I16 => typed::<i16>(input, output, |x| (f64::from(x) + value) as i16),
        DType::U16 => typed::<u16>(input, output, |x| (f64::from(x) + value) as u16),
        DType::I32 => typed::<i32>(input, output, |x| x.saturating_add(value as i32)),
        DType::U32 => typed::<u32>(input, output, |x| x.saturating_add_signed(value as i32)),
        DType::I64 => typed::<i64>(input, output, |x| x.saturating_add(value as i64)),
        DType::U64 => typed::<u64>(input, output, |x| x.saturating_add_signed(value as i64)),
        DType::F16 | DType::Bf16 | DType::Bool => Err(RunError::Compute(BackendError::new(
            "add",
            format!("{} cannot be added to", input.dtype()),
        ))),
    }
}
