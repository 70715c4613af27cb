//! `MoeFeedForward`: router, choice, routed experts, shared expert, sum.
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
//! All but the first are constants. [`mote_kernels`] says what the bytes are. Attributes, all integers: `k`;
//! `expert_bits` and, where there is a shared expert, `shared_bits`: 4 or 8; `sigmoid`: 1 where scores
//! are sigmoids of logits, else a softmax; `normalised`: 1 where the scores of the chosen are divided
//! by their sum; and `groups`, `groups_chosen`, `groups_judged_by` where experts are chosen
//! from the best groups.

use super::{Constant, INPUT, SharedScratch, bits, constant, flag, on_rows, refused, size};
use crate::failure::chain;
use mote_kernels::{
    Bits, Expert, Groups, Kernels, MoeFfn, Routing, Score, Shared, TILE_ROWS, Weights, tile_bytes,
};
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

/// Names of the inputs.
const NAMES: [&str; 8] = [
    INPUT,
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

/// The operator.
pub(super) struct MoeFeedForward(pub(super) SharedScratch);

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
            scratch: self.0.clone(),
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
            None => {
                for name in ["groups_chosen", "groups_judged_by"] {
                    if info.get::<i64>(name).is_some() {
                        return Err(refused(name, "comes with groups or not at all"));
                    }
                }
                None
            }
            Some(_) => Some(Groups {
                count: size(info, "groups")?,
                chosen: size(info, "groups_chosen")?,
                judged_by: size(info, "groups_judged_by")?,
            }),
        },
    })
}

/// One layer's block.
pub(super) struct Block<'attr> {
    floats: [Constant<'attr, f32>; FLOATS.len()],
    codes: [Constant<'attr, u8>; CODES.len()],
    expert_bits: Bits,
    shared_bits: Option<Bits>,
    routing: Routing,
    scratch: SharedScratch,
    /// Whether it was seen that no run brings weights.
    complete: bool,
}

impl Block<'_> {
    fn weights(&self) -> ort::Result<MoeFfn<'_>> {
        let [router, bias, switch] = self.floats.each_ref();
        let [gate_up, down, shared_gate_up, shared_down] = self.codes.each_ref();
        let (shape, router) = constant(router, NAMES[FLOATS[0]])?;
        let &[hidden, count] = shape.as_slice() else {
            return Err(refused(NAMES[FLOATS[0]], "has not two dimensions"));
        };
        let shared = match (shared_gate_up, shared_down, self.shared_bits) {
            (None, None, None) if switch.is_some() => {
                return Err(refused(
                    NAMES[FLOATS[2]],
                    "comes with a shared expert or not at all",
                ));
            }
            (None, None, None) => None,
            (gate_up, down, Some(bits)) => Some(Shared {
                expert: expert(bits, (gate_up, CODES[2]), (down, CODES[3]))?,
                switch: optional(switch, FLOATS[2])?,
            }),
            _ => {
                return Err(refused(
                    NAMES[CODES[2]],
                    "comes with shared_bits or not at all",
                ));
            }
        };
        let weights = Weights {
            hidden,
            count,
            router,
            bias: optional(bias, FLOATS[1])?,
            experts: expert(self.expert_bits, (gate_up, CODES[0]), (down, CODES[1]))?,
            shared,
        };
        let block = MoeFfn::new(weights, self.routing);
        let block = block.map_err(|error| ort::Error::new(chain(&error)))?;
        check_sizes(
            &weights.experts,
            [count, hidden],
            [(gate_up, CODES[0]), (down, CODES[1])],
        )?;
        if let Some(shared) = weights.shared {
            let places = [(shared_gate_up, CODES[2]), (shared_down, CODES[3])];
            check_sizes(&shared.expert, [1, hidden], places)?;
        }
        Ok(block)
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
                return Err(refused(NAMES[place], "is no constant"));
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
        let widths = [block.hidden(); 2];
        on_rows(run, widths, &self.scratch, |rows, scratch, threads| {
            block.compute(Kernels::best(), rows, scratch, threads);
        })
    }
}

fn optional<'a>(given: &'a Constant<'_, f32>, place: usize) -> ort::Result<Option<&'a [f32]>> {
    match given {
        None => Ok(None),
        Some(_) => {
            let (sizes, numbers) = constant(given, NAMES[place])?;
            if sizes.len() != 1 {
                return Err(refused(NAMES[place], "has not one dimension"));
            }
            Ok(Some(numbers))
        }
    }
}

/// Refuses tensors that have as many bytes as they must, but say other sizes.
fn check_sizes(
    expert: &Expert<'_>,
    [count, hidden]: [usize; 2],
    tensors: [(&Constant<'_, u8>, usize); 2],
) -> ort::Result<()> {
    let matrices = [[2 * expert.neurons, hidden], [hidden, expert.neurons]];
    for ((tensor, place), [rows, columns]) in tensors.into_iter().zip(matrices) {
        let bytes = tile_bytes(expert.bits, columns);
        let bytes = bytes.map_err(|error| ort::Error::new(chain(&error)))?;
        if constant(tensor, NAMES[place])?.0 != [count, rows / TILE_ROWS, bytes] {
            return Err(refused(NAMES[place], "has other sizes than its matrices"));
        }
    }
    Ok(())
}

fn expert<'a>(
    bits: Bits,
    gate_up: (&'a Constant<'_, u8>, usize),
    down: (&'a Constant<'_, u8>, usize),
) -> ort::Result<Expert<'a>> {
    let (sizes, bytes) = constant(gate_up.0, NAMES[gate_up.1])?;
    let &[_, tiles, _] = sizes.as_slice() else {
        return Err(refused(NAMES[gate_up.1], "has not three dimensions"));
    };
    Ok(Expert {
        bits,
        neurons: tiles.saturating_mul(TILE_ROWS) / 2,
        gate_up: bytes,
        down: constant(down.0, NAMES[down.1])?.1,
    })
}
