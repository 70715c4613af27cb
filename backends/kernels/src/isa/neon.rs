//! NEON: a quarter of a tile is four rows in one register. With dot products (from ARMv8.2 on, not on
//! Cortex-A53 and A72), four products of bytes are one instruction.
#![allow(unsafe_code, reason = "the door to NEON")]

use super::{Kernels, Sums};
use crate::{
    attend::{self, PARTS, Read, Write},
    float::{self, Quantised},
    layout::{BLOCK, Bits, Tile},
};
use half::f16;
use std::arch::{aarch64::*, asm};

/// Inputs that are multiplied together.
const TOGETHER: usize = 4;
const CHUNK_BYTES: usize = 64;
const QUARTER_BYTES: usize = 16;
/// Rows in a register.
const LANES: usize = 4;

// NEON and fused multiplication are part of the architecture: plain code is compiled to them.
static WITH_DOT: Kernels = Kernels {
    name: "neon-dotprod",
    multiply: multiply::<true>,
    ..PLAIN
};
const PLAIN: Kernels = Kernels {
    name: "neon",
    multiply: multiply::<false>,
    quantise: float::quantise,
    swiglu: float::swiglu,
    router: float::router,
    scores: float::scores,
    attend: attend::attend::<attend::Singles, 8, 2, 32>,
    attend_halves: attend::attend::<Halves, 8, 2, 32>,
    keep_halves: attend::keep::<Halves>,
};
static WITHOUT_DOT: Kernels = PLAIN;

/// The kernels that this processor can run.
pub(super) fn kernels() -> [Option<&'static Kernels>; 2] {
    let dot = std::arch::is_aarch64_feature_detected!("dotprod");
    [dot.then_some(&WITH_DOT), Some(&WITHOUT_DOT)]
}

// What has dot products is reached through `kernels` only, which is what makes the calls below
// sound: the processor has been asked for them.

fn multiply<const DOT: bool>(tile: Tile<'_>, inputs: &[&[Quantised]], sums: &mut [Sums]) {
    super::check(tile, inputs, sums);
    let (four, last) = inputs.as_chunks::<TOGETHER>();
    let (four_sums, last_sums) = sums.as_chunks_mut::<TOGETHER>();
    for (inputs, sums) in four.iter().zip(four_sums) {
        for quarter in 0..4 {
            // SAFETY: the processor can; `check` has found all lengths to fit.
            unsafe { together::<TOGETHER, DOT>(tile, inputs, sums, quarter) };
        }
    }
    for (input, sums) in last.iter().zip(last_sums) {
        let sums = std::array::from_mut(sums);
        for quarter in 0..4 {
            // SAFETY: as above.
            unsafe { together::<1, DOT>(tile, &[*input], sums, quarter) };
        }
    }
}

/// Halves of a cache.
struct Halves;

impl Read for Halves {
    type Kept = f16;

    #[inline(always)]
    fn read(kept: &[f16; PARTS]) -> [f32; PARTS] {
        let mut read = [0.0; PARTS];
        let fours = kept.as_chunks::<LANES>().0.iter();
        for (kept, read) in fours.zip(read.as_chunks_mut::<LANES>().0) {
            // SAFETY: four halves are read, and four singles written, by instructions that are part of the
            // architecture.
            unsafe {
                let halves = vreinterpret_f16_u16(vld1_u16(kept.as_ptr().cast()));
                vst1q_f32(read.as_mut_ptr(), vcvt_f32_f16(halves));
            }
        }
        read
    }
}

impl Write for Halves {
    #[inline(always)]
    fn write(numbers: [f32; PARTS]) -> [f16; PARTS] {
        let mut kept = [f16::ZERO; PARTS];
        let fours = numbers.as_chunks::<LANES>().0.iter();
        for (numbers, kept) in fours.zip(kept.as_chunks_mut::<LANES>().0) {
            // SAFETY: four singles are read, and four halves written, likewise.
            unsafe {
                let halves = vcvt_f16_f32(vld1q_f32(numbers.as_ptr()));
                vst1_u16(kept.as_mut_ptr().cast(), vreinterpret_u16_f16(halves));
            }
        }
        kept
    }
}

/// Multiplies a quarter of the tile by `N` inputs at once.
///
/// # Safety
/// The processor has dot products if `DOT`, [`check`](super::check) holds, and `quarter` is below 4.
#[target_feature(enable = "neon")]
unsafe fn together<const N: usize, const DOT: bool>(
    tile: Tile<'_>,
    inputs: &[&[Quantised]; N],
    sums: &mut [Sums; N],
    quarter: usize,
) {
    // SAFETY: offsets below stay inside: a block has four or eight chunks of 64 bytes, an input
    // as many blocks as the tile and 32 codes in each, a sum 16 floats.
    unsafe {
        let mut total = sums
            .each_ref()
            .map(|sum| vld1q_f32(sum.as_ptr().add(quarter * LANES)));
        for block in 0..tile.blocks() {
            let [codes, scales] = tile.offsets(block).map(|at| tile.bytes().as_ptr().add(at));
            let codes = codes.add(quarter * QUARTER_BYTES);
            let (codes, zero) = match tile.bits() {
                Bits::Four => (four(codes), 8),
                Bits::Eight => (eight(codes), 0),
            };
            let halves = vld1_u16(scales.add(quarter * LANES * 2).cast());
            let scales = vcvt_f32_f16(vreinterpret_f16_u16(halves));
            for (total, input) in total.iter_mut().zip(inputs) {
                let input = input.get_unchecked(block);
                let products = match (DOT, tile.bits()) {
                    (true, _) => dots(&codes, &input.codes),
                    (false, Bits::Four) => products_of_four(&codes, &input.codes),
                    (false, Bits::Eight) => products_of_eight(&codes, &input.codes),
                };
                let products = vsubq_s32(products, vdupq_n_s32(zero * input.sum));
                let scales = vmulq_n_f32(scales, input.scale);
                *total = vfmaq_f32(*total, vcvtq_f32_s32(products), scales);
            }
        }
        for (sum, total) in sums.iter_mut().zip(total) {
            vst1q_f32(sum.as_mut_ptr().add(quarter * LANES), total);
        }
    }
}

