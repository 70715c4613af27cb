//! Times blocks of the default model's sizes on one thread, with each instruction set that is
//! here: `cargo run --release --example block -- BITS ROWS`.

#![allow(
    clippy::print_stdout,
    reason = "printing what was measured is what the example is for"
)]

use mote_kernels::{
    Alone, BLOCK, Bits, Expert, Kernels, MoeFfn, Routing, Score, Scratch, Shared, TILE_ROWS,
    Weights, pack_tile,
};
use std::time::Instant;

const HIDDEN: usize = 576;
const EXPERTS: usize = 8;
const NEURONS: usize = 128;
const SHARED: usize = 512;
/// As many layers as make more bytes than caches hold.
const LAYERS: usize = 30;
const REPEATS: usize = 50;

fn matrix(bits: Bits, [rows, columns]: [usize; 2]) -> Vec<u8> {
    let codes: Vec<i8> = (0..TILE_ROWS * columns)
        .map(|index| (index % 15) as i8 - 7)
        .collect();
    let scales = vec![0.01; TILE_ROWS * columns / BLOCK];
    let mut bytes = Vec::new();
    for _ in 0..rows / TILE_ROWS {
        pack_tile(bits, (&codes, &scales), &mut bytes).expect("whole tiles");
    }
    bytes
}

fn main() {
    let number = |place: usize, or: usize| {
        let given = std::env::args().nth(place);
        given.and_then(|text| text.parse().ok()).unwrap_or(or)
    };
    let (bits, rows) = (Bits::of(number(1, 4)).expect("4 or 8"), number(2, 1));
    let layers: Vec<[Vec<u8>; 4]> = (0..LAYERS)
        .map(|_| {
            [
                [EXPERTS * 2 * NEURONS, HIDDEN],
                [EXPERTS * HIDDEN, NEURONS],
                [2 * SHARED, HIDDEN],
                [HIDDEN, SHARED],
            ]
            .map(|sizes| matrix(bits, sizes))
        })
        .collect();
    let router = vec![0.01; HIDDEN * EXPERTS];
    let routing = Routing {
        chosen: 7,
        score: Score::Softmax,
        normalised: true,
        groups: None,
    };
    let expert = |neurons, gate_up, down| Expert {
        bits,
        neurons,
        gate_up,
        down,
    };
    let blocks = layers
        .iter()
        .map(|[gate_up, down, shared_gate_up, shared_down]| {
            let weights = Weights {
                hidden: HIDDEN,
                count: EXPERTS,
                router: &router,
                bias: None,
                experts: expert(NEURONS, gate_up, down),
                shared: Some(Shared {
                    expert: expert(SHARED, shared_gate_up, shared_down),
                    switch: None,
                }),
            };
            MoeFfn::new(weights, routing).expect("sizes fit")
        });
    let blocks: Vec<MoeFfn<'_>> = blocks.collect();
    let input: Vec<f32> = (0..rows * HIDDEN)
        .map(|index| (index % 13) as f32 - 6.0)
        .collect();
    let (mut output, mut scratch) = (vec![0.0; input.len()], Scratch::default());
    for kernels in Kernels::all() {
        let mut best_us = f64::INFINITY;
        for _ in 0..REPEATS {
            let start = Instant::now();
            for block in &blocks {
                block.compute(kernels, (&input, &mut output), &mut scratch, &Alone);
            }
            best_us = best_us.min(start.elapsed().as_secs_f64() * 1e6 / LAYERS as f64);
        }
        println!("{}: {best_us:.1} µs a block", kernels.name);
    }
}
