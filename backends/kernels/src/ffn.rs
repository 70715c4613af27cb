//! The Mixture-of-Experts feed-forward block: router, choice, routed experts, shared expert, sum.

use crate::{
    Kernels, Parallel, Routing,
    float::{Quantised, sigmoid},
    isa::Sums,
    layout::{BLOCK, Bits, LayoutError, Matrix, TILE_ROWS},
    parallel::Panels,
};
use std::{ops::Range, sync::atomic::AtomicBool};
use thiserror::Error;

/// Rows that are worked on at once: enough to use weights well that are read once for all.
pub(crate) const ROWS_MAX: usize = 256;
/// Blocks of activations that are kept between the two passes, where a single row has not more.
const ACTIVATIONS_MAX: usize = 1 << 20;
/// Rows that go through the kernels together.
pub(crate) const TOGETHER: usize = 8;
/// Tiles whose products make one block of activations: gate and up, twice.
const TILES_PER_BLOCK: usize = 2 * BLOCK / TILE_ROWS;
/// Most experts of a block.
const EXPERTS_MAX: usize = 1 << 12;

/// The two matrices of an expert, or of several one below the other.
#[derive(Debug, Clone, Copy)]
pub struct Expert<'a> {
    /// Width of the codes.
    pub bits: Bits,
    /// Neurons of one expert, a multiple of [`BLOCK`].
    pub neurons: usize,
    /// `[experts × 2 × neurons, hidden]`: tiles of gate and up take turns.
    pub gate_up: &'a [u8],
    /// `[experts × hidden, neurons]`
    pub down: &'a [u8],
}

/// The expert that works on every token.
#[derive(Debug, Clone, Copy)]
pub struct Shared<'a> {
    /// Its matrices.
    pub expert: Expert<'a>,
    /// `[hidden]`: the sigmoid of its product with a token weights what the expert gives.
    pub switch: Option<&'a [f32]>,
}

/// The weights of a block.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Width of the residual stream, a multiple of [`BLOCK`].
    pub hidden: usize,
    /// How many experts are chosen from.
    pub count: usize,
    /// `[hidden, experts]`
    pub router: &'a [f32],
    /// `[experts]`, added to scores for the choice.
    pub bias: Option<&'a [f32]>,
    /// All routed experts.
    pub experts: Expert<'a>,
    /// The shared one.
    pub shared: Option<Shared<'a>>,
}

/// Why weights are no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FfnError {
    /// A matrix is not laid out as its sizes say.
    #[error("the matrix {matrix} has another layout")]
    Matrix {
        /// Which.
        matrix: &'static str,
        /// Why.
        #[source]
        cause: LayoutError,
    },
    /// A tensor has not as many numbers as its sizes say.
    #[error("{tensor} has {numbers} numbers instead of {wanted}")]
    Length {
        /// Which.
        tensor: &'static str,
        /// What it has.
        numbers: usize,
        /// What it should have.
        wanted: usize,
    },
    /// Sizes beyond what is computed with.
    #[error("{experts} experts are none, or more than {EXPERTS_MAX}")]
    Experts {
        /// What was given.
        experts: usize,
    },
    /// A rule that does not fit the number of experts.
    #[error("of {experts} experts none can be chosen by the rule {routing:?}")]
    Routing {
        /// The rule.
        routing: Routing,
        /// How many experts there are.
        experts: usize,
    },
}

/// A block that was checked.
#[derive(Debug, Clone, Copy)]
pub struct MoeFfn<'a> {
    weights: Weights<'a>,
    routing: Routing,
    experts: Stack<'a>,
    shared: Option<Stack<'a>>,
}

/// Experts one below the other.
#[derive(Debug, Clone, Copy)]
struct Stack<'a> {
    gate_up: Matrix<'a>,
    down: Matrix<'a>,
}

impl<'a> Stack<'a> {
    fn new(
        expert: &Expert<'a>,
        [count, hidden]: [usize; 2],
        [gate_up, down]: [&'static str; 2],
    ) -> Result<Self, FfnError> {
        // Too large a product is the length of nothing.
        let rows = |each: usize| count.saturating_mul(each);
        let matrix = |matrix, sizes, bytes| {
            Matrix::new(expert.bits, sizes, bytes)
                .map_err(|cause| FfnError::Matrix { matrix, cause })
        };
        let neurons = expert.neurons;
        let tall = rows(neurons.saturating_mul(2));
        Ok(Self {
            gate_up: matrix(gate_up, [tall, hidden], expert.gate_up)?,
            down: matrix(down, [rows(hidden), neurons], expert.down)?,
        })
    }
}

/// Rows that an expert works on.
#[derive(Debug)]
struct Group {
    /// Whether it is the shared expert, and which of the others it is else.
    expert: Option<usize>,
    /// Where its rows are among all members.
    members: Range<usize>,
    /// Number of its first piece of work in the first pass.
    first: usize,
}

/// A row that an expert works on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Member {
    row: usize,
    weight: f32,
}