/// Sums of products of a block, by dot products.
///
/// # Safety
/// The processor has dot products.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn dots(codes: &[int8x16_t; 8], input: &[i8; BLOCK]) -> int32x4_t {
    // SAFETY: both loads are of 16 of 32 bytes; the caller's promise.
    unsafe {
        let mut sums = vdupq_n_s32(0);
        let [first, second] = [0, 16].map(|at| vld1q_s8(input.as_ptr().add(at)));
        sums = dot::<0>(sums, codes[0], first);
        sums = dot::<1>(sums, codes[1], first);
        sums = dot::<2>(sums, codes[2], first);
        sums = dot::<3>(sums, codes[3], first);
        sums = dot::<0>(sums, codes[4], second);
        sums = dot::<1>(sums, codes[5], second);
        sums = dot::<2>(sums, codes[6], second);
        dot::<3>(sums, codes[7], second)
    }
}

/// `sums + codes · four`, where `four` is the four bytes of `input` that `LANE` names. (The
/// standard library's own function is not stable.)
///
/// # Safety
/// The processor has dot products.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn dot<const LANE: i32>(
    mut sums: int32x4_t,
    codes: int8x16_t,
    input: int8x16_t,
) -> int32x4_t {
    // SAFETY: one instruction on registers alone, of a feature that the caller has made sure of.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {codes:v}.16b, {input:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            input = in(vreg) input,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Sums of products of a block of 4 bits. Each sum of 16 bits is of 8 products of at most 15 × 127.
#[target_feature(enable = "neon")]
#[inline]
fn products_of_four(codes: &[int8x16_t; 8], input: &[i8; BLOCK]) -> int32x4_t {
    let mut sums = [vdupq_n_s16(0); 2];
    for (codes, input) in codes.iter().zip(input.as_chunks().0) {
        let input = four_twice(input);
        sums[0] = vmlal_s8(sums[0], vget_low_s8(*codes), input);
        sums[1] = vmlal_s8(sums[1], vget_high_s8(*codes), input);
    }
    let [low, high] = sums.map(|sums| vpaddlq_s16(sums));
    vpaddq_s32(low, high)
}

/// Sums of products of a block of 8 bits. Each sum of 16 bits is of 2 products of at most 128 × 127.
#[target_feature(enable = "neon")]
#[inline]
fn products_of_eight(codes: &[int8x16_t; 8], input: &[i8; BLOCK]) -> int32x4_t {
    let mut sums = [vdupq_n_s32(0); 2];
    let inputs = input.as_chunks().0.as_chunks::<2>().0;
    for ([first, second], [a, b]) in codes.as_chunks().0.iter().zip(inputs) {
        let (a, b) = (four_twice(a), four_twice(b));
        let low = vmlal_s8(vmull_s8(vget_low_s8(*first), a), vget_low_s8(*second), b);
        let high = vmlal_s8(vmull_s8(vget_high_s8(*first), a), vget_high_s8(*second), b);
        sums = [vpadalq_s16(sums[0], low), vpadalq_s16(sums[1], high)];
    }
    vpaddq_s32(sums[0], sums[1])
}

/// Four bytes, and the same again.
#[target_feature(enable = "neon")]
#[inline]
fn four_twice(input: &[i8; 4]) -> int8x8_t {
    let four = i32::from_le_bytes(input.map(i8::cast_unsigned));
    vreinterpret_s8_s32(vdup_n_s32(four))
}

/// A quarter of a block's codes, plus 8.
///
/// # Safety
/// A quarter of a block of 4 bits is there.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn four(block: *const u8) -> [int8x16_t; 8] {
    let low = vdupq_n_u8(15);
    let mut codes = [vdupq_n_s8(0); 8];
    for chunk in 0..4 {
        // SAFETY: the caller's promise.
        let both = unsafe { vld1q_u8(block.add(chunk * CHUNK_BYTES)) };
        codes[chunk] = vreinterpretq_s8_u8(vandq_u8(both, low));
        codes[chunk + 4] = vreinterpretq_s8_u8(vshrq_n_u8::<4>(both));
    }
    codes
}

/// A quarter of a block's codes.
///
/// # Safety
/// A quarter of a block of 8 bits is there.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn eight(block: *const u8) -> [int8x16_t; 8] {
    let mut codes = [vdupq_n_s8(0); 8];
    for (chunk, codes) in codes.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *codes = unsafe { vld1q_s8(block.add(chunk * CHUNK_BYTES).cast()) };
    }
    codes
}
