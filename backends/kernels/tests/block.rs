//! Products and whole blocks through the public door: against a plain reference, and bit by bit across
//! instruction sets, threads and batches.

use mote_kernels::{
    Alone, BLOCK, Bits, Expert, FfnError, Groups, Kernels, LayoutError, MoeFfn, Parallel, Product,
    Routing, Score, Scratch, Shared, TILE_ROWS, Weights, pack_tile, tile_bytes,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As many threads as that, made for each call.
struct Threads(usize);

impl Parallel for Threads {
    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= count {
                            return;
                        }
                        work(index);
                    }
                });
            }
        });
    }
}

/// Against the trait's rules: calls everything twice.
struct Twice;

impl Parallel for Twice {
    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..count).chain(0..count).for_each(work);
    }
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From −1 to 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// A matrix as it is laid out, and what it is.
struct Stored {
    bytes: Vec<u8>,
    columns: usize,
    values: Vec<f64>,
}

impl Stored {
    fn new(random: &mut Random, bits: Bits, [rows, columns]: [usize; 2]) -> Self {
        let codes: Vec<i8> = (0..rows * columns)
            .map(|_| {
                let code = random.next() as i8;
                match bits {
                    Bits::Four => code >> 4,
                    Bits::Eight => code,
                }
            })
            .collect();
        // Powers of two are themselves as 16-bit floats; signs and zeros are scales, too.
        let scales: Vec<f32> = (0..rows * columns / BLOCK)
            .map(|_| [0.0, 0.0625, -0.125, 0.25][(random.next() % 4) as usize] / 64.0)
            .collect();
        let mut bytes = Vec::new();
        let tiles = codes.chunks(TILE_ROWS * columns);
        for (codes, scales) in tiles.zip(scales.chunks(TILE_ROWS * columns / BLOCK)) {
            pack_tile(bits, (codes, scales), &mut bytes).expect("whole tiles");
        }
        let value =
            |(index, &code): (usize, &i8)| f64::from(code) * f64::from(scales[index / BLOCK]);
        Self {
            bytes,
            columns,
            values: codes.iter().enumerate().map(value).collect(),
        }
    }

    fn product(&self, rows: std::ops::Range<usize>, input: &[f64]) -> Vec<f64> {
        let rows =
            self.values[rows.start * self.columns..rows.end * self.columns].chunks(self.columns);
        rows.map(|row| row.iter().zip(input).map(|(a, b)| a * b).sum())
            .collect()
    }
}

#[derive(Debug, Clone)]
struct Shape {
    seed: u64,
    hidden: usize,
    experts: usize,
    neurons: usize,
    shared: usize,
    bits: [Bits; 2],
    rows: usize,
    routing: Routing,
    extras: bool,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let sizes = (1usize..6, 1usize..8, 1usize..4, 0usize..4, 1usize..20);
    let bits = || prop_oneof![Just(Bits::Four), Just(Bits::Eight)];
    let rule = (0usize..8, any::<bool>(), any::<bool>(), any::<bool>());
    (1..u64::MAX, sizes, (bits(), bits()), rule, any::<bool>()).prop_map(
        |(seed, (hidden, experts, neurons, shared, rows), (a, b), rule, extras)| {
            let (chosen, sigmoid, normalised, grouped) = rule;
            let groups = (grouped && experts % 2 == 0).then_some(Groups {
                count: 2,
                chosen: 1,
                judged_by: 1,
            });
            let most = if groups.is_some() {
                experts / 2
            } else {
                experts
            };
            Shape {
                seed,
                hidden: hidden * BLOCK,
                experts,
                neurons: neurons * BLOCK,
                shared: shared * BLOCK,
                bits: [a, b],
                rows,
                routing: Routing {
                    chosen: chosen % most + 1,
                    score: if sigmoid {
                        Score::Sigmoid
                    } else {
                        Score::Softmax
                    },
                    normalised,
                    groups,
                },
                extras,
            }
        },
    )
}

/// A block with weights at random.
struct Block {
    shape: Shape,
    router: Vec<f32>,
    bias: Vec<f32>,
    switch: Vec<f32>,
    experts: [Stored; 2],
    shared: Option<[Stored; 2]>,
    input: Vec<f32>,
}