/// Memory that is kept between calls, so that each need not ask for it.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) inputs: Vec<Quantised>,
    activations: Vec<Quantised>,
    scores: Vec<f32>,
    choices: Vec<(u32, f32)>,
    members: Vec<Member>,
    groups: Vec<Group>,
    /// Queries of an attention.
    pub(crate) turned: Vec<f32>,
    pub(crate) marks: Vec<AtomicBool>,
}

impl Scratch {
    /// Quantises rows of `width` numbers.
    pub(crate) fn quantise(
        &mut self,
        kernels: &Kernels,
        (input, width): (&[f32], usize),
        threads: &impl Parallel,
    ) {
        let rows = input.len() / width;
        let Self { inputs, marks, .. } = self;
        inputs.resize(input.len() / BLOCK, Quantised::ZERO);
        if rows == 1 {
            // Not worth the threads' while.
            return (kernels.quantise)(input, inputs);
        }
        marks.resize_with(marks.len().max(rows), AtomicBool::default);
        let panels = Panels::new(inputs, 1, &mut marks[..rows]);
        threads.run(rows, &|row| {
            if let Some(mut panel) = panels.take(row) {
                (kernels.quantise)(&input[row * width..][..width], panel.row(0));
            }
        });
    }
}

impl<'a> MoeFfn<'a> {
    /// The block of `weights`, whose experts are chosen by `routing`.
    pub fn new(weights: Weights<'a>, routing: Routing) -> Result<Self, FfnError> {
        let (hidden, count) = (weights.hidden, weights.count);
        if !(1..=EXPERTS_MAX).contains(&count) {
            return Err(FfnError::Experts { experts: count });
        }
        if !routing.fits(count) {
            return Err(FfnError::Routing {
                routing,
                experts: count,
            });
        }
        let length = |tensor, numbers: usize, wanted: usize| match numbers == wanted {
            true => Ok(()),
            false => Err(FfnError::Length {
                tensor,
                numbers,
                wanted,
            }),
        };
        let names = ["gate_up", "down"];
        let experts = Stack::new(&weights.experts, [count, hidden], names)?;
        length("router", weights.router.len(), hidden.saturating_mul(count))?;
        if let Some(bias) = weights.bias {
            length("bias", bias.len(), count)?;
        }
        let shared = match &weights.shared {
            None => None,
            Some(shared) => {
                if let Some(switch) = shared.switch {
                    length("switch", switch.len(), hidden)?;
                }
                let names = ["shared gate_up", "shared down"];
                Some(Stack::new(&shared.expert, [1, hidden], names)?)
            }
        };
        Ok(Self {
            weights,
            routing,
            experts,
            shared,
        })
    }

    /// Width of the residual stream.
    pub fn hidden(&self) -> usize {
        self.weights.hidden
    }

    /// Computes the block for all rows of `input` `[rows, hidden]` into `output`, of the same
    /// shape. What a row gives depends on nothing but the row: neither on the other rows nor on
    /// threads or the instruction set.
    ///
    /// # Panics
    /// If the lengths are not the same multiple of `hidden`.
    pub fn compute(
        &self,
        kernels: &Kernels,
        (input, output): (&[f32], &mut [f32]),
        scratch: &mut Scratch,
        threads: &impl Parallel,
    ) {
        let hidden = self.weights.hidden;
        assert!(
            input.len() == output.len() && input.len().is_multiple_of(hidden),
            "input and output have the same rows"
        );
        let some = self.rows_at_once() * hidden;
        for (input, output) in input.chunks(some).zip(output.chunks_mut(some)) {
            self.prepare(kernels, input, scratch, threads);
            self.activate(kernels, scratch, threads);
            self.sum_up(kernels, output, scratch, threads);
        }
    }

    fn rows_at_once(&self) -> usize {
        let shared = self.shared.map_or(0, |shared| shared.down.blocks());
        let blocks = self.routing.chosen * self.experts.down.blocks() + shared;
        (ACTIVATIONS_MAX / blocks).clamp(1, ROWS_MAX)
    }

