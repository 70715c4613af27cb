//! `CachedAttention`: grouped-query attention over a cache that it writes to.
//!
//! Inputs, outputs and attributes are those of ONNX Runtime's `GroupQueryAttention` in
//! `com.microsoft`, as far as they are there: `query`, f32 `[rows, length, heads × head_dim]`, or queries, keys
//! and values side by side where `key` and `value` are absent; `past_key` and `past_value`, f32 or f16 `[rows,
//! kv_heads, positions, head_dim]`; `seqlens_k`, i32 `[rows]`, positions of each row but one;
//! `total_sequence_length`, which is not looked at; `cos_cache` and `sin_cache`, f32 `[positions, turned / 2]`.
//! Outputs: the attention, shaped as the queries, and `present_key` and `present_value`, which are the past
//! ones with the new positions, and usually in the same memory. Attributes: `num_heads`, `kv_num_heads`,
//! `scale`, `local_window_size` (−1: all) and `rotary_interleaved`.

use super::{INPUT, SharedScratch, Threads, flag, into_output, numbers, refused, size};
use crate::failure::chain;
use half::f16;
use mote_kernels::{Asked, Attention, Cache, Element, Kernels, Projected};
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::{
    PrimitiveTensorElementType, TensorElementType, TensorValueType, Value, ValueRef, ValueRefMut,
};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::PoisonError;

const KEY: usize = 1;
const VALUE: usize = 2;
const PAST: [(usize, &str); 2] = [(3, "past_key"), (4, "past_value")];
const SEQLENS: usize = 5;
const TABLES: [(usize, &str); 2] = [(7, "cos_cache"), (8, "sin_cache")];
const SEQLENS_NAME: &str = "seqlens_k";

/// The operator over a cache of `E`. The library chooses the one whose inputs have the node's types.
pub(super) struct CachedAttention<E> {
    scratch: SharedScratch,
    cache: PhantomData<fn() -> E>,
}

impl<E> CachedAttention<E> {
    pub(super) fn new(scratch: SharedScratch) -> Self {
        Self {
            scratch,
            cache: PhantomData,
        }
    }
}

/// What a cache can be of.
pub(super) trait Kept: Element + PrimitiveTensorElementType + Debug + 'static {}

impl Kept for f32 {}
impl Kept for f16 {}

impl<E: Kept> Operator for CachedAttention<E> {
    type Kernel<'attr> = Attend<E>;

    fn name(&self) -> &str {
        "CachedAttention"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let float = TensorElementType::Float32;
        let cache = E::into_tensor_element_type();
        [
            OperatorInput::required(float),
            OperatorInput::optional(float),
            OperatorInput::optional(float),
            OperatorInput::required(cache),
            OperatorInput::required(cache),
            OperatorInput::required(TensorElementType::Int32),
            OperatorInput::required(TensorElementType::Int32),
            OperatorInput::required(float),
            OperatorInput::required(float),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        let cache = E::into_tensor_element_type();
        [TensorElementType::Float32, cache, cache].map(OperatorOutput::required)
    }

    fn create_kernel<'attr>(&self, info: &KernelContext<'attr>) -> ort::Result<Attend<E>> {
        let attention = AttentionSizes {
            heads: size(info, "num_heads")?,
            kv_heads: size(info, "kv_num_heads")?,
            scale: info
                .get::<f32>("scale")
                .ok_or_else(|| refused("scale", "is missing"))?,
            window: match info.get::<i64>("local_window_size") {
                None | Some(-1) => None,
                Some(_) => Some(size(info, "local_window_size")?),
            },
            interleaved: flag(info, "rotary_interleaved")?,
        };
        Ok(Attend {
            attention,
            scratch: self.scratch.clone(),
            cache: PhantomData,
        })
    }
}

/// What a node says; the width of a head comes with a run.
#[derive(Clone, Copy)]
struct AttentionSizes {
    heads: usize,
    kv_heads: usize,
    scale: f32,
    window: Option<usize>,
    interleaved: bool,
}

/// A node.
pub(super) struct Attend<E> {
    attention: AttentionSizes,
    scratch: SharedScratch,
    cache: PhantomData<fn() -> E>,
}

impl<E: Kept> Kernel for Attend<E> {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let missing = |name: &str| refused(name, "is missing");
        let floats = input::<f32>;
        let query = floats(run, 0)?.ok_or_else(|| missing(INPUT))?;
        let (key, value) = (floats(run, KEY)?, floats(run, VALUE)?);
        let [past_keys, past_values] =
            PAST.map(|(index, name)| input::<E>(run, index)?.ok_or_else(|| missing(name)));
        let (past_keys, past_values) = (past_keys?, past_values?);
        let [cos, sin] =
            TABLES.map(|(index, name)| floats(run, index)?.ok_or_else(|| missing(name)));
        let (cos, sin) = (cos?, sin?);
        let seqlens = run.input(SEQLENS)?.ok_or_else(|| missing(SEQLENS_NAME))?;
        let seqlens = seqlens.downcast::<TensorValueType<i32>>()?;
        let (_, seqlens) = numbers(&seqlens, SEQLENS_NAME)?;

