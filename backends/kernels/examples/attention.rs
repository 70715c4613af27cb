//! Times attention of the default model's sizes on one thread, with each instruction set that is here:
//! `cargo run --release --example attention -- ROWS LENGTH POSITIONS LAYERS`, where caches
//! of that many layers take turns, kept as singles and as halves.

#![allow(
    clippy::print_stdout,
    reason = "printing what was measured is what the example is for"
)]

use half::f16;
use mote_kernels::{Alone, Asked, Attention, Cache, Element, Kernels, Projected, Scratch};
use std::time::Instant;

const ATTENTION: Attention = Attention {
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    scale: 0.125,
    window: None,
    interleaved: false,
};
const CONTEXT: usize = 2048;
const REPEATS: usize = 20;

fn main() {
    time::<f32>("singles", 0.01);
    time::<f16>("halves", f16::from_f32(0.01));
}

fn time<E: Element>(what: &str, number_kept: E) {
    let number = |place: usize, or: usize| {
        let given = std::env::args().nth(place);
        given.and_then(|text| text.parse().ok()).unwrap_or(or)
    };
    let (rows, length, positions) = (number(1, 8), number(2, 1), number(3, 128));
    let layers = number(4, 30);
    let width = 15 * 64;
    let packed = vec![0.01; rows * length * width];
    let cached = rows * 3 * CONTEXT * 64;
    let mut caches = vec![(vec![number_kept; cached], vec![number_kept; cached]); layers];
    let (cos, sin) = (vec![1.0; CONTEXT * 32], vec![0.0; CONTEXT * 32]);
    let totals = vec![positions; rows];
    let part = |first| Projected {
        numbers: &packed,
        stride: width,
        first,
    };
    let asked = Asked {
        queries: part(0),
        keys: part(9 * 64),
        values: part(12 * 64),
        length,
        totals: &totals,
        cos: &cos,
        sin: &sin,
        half: 32,
    };
    let mut out = vec![0.0; rows * length * 9 * 64];
    let mut scratch = Scratch::default();
    for kernels in Kernels::all() {
        let mut times: Vec<f64> = (0..REPEATS)
            .map(|_| {
                let begun = Instant::now();
                for (keys, values) in &mut caches {
                    let cache = Cache {
                        keys,
                        values,
                        positions: CONTEXT,
                    };
                    ATTENTION
                        .compute(kernels, &asked, cache, &mut out, &mut scratch, &Alone)
                        .expect("sizes fit");
                }
                begun.elapsed().as_secs_f64() * 1e6 / layers as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "{:>12} {what:>7} {:9.1} µs",
            kernels.name,
            times[REPEATS / 2]
        );
    }
}
