//! Operators of our own: `org.moted:MoeFeedForward`, a whole Mixture-of-Experts block.
//!
//! | input | | |
//! | --- | --- | --- |
//! | 0 | `input` | f32 `[.., hidden]` |
//! | 1 | `router` | f32 `[hidden, experts]` |
//! | 2 | `gate_up` | u8 `[experts, tiles, tile bytes]`, `[2 × neurons, hidden]` of each expert |
//! | 3 | `down` | u8 `[experts, tiles, tile bytes]`, `[hidden, neurons]` of each expert |
//! | 4 | `bias` | f32 `[experts]`, optional |
//! | 5 | `shared_gate_up` | as `gate_up`, of one expert, optional |
//! | 6 | `shared_down` | as `down`, of one expert, optional |
//! | 7 | `switch` | f32 `[hidden]`, optional |
//!
//! All but the first are constants, which the kernels read where the library keeps them: in the
//! mapped data file. [`mote_kernels`] says what the bytes are. Attributes, all integers: `k`;
//! `expert_bits` and, where there is a shared expert, `shared_bits`: 4 or 8; `sigmoid`: 1 where scores
//! are sigmoids of logits, else a softmax; `normalised`: 1 where the scores of the chosen are divided
//! by their sum; and `groups`, `groups_chosen`, `groups_judged_by` where experts are chosen
//! from the best groups.
//!
//! A model file may be hostile: whatever does not fit is an error before anything is computed.

use crate::failure::chain;
use mote_kernels::{
    Bits, Expert, Groups, Kernels, MoeFfn, Parallel, Routing, Score, Scratch, Shared, TILE_ROWS,
    Weights,
};
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{PrimitiveTensorElementType, TensorElementType, TensorValueType, Value, ValueRef};
use std::ffi::c_void;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

/// The domain of Mote's operators.
const DOMAIN: &str = "org.moted";
/// Names of the inputs.
const NAMES: [&str; 8] = [
    "input",
    "router",
    "gate_up",
    "down",
    "bias",
    "shared_gate_up",
    "shared_down",
    "switch",
];
/// Where inputs are that are floats: router, bias, switch.
const FLOATS: [usize; 3] = [1, 4, 7];
/// Where inputs are that are codes: gate and up, down; both of the shared expert.
const CODES: [usize; 4] = [2, 3, 5, 6];

/// The operators, to be registered with a session, which must not outlive them.
pub(crate) fn domain() -> Result<OperatorDomain, ort::Error> {
    OperatorDomain::new(DOMAIN)?.add(MoeFeedForward::default())
}

#[derive(Default)]
struct MoeFeedForward {
    /// What all layers of a model use in turn.
    scratch: Arc<Mutex<Scratch>>,
}

impl Operator for MoeFeedForward {
    type Kernel<'attr> = Block<'attr>;

    fn name(&self) -> &str {
        "MoeFeedForward"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        const F32: TensorElementType = TensorElementType::Float32;
        const U8: TensorElementType = TensorElementType::Uint8;
        [
            OperatorInput::required(F32),
            OperatorInput::required(F32),
            OperatorInput::required(U8),
            OperatorInput::required(U8),
            OperatorInput::optional(F32),
            OperatorInput::optional(U8),
            OperatorInput::optional(U8),
            OperatorInput::optional(F32),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, info: &KernelContext<'attr>) -> ort::Result<Block<'attr>> {
        let block = Block {
            floats: FLOATS.map(|index| info.constant_input(index).ok()),
            codes: CODES.map(|index| info.constant_input(index).ok()),
            expert_bits: bits(info, "expert_bits")?,
            shared_bits: match info.get::<i64>("shared_bits") {
                None => None,
                Some(_) => Some(bits(info, "shared_bits")?),
            },
            routing: routing(info)?,
            scratch: Arc::clone(&self.scratch),
            complete: false,
        };
        block.weights()?;
        Ok(block)
    }
}

fn routing(info: &KernelContext<'_>) -> ort::Result<Routing> {
    Ok(Routing {
        chosen: size(info, "k")?,
        score: match flag(info, "sigmoid")? {
            true => Score::Sigmoid,
            false => Score::Softmax,
        },
        normalised: flag(info, "normalised")?,
        groups: match info.get::<i64>("groups") {
            None => None,
            Some(_) => Some(Groups {
                count: size(info, "groups")?,
                chosen: size(info, "groups_chosen")?,
                judged_by: size(info, "groups_judged_by")?,
            }),
        },
    })
}

/// The attribute `name`, a size that is not 0.
fn size(info: &KernelContext<'_>, name: &str) -> ort::Result<usize> {
    let value = info
        .get::<i64>(name)
        .and_then(|value| usize::try_from(value).ok());
    let refused = || ort::Error::new(format!("{name} is no size"));
    value.filter(|&value| value > 0).ok_or_else(refused)
}

fn flag(info: &KernelContext<'_>, name: &str) -> ort::Result<bool> {
    match info.get::<i64>(name) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(ort::Error::new(format!("{name} is neither 0 nor 1"))),
    }
}

fn bits(info: &KernelContext<'_>, name: &str) -> ort::Result<Bits> {
    let refused = || ort::Error::new(format!("{name} is neither 4 nor 8"));
    Bits::of(size(info, name)?).ok_or_else(refused)
}

/// A constant input; absent where the node has none, or none that is constant.
type Constant<'attr, T> = Option<ValueRef<'attr, TensorValueType<T>>>;

/// One layer's block.
struct Block<'attr> {
    floats: [Constant<'attr, f32>; FLOATS.len()],
    codes: [Constant<'attr, u8>; CODES.len()],
    expert_bits: Bits,
    shared_bits: Option<Bits>,
    routing: Routing,
    scratch: Arc<Mutex<Scratch>>,
    /// Whether it was seen that no run brings weights.
    complete: bool,
}

impl Block<'_> {
    fn weights(&self) -> ort::Result<MoeFfn<'_>> {
        let [router, bias, switch] = self.floats.each_ref();
        let [gate_up, down, shared_gate_up, shared_down] = self.codes.each_ref();
        let (shape, router) = constant(router, FLOATS[0])?;
        let &[hidden, count] = shape.as_slice() else {
            return Err(refused(FLOATS[0], "has not two dimensions"));
        };
        let shared = match (shared_gate_up, shared_down, self.shared_bits) {
            (None, None, None) => None,
            (gate_up, down, Some(bits)) => Some(Shared {
                expert: expert(bits, (gate_up, CODES[2]), (down, CODES[3]))?,
                switch: optional(switch, FLOATS[2])?,
            }),
            _ => return Err(refused(CODES[2], "comes with shared_bits or not at all")),
        };
        let weights = Weights {
            hidden,
            count,
            router,
            bias: optional(bias, FLOATS[1])?,
            experts: expert(self.expert_bits, (gate_up, CODES[0]), (down, CODES[1]))?,
            shared,
        };
        MoeFfn::new(weights, self.routing).map_err(|error| ort::Error::new(chain(&error)))
    }