impl Block {
    fn new(shape: Shape) -> Self {
        let mut random = Random(shape.seed);
        let Shape {
            hidden,
            experts,
            neurons,
            shared,
            rows,
            ..
        } = shape;
        let [first, second] = shape.bits;
        let mut pair = |bits, count, neurons| {
            [[count * 2 * neurons, hidden], [count * hidden, neurons]]
                .map(|sizes| Stored::new(&mut random, bits, sizes))
        };
        let experts_stored = pair(first, experts, neurons);
        let shared = (shared > 0).then(|| pair(second, 1, shared));
        let mut input = random.floats(rows * hidden);
        // Rows of other sizes, and blocks of zeros.
        for (index, block) in input.chunks_mut(BLOCK).enumerate() {
            let factor = [1.0, 8.0, 0.0, 1e-3][index % 4];
            block.iter_mut().for_each(|value| *value *= factor);
        }
        Self {
            // So small that no sigmoid is 1 for more than one expert.
            router: random
                .floats(hidden * experts)
                .iter()
                .map(|value| value / 16.0)
                .collect(),
            bias: random.floats(experts),
            switch: random.floats(hidden),
            experts: experts_stored,
            shared,
            input,
            shape,
        }
    }

    fn ffn(&self) -> MoeFfn<'_> {
        let Shape {
            hidden,
            experts,
            neurons,
            shared,
            extras,
            ..
        } = self.shape;
        let [gate_up, down] = &self.experts;
        let weights = Weights {
            hidden,
            count: experts,
            router: &self.router,
            bias: extras.then_some(&self.bias[..]),
            experts: Expert {
                bits: self.shape.bits[0],
                neurons,
                gate_up: &gate_up.bytes,
                down: &down.bytes,
            },
            shared: self.shared.as_ref().map(|[gate_up, down]| Shared {
                expert: Expert {
                    bits: self.shape.bits[1],
                    neurons: shared,
                    gate_up: &gate_up.bytes,
                    down: &down.bytes,
                },
                switch: extras.then_some(&self.switch[..]),
            }),
        };
        MoeFfn::new(weights, self.shape.routing).expect("sizes fit")
    }

    fn compute(&self, kernels: &Kernels, input: &[f32], threads: &impl Parallel) -> Vec<f32> {
        let mut output = vec![f32::NAN; input.len()];
        let mut scratch = Scratch::default();
        self.ffn()
            .compute(kernels, (input, &mut output), &mut scratch, threads);
        output
    }

    /// What the block should give for `row`, and by how much it may differ.
    fn reference(&self, row: &[f32]) -> (Vec<f64>, f64) {
        let Shape {
            hidden,
            neurons,
            shared,
            extras,
            ..
        } = self.shape;
        let exact: Vec<f64> = row.iter().map(|&value| value.into()).collect();
        let input = quantised(&exact);
        let mut output = vec![0.0; hidden];
        let mut step = 0.0;
        let mut add = |[gate_up, down]: &[Stored; 2], index: usize, neurons: usize, weight: f64| {
            let tall = 2 * neurons;
            let both = gate_up.product(index * tall..(index + 1) * tall, &input);
            let activated: Vec<f64> = (0..neurons)
                .map(|neuron| {
                    let gate = neuron / TILE_ROWS * 2 * TILE_ROWS + neuron % TILE_ROWS;
                    both[gate] / (1.0 + (-both[gate]).exp()) * both[gate + TILE_ROWS]
                })
                .collect();
            let most = activated
                .iter()
                .fold(0.0f64, |most, value| most.max(value.abs()));
            let largest = down
                .values
                .iter()
                .fold(0.0f64, |most, value| most.max(value.abs()));
            // A few of the numbers may be rounded to the other side.
            step += 8.0 * weight * most / 127.0 * largest + 1e-4 * weight * most * largest;
            let activated = quantised(&activated);
            let products = down.product(index * hidden..(index + 1) * hidden, &activated);
            for (sum, product) in output.iter_mut().zip(products) {
                *sum += weight * product;
            }
        };
        for (expert, weight) in self.chosen(&exact) {
            add(&self.experts, expert, neurons, weight);
        }
        if let Some(stored) = &self.shared {
            let product: f64 = self
                .switch
                .iter()
                .zip(&exact)
                .map(|(a, b)| f64::from(*a) * b)
                .sum();
            let weight = if extras {
                1.0 / (1.0 + (-product).exp())
            } else {
                1.0
            };
            add(stored, 0, shared, weight);
        }
        (output, step)
    }

    /// Experts and weights. Which of two is better is judged as f32, where they may be the same.
    fn chosen(&self, input: &[f64]) -> Vec<(usize, f64)> {
        let Shape {
            experts,
            routing,
            extras,
            ..
        } = self.shape;
        let logit = |expert: usize| -> f64 {
            let weights = self.router.iter().skip(expert).step_by(experts);
            weights.zip(input).map(|(a, b)| f64::from(*a) * b).sum()
        };
        let logits: Vec<f64> = (0..experts).map(logit).collect();
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let scores: Vec<f64> = logits
            .iter()
            .map(|logit| match routing.score {
                Score::Softmax => logit.exp() / sum,
                Score::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
            })
            .collect();
        let judged = |expert: usize| {
            let bias = if extras { self.bias[expert] } else { 0.0 };
            scores[expert] as f32 + bias
        };
        let best = |mut from: Vec<usize>| {
            from.sort_by(|&a, &b| judged(b).total_cmp(&judged(a)));
            from
        };
        let mut from: Vec<usize> = (0..experts).collect();
        if routing.groups.is_some() {
            let best = best(from)[0];
            let half = experts / 2;
            from = (best / half * half..(best / half + 1) * half).collect();
        }
        let mut chosen = best(from);
        chosen.truncate(routing.chosen);
        let total: f64 = chosen.iter().map(|&expert| scores[expert]).sum();
        let weight = |expert: usize| scores[expert] / if routing.normalised { total } else { 1.0 };
        chosen
            .into_iter()
            .map(|expert| (expert, weight(expert)))
            .collect()
    }
}