        let sizes = Sizes::new(past_keys.shape(), query.shape())?;
        if past_values.shape() != past_keys.shape() {
            return Err(refused(PAST[1].1, "has other sizes than past_key"));
        }
        if seqlens.len() != sizes.rows {
            return Err(refused(
                SEQLENS_NAME,
                "is not one number for each of the rows",
            ));
        }
        let said = self.attention;
        let attention = Attention {
            heads: said.heads,
            kv_heads: said.kv_heads,
            head_dim: sizes.head_dim,
            scale: said.scale,
            window: said.window,
            interleaved: said.interleaved,
        };
        attention
            .check()
            .map_err(|error| ort::Error::new(chain(&error)))?;
        if sizes.kv_heads != said.kv_heads {
            return Err(refused(PAST[0].1, "has another number of heads"));
        }
        let total = |&last: &i32| usize::try_from(last).map_or(usize::MAX, |last| last + 1);
        let totals: Vec<usize> = seqlens.iter().map(total).collect();
        let [wide, narrow] = [said.heads, said.kv_heads].map(|heads| heads * sizes.head_dim);
        let (_, queries) = numbers(&query, INPUT)?;
        let part = |numbers, stride, first| Projected {
            numbers,
            stride,
            first,
        };
        let [queries, keys, values] = match (&key, &value) {
            (Some(key), Some(value)) => [
                part(queries, wide, 0),
                part(numbers(key, "key")?.1, narrow, 0),
                part(numbers(value, "value")?.1, narrow, 0),
            ],
            _ => {
                let stride = wide + 2 * narrow;
                [0, wide, wide + narrow].map(|first| part(queries, stride, first))
            }
        };
        let (shape, cos) = numbers(&cos, TABLES[0].1)?;
        let (_, sin) = numbers(&sin, TABLES[1].1)?;
        let half = shape.last().and_then(|&half| usize::try_from(half).ok());
        let asked = Asked {
            queries,
            keys,
            values,
            length: sizes.length,
            totals: &totals,
            cos,
            sin,
            half: half.unwrap_or(0),
        };

        let mut present_keys = Present::new(run, 1, &past_keys, PAST[0].1)?;
        let mut present_values = Present::new(run, 2, &past_values, PAST[1].1)?;
        if !are_apart(&present_keys.value, &present_values.value) {
            return Err(refused(PAST[0].1, "and past_value are the same memory"));
        }
        let cache = Cache {
            keys: present_keys.numbers()?,
            values: present_values.numbers()?,
            positions: sizes.positions,
        };
        let outer = &query.shape()[..2];
        let count = sizes.rows * sizes.length * wide;
        let mut computed = Ok(());
        into_output(run, (outer, wide), count, |output| {
            // Never poisoned: the library calls through `extern "system"`, so a panic ends the process.
            let scratch = &mut self
                .scratch
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let threads = Threads(run);
            computed = attention.compute(Kernels::best(), &asked, cache, output, scratch, &threads);
        })?;
        computed.map_err(|error| ort::Error::new(chain(&error)))
    }
}

/// The sizes of a run.
struct Sizes {
    rows: usize,
    length: usize,
    kv_heads: usize,
    positions: usize,
    head_dim: usize,
}

impl Sizes {
    fn new(past: &[i64], query: &[i64]) -> ort::Result<Self> {
        let whole = |&size: &i64| usize::try_from(size).ok();
        let past: Option<Vec<usize>> = past.iter().map(whole).collect();
        let query: Option<Vec<usize>> = query.iter().map(whole).collect();
        match (past.as_deref(), query.as_deref()) {
            (Some(&[rows, kv_heads, positions, head_dim]), Some(&[rows_too, length, _]))
                if rows == rows_too =>
            {
                Ok(Self {
                    rows,
                    length,
                    kv_heads,
                    positions,
                    head_dim,
                })
            }
            _ => Err(refused(
                INPUT,
                "and the cache have not as many rows, or other ranks",
            )),
        }
    }
}

/// The tensor that comes as input `index`.
fn input<T: PrimitiveTensorElementType + Debug>(
    run: &ComputeContext,
    index: usize,
) -> ort::Result<Option<ValueRef<'_, TensorValueType<T>>>> {
    let input = run.input(index)?;
    input.map(ValueRef::downcast).transpose()
}

/// A cache, as it will be.
struct Present<'a, E: Kept> {
    value: ValueRefMut<'a, TensorValueType<E>>,
    name: &'static str,
}

impl<'a, E: Kept> Present<'a, E> {
    /// Output `index`, with what `past` holds: nothing is copied where both are the same memory.
    fn new(
        run: &'a ComputeContext,
        index: usize,
        past: &Value<TensorValueType<E>>,
        name: &'static str,
    ) -> ort::Result<Self> {
        let output = run.output(index, past.shape().to_vec())?;
        let output = output.ok_or_else(|| refused(name, "goes nowhere"))?;
        let mut present = Self {
            value: output.downcast::<TensorValueType<E>>()?,
            name,
        };
        if present.value.data_ptr() != past.data_ptr() {
            if !are_apart(&present.value, past) {
                return Err(refused(name, "lies half in its own past"));
            }
            let (_, past) = numbers(past, name)?;
            present.numbers()?.copy_from_slice(past);
        }
        Ok(present)
    }

    fn numbers(&mut self) -> ort::Result<&mut [E]> {
        if self.value.shape().contains(&0) {
            return Ok(&mut []);
        }
        if !super::is_good::<E>(self.value.data_ptr()) {
            return Err(refused(self.name, "is not aligned"));
        }
        Ok(self.value.try_extract_tensor_mut::<E>()?.1)
    }
}

/// Whether two caches of the same size share no memory.
fn are_apart<E: Kept>(one: &Value<TensorValueType<E>>, other: &Value<TensorValueType<E>>) -> bool {
    let sizes = one
        .shape()
        .iter()
        .map(|&size| usize::try_from(size).unwrap_or(0));
    let bytes = sizes.fold(size_of::<E>(), usize::saturating_mul);
    one.data_ptr().addr().abs_diff(other.data_ptr().addr()) >= bytes
}