    /// Refuses inputs that are no constants.
    fn check_complete(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let absent = |given: &[bool], places: &[usize]| -> Vec<usize> {
            let pairs = given.iter().zip(places);
            pairs
                .filter(|(given, _)| !**given)
                .map(|(_, &place)| place)
                .collect()
        };
        let mut places = absent(&self.floats.each_ref().map(Option::is_some), &FLOATS);
        places.extend(absent(&self.codes.each_ref().map(Option::is_some), &CODES));
        for place in places {
            if place < run.num_inputs()? && run.input(place)?.is_some() {
                return Err(refused(place, "is no constant"));
            }
        }
        self.complete = true;
        Ok(())
    }
}

impl Kernel for Block<'_> {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        if !self.complete {
            self.check_complete(run)?;
        }
        let block = self.weights()?;
        let missing = || refused(0, "is missing");
        let input = run.input(0)?.ok_or_else(missing)?;
        let input = input.downcast::<TensorValueType<f32>>()?;
        let (shape, input) = numbers(&input, 0)?;
        let width = shape.last().and_then(|&width| usize::try_from(width).ok());
        if width != Some(block.hidden()) {
            return Err(refused(0, "is not as wide as the router is high"));
        }
        let output = run.output(0, shape.to_vec())?.ok_or_else(missing)?;
        if input.is_empty() {
            return Ok(());
        }
        let mut output = output.downcast::<TensorValueType<f32>>()?;
        if !is_good::<f32>(output.data_ptr()) {
            return Err(ort::Error::new("the output is not aligned"));
        }
        let (_, output) = output.try_extract_tensor_mut::<f32>()?;
        if output.len() != input.len() {
            return Err(refused(0, "is not as large as the output"));
        }
        // What a panic left there is overwritten before it is read.
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let threads = Threads(run);
        block.compute(Kernels::best(), (input, output), &mut scratch, &threads);
        Ok(())
    }
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

fn refused(place: usize, why: &str) -> ort::Error {
    ort::Error::new(format!("{} {why}", NAMES[place]))
}

/// Sizes and numbers of a tensor.
fn numbers<T: PrimitiveTensorElementType + Debug>(
    tensor: &Value<TensorValueType<T>>,
    place: usize,
) -> ort::Result<(&[i64], &[T])> {
    let shape = tensor.shape();
    if shape.contains(&0) {
        return Ok((shape, &[]));
    }
    // A file can place a tensor anywhere.
    if !is_good::<T>(tensor.data_ptr()) {
        return Err(refused(place, "is not aligned"));
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
    place: usize,
) -> ort::Result<(Vec<usize>, &'a [T])> {
    let constant = constant
        .as_ref()
        .ok_or_else(|| refused(place, "is no constant"))?;
    let (shape, numbers) = numbers(constant, place)?;
    let sizes = shape.iter().map(|&size| usize::try_from(size).unwrap_or(0));
    Ok((sizes.collect(), numbers))
}

fn optional<'a>(constant: &'a Constant<'_, f32>, place: usize) -> ort::Result<Option<&'a [f32]>> {
    match constant {
        None => Ok(None),
        Some(_) => Ok(Some(self::constant(constant, place)?.1)),
    }
}

fn expert<'a>(
    bits: Bits,
    gate_up: (&'a Constant<'_, u8>, usize),
    down: (&'a Constant<'_, u8>, usize),
) -> ort::Result<Expert<'a>> {
    let (sizes, bytes) = constant(gate_up.0, gate_up.1)?;
    let &[_, tiles, _] = sizes.as_slice() else {
        return Err(refused(gate_up.1, "has not three dimensions"));
    };
    Ok(Expert {
        bits,
        neurons: tiles.saturating_mul(TILE_ROWS) / 2,
        gate_up: bytes,
        down: constant(down.0, down.1)?.1,
    })
}
