//! Operators of our own, in the domain `org.moted`, which [`mote_kernels`] computes on the session's own
//! threads. Weights are constants, which the kernels read where the library keeps them: in the
//! mapped data file.
//!
//! * `moe`: `MoeFeedForward`, a whole Mixture-of-Experts block.
//! * `attention`: `CachedAttention`, grouped-query attention that writes to its cache.
//! * `product`: `TiledMatMul`, the product with one quantised matrix, and `TiledGather`, rows of one.
//!
//! A model file may be hostile: sizes, attributes and constants that do not fit together are an error
//! when it is loaded, and what comes with a run and does not fit is one before that node computes
//! anything. Attributes that an operator does not know are passed over, and so is what weights' bytes
//! say: all of them are numbers to the kernels.

mod attention;
mod moe;
mod product;

use half::f16;
use mote_kernels::{Bits, Parallel, Scratch};
use ort::operator::{ComputeContext, KernelContext, OperatorDomain};
use ort::value::{PrimitiveTensorElementType, TensorValueType, Value, ValueRef};
use std::ffi::c_void;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

/// The domain of Mote's operators.
const DOMAIN: &str = "org.moted";
/// The name of the input that comes with each run.
const INPUT: &str = "input";
/// What the output is called.
const OUTPUT: &str = "the output";

/// The operators, to be registered with a session, which must not outlive them.
pub(crate) fn domain() -> Result<OperatorDomain, ort::Error> {
    let scratch = SharedScratch::default();
    OperatorDomain::new(DOMAIN)?
        .add(moe::MoeFeedForward(scratch.clone()))?
        .add(attention::CachedAttention::<f32>::new(scratch.clone()))?
        .add(attention::CachedAttention::<f16>::new(scratch.clone()))?
        .add(product::TiledMatMul(scratch))?
        .add(product::TiledGather)
}

/// What all nodes of a session use in turn.
#[derive(Clone, Default)]
struct SharedScratch(Arc<Mutex<Scratch>>);

/// A constant input; absent where the node has none, or none that is constant.
type Constant<'attr, T> = Option<ValueRef<'attr, TensorValueType<T>>>;

/// The attribute `name`, a size that is not 0.
fn size(info: &KernelContext<'_>, name: &str) -> ort::Result<usize> {
    let value = info
        .get::<i64>(name)
        .and_then(|value| usize::try_from(value).ok());
    let refused = || ort::Error::new(format!("{name} is no size"));
    value.filter(|&value| value > 0).ok_or_else(refused)
}

/// The attribute `name`, 0 or 1.
fn flag(info: &KernelContext<'_>, name: &str) -> ort::Result<bool> {
    match info.get::<i64>(name) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(ort::Error::new(format!("{name} is neither 0 nor 1"))),
    }
}

/// The attribute `name`, a width of codes.
fn bits(info: &KernelContext<'_>, name: &str) -> ort::Result<Bits> {
    let refused = || ort::Error::new(format!("{name} is neither 4 nor 8"));
    Bits::of(size(info, name)?).ok_or_else(refused)
}

/// Runs `compute` on the rows of the first input, each as wide as the first of `widths`, and those
/// of the first output, each as wide as the second. There is a row at least.
fn on_rows(
    run: &ComputeContext,
    [wide, tall]: [usize; 2],
    scratch: &SharedScratch,
    compute: impl FnOnce((&[f32], &mut [f32]), &mut Scratch, &Threads<'_>),
) -> ort::Result<()> {
    let missing = || refused(INPUT, "is missing");
    let input = run.input(0)?.ok_or_else(missing)?;
    let input = input.downcast::<TensorValueType<f32>>()?;
    let (shape, input) = numbers(&input, INPUT)?;
    let width = shape.last().and_then(|&width| usize::try_from(width).ok());
    if width != Some(wide) {
        return Err(refused(INPUT, "is not as wide as the weights"));
    }
    let outer = &shape[..shape.len() - 1];
    into_output(run, (outer, tall), input.len() / wide * tall, |output| {
        // Never poisoned: the library calls through `extern "system"`, so a panic ends the process.
        let scratch = &mut scratch.0.lock().unwrap_or_else(PoisonError::into_inner);
        compute((input, output), scratch, &Threads(run));
    })
}

/// Lets `compute` write the first output, f32 `[outer.., width]`, of `count` numbers, if it has any.
fn into_output(
    run: &ComputeContext,
    (outer, width): (&[i64], usize),
    count: usize,
    compute: impl FnOnce(&mut [f32]),
) -> ort::Result<()> {
    let mut shape = outer.to_vec();
    shape.push(i64::try_from(width).unwrap_or(i64::MAX));
    let output = run.output(0, shape)?;
    let output = output.ok_or_else(|| refused(OUTPUT, "is missing"))?;
    if count == 0 {
        return Ok(());
    }
    let mut output = output.downcast::<TensorValueType<f32>>()?;
    if !is_good::<f32>(output.data_ptr()) {
        return Err(refused(OUTPUT, "is not aligned"));
    }
    let (_, output) = output.try_extract_tensor_mut::<f32>()?;
    if output.len() != count {
        return Err(refused(OUTPUT, "is not as large as it must be"));
    }
    compute(output);
    Ok(())
}

/// The threads of the session.
struct Threads<'a>(&'a ComputeContext);

impl Parallel for Threads<'_> {
    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        if self.0.par_for(count, 0, work).is_err() {
            // The library has none to give, and says so before it calls anything.
            (0..count).for_each(work);
        }
    }
}

fn refused(name: &str, why: &str) -> ort::Error {
    ort::Error::new(format!("{name} {why}"))
}

/// Sizes and numbers of a tensor.
fn numbers<'a, T: PrimitiveTensorElementType + Debug>(
    tensor: &'a Value<TensorValueType<T>>,
    name: &str,
) -> ort::Result<(&'a [i64], &'a [T])> {
    let shape = tensor.shape();
    if shape.contains(&0) {
        return Ok((shape, &[]));
    }
    // A file can place a tensor anywhere.
    if !is_good::<T>(tensor.data_ptr()) {
        return Err(refused(name, "is not aligned"));
    }
    let (shape, numbers) = tensor.try_extract_tensor::<T>()?;
    Ok((shape, numbers))
}

/// Whether numbers can be at `place`.
fn is_good<T>(place: *const c_void) -> bool {
    !place.is_null() && place.cast::<T>().is_aligned()
}

/// Sizes and numbers of a constant.
fn constant<'a, T: PrimitiveTensorElementType + Debug>(
    constant: &'a Constant<'_, T>,
    name: &str,
) -> ort::Result<(Vec<usize>, &'a [T])> {
    let constant = constant
        .as_ref()
        .ok_or_else(|| refused(name, "is no constant"))?;
    let (shape, numbers) = numbers(constant, name)?;
    let sizes = shape.iter().map(|&size| usize::try_from(size).unwrap_or(0));
    Ok((sizes.collect(), numbers))
}
