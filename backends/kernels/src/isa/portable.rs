//! What runs everywhere, and what the others are compared with.

use super::{Kernels, Sums};
use crate::{
    attend,
    float::{self, Quantised},
    layout::{BLOCK, Bits, TILE_ROWS, Tile},
};
use half::f16;

pub(super) static KERNELS: Kernels = Kernels {
    name: "portable",
    multiply,
    quantise: float::quantise,
    swiglu: float::swiglu,
    router: float::router,
    scores: float::scores,
    attend: attend::attend::<attend::Singles, 8, 2, 16>,
    attend_halves: attend::attend::<attend::Halves, 8, 2, 16>,
    keep_halves: attend::keep::<attend::Halves>,
};

fn multiply(tile: Tile<'_>, inputs: &[&[Quantised]], sums: &mut [Sums]) {
    super::check(tile, inputs, sums);
    for index in 0..tile.blocks() {
        let [codes, scales] = tile.offsets(index).map(|offset| &tile.bytes()[offset..]);
        let codes = &codes[..tile.bits().block_bytes()];
        let mut halves = scales.as_chunks().0.iter().copied();
        let scales: [f32; TILE_ROWS] = std::array::from_fn(|_| {
            let half = halves.next().unwrap_or_default();
            f16::from_le_bytes(half).to_f32()
        });
        for (input, sums) in inputs.iter().zip(&mut *sums) {
            let input = &input[index];
            let products = match tile.bits() {
                Bits::Eight => eight(codes, &input.codes),
                Bits::Four => four(codes, &input.codes).map(|sum| sum - 8 * input.sum),
            };
            for ((sum, product), scale) in sums.iter_mut().zip(products).zip(scales) {
                *sum = (product as f32).mul_add(scale * input.scale, *sum);
            }
        }
    }
}

fn eight(codes: &[u8], input: &[i8; BLOCK]) -> [i32; TILE_ROWS] {
    let mut sums = [0; TILE_ROWS];
    let chunks = codes.as_chunks::<4>().0.as_chunks::<TILE_ROWS>().0;
    for (chunk, input) in chunks.iter().zip(input.as_chunks::<4>().0) {
        for (sum, codes) in sums.iter_mut().zip(chunk) {
            for (&code, &input) in codes.iter().zip(input) {
                *sum += i32::from(code.cast_signed()) * i32::from(input);
            }
        }
    }
    sums
}

/// Sums of codes plus 8, as they are stored.
fn four(codes: &[u8], input: &[i8; BLOCK]) -> [i32; TILE_ROWS] {
    let mut sums = [0; TILE_ROWS];
    let (low, high) = input.as_chunks::<4>().0.split_at(BLOCK / 8);
    let chunks = codes.as_chunks::<4>().0.as_chunks::<TILE_ROWS>().0;
    for ((chunk, low), high) in chunks.iter().zip(low).zip(high) {
        for (sum, codes) in sums.iter_mut().zip(chunk) {
            for (&code, (&low, &high)) in codes.iter().zip(low.iter().zip(high)) {
                *sum += i32::from(code & 15) * i32::from(low);
                *sum += i32::from(code >> 4) * i32::from(high);
            }
        }
    }
    sums
}