    /// Quantises the rows and gives them to experts.
    fn prepare(
        &self,
        kernels: &Kernels,
        input: &[f32],
        scratch: &mut Scratch,
        threads: &impl Parallel,
    ) {
        let (hidden, count) = (self.weights.hidden, self.weights.count);
        let rows = input.len() / hidden;
        let Scratch {
            inputs,
            scores,
            choices,
            marks,
            ..
        } = &mut *scratch;
        inputs.resize(input.len() / BLOCK, Quantised::ZERO);
        scores.resize(rows * count, 0.0);
        choices.resize(rows * self.routing.chosen, (0, 0.0));
        marks.resize_with(marks.len().max(3 * rows), AtomicBool::default);
        let (first, rest) = marks.split_at_mut(rows);
        let (second, third) = rest.split_at_mut(rows);
        let inputs = Panels::new(inputs, 1, first);
        let scores = Panels::new(scores, 1, second);
        let choices = Panels::new(choices, 1, &mut third[..rows]);
        let work = |row: usize| {
            let panels = (inputs.take(row), scores.take(row), choices.take(row));
            if let (Some(mut quantised), Some(mut scores), Some(mut choice)) = panels {
                let input = &input[row * hidden..][..hidden];
                let scores = scores.row(0);
                (kernels.quantise)(input, quantised.row(0));
                (kernels.router)(input, self.weights.router, scores);
                (kernels.scores)(self.routing.score, scores);
                self.routing
                    .choose(scores, self.weights.bias, choice.row(0));
            }
        };
        match rows {
            // Not worth the threads' while.
            1 => work(0),
            _ => threads.run(rows, &work),
        }
        let switched = |row: usize| match self.weights.shared.and_then(|shared| shared.switch) {
            Some(switch) => {
                // A router of one expert.
                let mut logit = [0.0];
                (kernels.router)(&input[row * hidden..][..hidden], switch, &mut logit);
                sigmoid(logit[0])
            }
            None => 1.0,
        };
        self.group(scratch, rows, switched);
    }