/// `values` after quantisation to 8 bits by blocks.
fn quantised(values: &[f64]) -> Vec<f64> {
    let block = |block: &[f64]| {
        let most = block
            .iter()
            .fold(0.0f64, |most, value| most.max(value.abs()));
        let scale = most / 127.0;
        let round = |value: &f64| {
            if scale > 0.0 {
                (value / scale).round_ties_even() * scale
            } else {
                0.0
            }
        };
        block.iter().map(round).collect::<Vec<_>>()
    };
    values.chunks(BLOCK).flat_map(block).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_block_gives_what_a_plain_one_gives(shape in shapes()) {
        let block = Block::new(shape);
        let output = block.compute(Kernels::best(), &block.input, &Alone);
        let hidden = block.shape.hidden;
        for (row, output) in block.input.chunks(hidden).zip(output.chunks(hidden)) {
            let (expected, allowed) = block.reference(row);
            for (found, expected) in output.iter().zip(&expected) {
                let apart = (f64::from(*found) - expected).abs();
                prop_assert!(apart <= allowed, "{found} {expected}, {allowed} allowed");
            }
        }
    }

    #[test]
    fn instruction_sets_threads_and_batches_change_no_bit(shape in shapes()) {
        let block = Block::new(shape);
        let expected = block.compute(Kernels::all()[Kernels::all().len() - 1], &block.input, &Alone);
        for kernels in Kernels::all() {
            prop_assert!(block.compute(kernels, &block.input, &Alone) == expected, "{}", kernels.name);
            prop_assert!(block.compute(kernels, &block.input, &Threads(3)) == expected, "{}, 3 threads", kernels.name);
            let rows = block.input.chunks(block.shape.hidden);
            let alone: Vec<f32> = rows.flat_map(|row| block.compute(kernels, row, &Twice)).collect();
            prop_assert!(alone == expected, "{}, row by row", kernels.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_product_is_one_and_the_same_everywhere(
        seed in 1..u64::MAX,
        (tiles, blocks, rows) in (1usize..6, 1usize..7, 0usize..20),
        eight in any::<bool>(),
    ) {
        let mut random = Random(seed);
        let sizes = [tiles * TILE_ROWS, blocks * BLOCK];
        let bits = if eight { Bits::Eight } else { Bits::Four };
        let stored = Stored::new(&mut random, bits, sizes);
        let input = random.floats(rows * sizes[1]);
        let product = Product::new(bits, sizes, &stored.bytes).expect("sizes fit");
        prop_assert_eq!(product.widths(), [sizes[1], sizes[0]]);
        for (index, expected) in stored.values.chunks(sizes[1]).enumerate() {
            let mut row = vec![f32::NAN; sizes[1]];
            product.row(index, &mut row);
            prop_assert!(row.iter().zip(expected).all(|(found, value)| f64::from(*found) == *value));
        }
        let compute = |kernels: &Kernels, input: &[f32]| {
            let mut output = vec![f32::NAN; input.len() / sizes[1] * sizes[0]];
            product.compute(kernels, (input, &mut output), &mut Scratch::default(), &Threads(2));
            output
        };
        let output = compute(Kernels::best(), &input);
        for kernels in Kernels::all() {
            prop_assert!(compute(kernels, &input) == output, "{}", kernels.name);
            let rows = input.chunks(sizes[1]);
            let alone: Vec<f32> = rows.flat_map(|row| compute(kernels, row)).collect();
            prop_assert!(alone == output, "{}, row by row", kernels.name);
        }
        for (row, output) in input.chunks(sizes[1]).zip(output.chunks(sizes[0])) {
            let exact: Vec<f64> = row.iter().map(|&value| value.into()).collect();
            let expected = stored.product(0..sizes[0], &quantised(&exact));
            let largest = stored.values.iter().fold(0.0f64, |most, value| most.max(value.abs()));
            for (found, expected) in output.iter().zip(&expected) {
                // A few inputs may be rounded to the other side.
                let apart = (f64::from(*found) - expected).abs();
                prop_assert!(apart <= 3.0 / 127.0 * largest, "{found} {expected}");
            }
        }
    }
}

fn any_shape() -> Shape {
    Shape {
        seed: 7,
        hidden: 64,
        experts: 4,
        neurons: 32,
        shared: 32,
        bits: [Bits::Four, Bits::Eight],
        rows: 600,
        routing: Routing {
            chosen: 2,
            score: Score::Softmax,
            normalised: true,
            groups: None,
        },
        extras: false,
    }
}

#[test]
fn many_rows_are_as_each_alone() {
    let block = Block::new(any_shape());
    let together = block.compute(Kernels::best(), &block.input, &Threads(2));
    let rows = block.input.chunks(64).zip(together.chunks(64));
    for (index, (row, together)) in rows.enumerate().step_by(97) {
        assert_eq!(
            block.compute(Kernels::best(), row, &Alone),
            together,
            "row {index}"
        );
    }
    assert_eq!(block.compute(Kernels::best(), &[], &Alone), []);
}

#[test]
fn what_is_no_number_stays_in_its_row() {
    let mut block = Block::new(Shape {
        rows: 3,
        ..any_shape()
    });
    let before = block.compute(Kernels::best(), &block.input, &Alone);
    block.input[64..128].fill(f32::NAN);
    block.input[70] = f32::INFINITY;
    for kernels in Kernels::all() {
        let after = block.compute(kernels, &block.input, &Alone);
        assert_eq!(
            (&after[..64], &after[128..]),
            (&before[..64], &before[128..])
        );
        assert!(after[64..128].iter().any(|value| !value.is_finite()));
    }
}

#[test]
fn one_activation_that_is_no_number_makes_its_whole_row_none() {
    let (rows, sizes) = (3, [2 * TILE_ROWS, 3 * BLOCK]);
    for bits in [Bits::Four, Bits::Eight] {
        let mut random = Random(11);
        let stored = Stored::new(&mut random, bits, sizes);
        let product = Product::new(bits, sizes, &stored.bytes).expect("sizes fit");
        let input = random.floats(rows * sizes[1]);
        let compute = |kernels: &Kernels, input: &[f32]| {
            let mut output = vec![0.0; rows * sizes[0]];
            let scratch = &mut Scratch::default();
            product.compute(kernels, (input, &mut output), scratch, &Alone);
            output
        };
        // The low byte of the second is no code.
        for value in [f32::NAN, f32::from_bits(0x7fc0_0080), f32::INFINITY] {
            for kernels in Kernels::all() {
                let before = compute(kernels, &input);
                let mut changed = input.clone();
                changed[sizes[1] + BLOCK + 5] = value;
                let after = compute(kernels, &changed);
                let [first, second, third] =
                    [0, 1, 2].map(|row| row * sizes[0]..(row + 1) * sizes[0]);
                assert!(
                    after[second].iter().all(|found| found.is_nan()),
                    "{}, {bits:?}, {value}",
                    kernels.name
                );
                assert_eq!(after[first.clone()], before[first]);
                assert_eq!(after[third.clone()], before[third]);
            }
        }
    }
    let mut block = Block::new(Shape {
        rows: 3,
        extras: true,
        ..any_shape()
    });
    let before = block.compute(Kernels::best(), &block.input, &Alone);
    block.input[64 + 40] = f32::NAN;
    for kernels in Kernels::all() {
        let after = block.compute(kernels, &block.input, &Alone);
        assert_eq!(
            (&after[..64], &after[128..]),
            (&before[..64], &before[128..])
        );
        assert!(after[64..128].iter().all(|value| value.is_nan()));
    }
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let block = Block::new(any_shape());
    let ffn = |change: fn(&mut Weights<'_>)| {
        let [gate_up, down] = &block.experts;
        let mut weights = Weights {
            hidden: 64,
            count: 4,
            router: &block.router,
            bias: None,
            experts: Expert {
                bits: Bits::Four,
                neurons: 32,
                gate_up: &gate_up.bytes,
                down: &down.bytes,
            },
            shared: None,
        };
        change(&mut weights);
        MoeFfn::new(weights, block.shape.routing).map(|_| ())
    };
    assert_eq!(ffn(|_| ()), Ok(()));
    let matrix = |change| matches!(ffn(change), Err(FfnError::Matrix { .. }));
    assert!(matrix(
        |weights| weights.experts.gate_up = &weights.experts.gate_up[1..]
    ));
    assert!(matrix(|weights| weights.experts.down = &[]));
    assert!(matrix(|weights| weights.experts.bits = Bits::Eight));
    assert!(matrix(|weights| weights.experts.neurons = 64));
    assert!(matrix(|weights| weights.experts.neurons = usize::MAX));
    assert!(matrix(|weights| weights.hidden = 0));
    assert!(matrix(|weights| weights.hidden = usize::MAX));
    assert!(matrix(|weights| weights.count = 5));
    assert!(matches!(
        ffn(|weights| weights.count = 0),
        Err(FfnError::Experts { experts: 0 })
    ));
    assert!(matches!(
        ffn(|weights| weights.count = 1),
        Err(FfnError::Routing { .. })
    ));
    let length = |change| matches!(ffn(change), Err(FfnError::Length { .. }));
    assert!(length(|weights| weights.router = &weights.router[1..]));
    assert!(length(|weights| weights.bias = Some(&[0.0])));
}

#[test]
fn a_tile_lies_as_it_is_written_down() {
    let columns = 3 * BLOCK;
    let codes: Vec<i8> = (0..TILE_ROWS * columns)
        .map(|index| (index % 16) as i8 - 8)
        .collect();
    let scales: Vec<f32> = (0..TILE_ROWS * 3).map(|index| index as f32).collect();
    let mut bytes = Vec::new();
    pack_tile(Bits::Four, (&codes, &scales), &mut bytes).expect("fits");
    // Two records of two blocks, each 16 rows of 32 codes of half a byte and a scale.
    assert_eq!(bytes.len(), 2 * 2 * (16 * 16 + 32));
    assert_eq!(tile_bytes(Bits::Four, columns), Ok(bytes.len()));
    // Columns 0 and 16 of row 0 are the same, as are 1 and 17, and so on.
    assert_eq!(bytes[..5], [0x00, 0x11, 0x22, 0x33, 0x00]);
    // The scale of row 1 in the second block is number 4: 4.0 as f16.
    assert_eq!(bytes[512 + 32 + 2..][..2], 0x4400u16.to_le_bytes());
    assert!(bytes[576 + 256..576 + 512].iter().all(|&byte| byte == 0));

    let refused = |codes: &[i8]| pack_tile(Bits::Eight, (codes, &scales), &mut Vec::new());
    assert_eq!(
        refused(&codes[..16 * 31]),
        Err(LayoutError::Columns { columns: 31 })
    );
    assert_eq!(refused(&[]), Err(LayoutError::Columns { columns: 0 }));
}