    /// Sorts the choices by expert; the shared expert comes last.
    fn group(&self, scratch: &mut Scratch, rows: usize, switched: impl Fn(usize) -> f32) {
        let Scratch {
            choices,
            members,
            groups,
            ..
        } = scratch;
        members.clear();
        groups.clear();
        let mut first = 0;
        let mut close = |expert, stack: &Stack<'_>, members: Range<usize>| {
            if !members.is_empty() {
                groups.push(Group {
                    expert,
                    members,
                    first,
                });
                first += stack.down.blocks();
            }
        };
        if rows == 1 {
            for &(expert, weight) in choices.iter() {
                members.push(Member { row: 0, weight });
                let end = members.len();
                close(Some(expert as usize), &self.experts, end - 1..end);
            }
        } else {
            let choices = choices.chunks_exact(self.routing.chosen);
            let mut all: Vec<_> = choices
                .enumerate()
                .flat_map(|(row, choice)| choice.iter().map(move |&(e, w)| (e, row, w)))
                .collect();
            all.sort_unstable_by_key(|&(expert, row, _)| (expert, row));
            for same in all.chunk_by(|a, b| a.0 == b.0) {
                let start = members.len();
                members.extend(same.iter().map(|&(_, row, weight)| Member { row, weight }));
                close(
                    Some(same[0].0 as usize),
                    &self.experts,
                    start..members.len(),
                );
            }
        }
        if let Some(shared) = &self.shared {
            let start = members.len();
            members.extend((0..rows).map(|row| Member {
                row,
                weight: switched(row),
            }));
            close(None, shared, start..members.len());
        }
    }

    fn stack(&self, group: &Group) -> (&Stack<'a>, usize) {
        match (group.expert, &self.shared) {
            (None, Some(shared)) => (shared, 0),
            (expert, _) => (&self.experts, expert.unwrap_or(0)),
        }
    }

    /// First pass: gate, up and their product, quantised, [`BLOCK`] neurons at a time.
    fn activate(&self, kernels: &Kernels, scratch: &mut Scratch, threads: &impl Parallel) {
        let blocks = |group: &Group| self.stack(group).0.down.blocks();
        let cells = |group: &Group| group.members.len() * blocks(group);
        let Scratch {
            inputs,
            activations,
            members,
            groups,
            marks,
            ..
        } = scratch;
        activations.resize(groups.iter().map(cells).sum(), Quantised::ZERO);
        let pieces = groups.iter().map(blocks).sum();
        marks.resize_with(marks.len().max(pieces), AtomicBool::default);
        let (mut rest, mut marks) = (&mut activations[..], &mut marks[..]);
        let panels: Vec<_> = groups
            .iter()
            .map(|group| {
                let cells = rest.split_off_mut(..cells(group)).unwrap_or_default();
                let marks = marks.split_off_mut(..blocks(group)).unwrap_or_default();
                Panels::new(cells, group.members.len(), marks)
            })
            .collect();
        let width = self.experts.gate_up.blocks();
        threads.run(pieces, &|piece| {
            let index = groups.partition_point(|group| group.first <= piece) - 1;
            let (group, block) = (&groups[index], piece - groups[index].first);
            let Some(mut panel) = panels[index].take(block) else {
                return;
            };
            let (stack, expert) = self.stack(group);
            let first = (expert * stack.down.blocks() + block) * TILES_PER_BLOCK;
            let mut row = 0;
            for members in members[group.members.clone()].chunks(TOGETHER) {
                let mut given: [&[Quantised]; TOGETHER] = [&[]; TOGETHER];
                for (given, member) in given.iter_mut().zip(members) {
                    *given = &inputs[member.row * width..][..width];
                }
                let given = &given[..members.len()];
                let mut sums = [[[0.0; TILE_ROWS]; TOGETHER]; TILES_PER_BLOCK];
                for (tile, sums) in sums.iter_mut().enumerate() {
                    let tile = stack.gate_up.tile(first + tile);
                    (kernels.multiply)(tile, given, &mut sums[..members.len()]);
                }
                for (index, member) in members.iter().enumerate() {
                    let mut values = [0.0; BLOCK];
                    let (halves, _) = values.as_chunks_mut();
                    for (half, out) in halves.iter_mut().enumerate() {
                        let [gate, up] = [0, 1].map(|part| &sums[2 * half + part][index]);
                        (kernels.swiglu)(gate, up, out);
                    }
                    let out = panel.row(row);
                    (kernels.quantise)(&values, out);
                    out[0].scale *= member.weight;
                    row += 1;
                }
            }
        });
    }

    /// Second pass: what all experts give, summed, [`TILE_ROWS`] columns at a time.
    fn sum_up(
        &self,
        kernels: &Kernels,
        output: &mut [f32],
        scratch: &mut Scratch,
        threads: &impl Parallel,
    ) {
        let tiles = self.weights.hidden / TILE_ROWS;
        let rows = output.len() / self.weights.hidden;
        let Scratch {
            activations,
            members,
            groups,
            marks,
            ..
        } = scratch;
        marks.resize_with(marks.len().max(tiles), AtomicBool::default);
        let panels = Panels::new(output, rows, &mut marks[..tiles]);
        threads.run(tiles, &|index| {
            let Some(mut panel) = panels.take(index) else {
                return;
            };
            (0..rows).for_each(|row| panel.row(row).fill(0.0));
            let mut rest = &activations[..];
            for group in groups.iter() {
                let (stack, expert) = self.stack(group);
                let tile = stack.down.tile(expert * tiles + index);
                let width = stack.down.blocks();
                for members in members[group.members.clone()].chunks(TOGETHER) {
                    let (given, after) = rest.split_at(members.len() * width);
                    rest = after;
                    multiply_into(kernels, tile, (given, width), (members, &mut panel));
                }
            }
        });
    }
}

/// Adds the products of `tile` and up to [`TOGETHER`] rows of `given` to the members' rows.
fn multiply_into(
    kernels: &Kernels,
    tile: crate::layout::Tile<'_>,
    (given, width): (&[Quantised], usize),
    (members, panel): (&[Member], &mut crate::parallel::Panel<'_, f32>),
) {
    let mut inputs: [&[Quantised]; TOGETHER] = [&[]; TOGETHER];
    let mut sums: [Sums; TOGETHER] = [[0.0; TILE_ROWS]; TOGETHER];
    for (index, member) in members.iter().enumerate() {
        inputs[index] = &given[index * width..][..width];
        sums[index].copy_from_slice(panel.row(member.row));
    }
    let (inputs, sums) = (&inputs[..members.len()], &mut sums[..members.len()]);
    (kernels.multiply)(tile, inputs, sums);
    for (member, sums) in members.iter().zip(sums) {
        panel.row(member.row).copy_from_slice(sums);
    }
}
