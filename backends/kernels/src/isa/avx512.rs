//! AVX-512 with VNNI: a tile's sixteen rows are one register, and four products of bytes one
//! instruction.
#![allow(unsafe_code, reason = "the door to AVX-512")]

use super::{Kernels, Sums};
use crate::{
    Score,
    attend::{self, Band, PARTS, Read, Singles, Write},
    float::{self, Quantised},
    layout::{Bits, Tile},
};
use half::f16;
use std::arch::x86_64::*;

/// Inputs that are multiplied together.
const TOGETHER: usize = 8;
const CHUNK_BYTES: usize = 64;

static KERNELS: Kernels = Kernels {
    name: "avx512-vnni",
    multiply,
    quantise,
    swiglu,
    router,
    scores,
    attend,
    attend_halves,
    keep_halves,
};

/// The kernels, if this processor can run them.
pub(super) fn kernels() -> Option<&'static Kernels> {
    let has = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma");
    has.then_some(&KERNELS)
}

// The functions of the table are reached through `kernels` only, which is what makes the calls
// below sound: the processor has been asked for all features that they name.

fn multiply(tile: Tile<'_>, inputs: &[&[Quantised]], sums: &mut [Sums]) {
    super::check(tile, inputs, sums);
    let (many, rest) = inputs.as_chunks::<TOGETHER>();
    let (many_sums, rest_sums) = sums.as_chunks_mut::<TOGETHER>();
    for (inputs, sums) in many.iter().zip(many_sums) {
        // SAFETY: the processor can; `check` has found all lengths to fit.
        unsafe { together(tile, inputs, sums) };
    }
    let (few, last) = rest.as_chunks::<2>();
    let (few_sums, last_sums) = rest_sums.as_chunks_mut::<2>();
    for (inputs, sums) in few.iter().zip(few_sums) {
        // SAFETY: as above.
        unsafe { together(tile, inputs, sums) };
    }
    for (input, sums) in last.iter().zip(last_sums) {
        // SAFETY: as above.
        unsafe { together(tile, &[*input], std::array::from_mut(sums)) };
    }
}

fn quantise(values: &[f32], out: &mut [Quantised]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn inner(values: &[f32], out: &mut [Quantised]) {
        float::quantise(values, out);
    }
    // SAFETY: the processor can.
    unsafe { inner(values, out) }
}

fn swiglu(gate: &Sums, up: &Sums, out: &mut Sums) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn inner(gate: &Sums, up: &Sums, out: &mut Sums) {
        float::swiglu(gate, up, out);
    }
    // SAFETY: the processor can.
    unsafe { inner(gate, up, out) }
}

fn router(input: &[f32], weight: &[f32], logits: &mut [f32]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn inner(input: &[f32], weight: &[f32], logits: &mut [f32]) {
        float::router(input, weight, logits);
    }
    // SAFETY: the processor can.
    unsafe { inner(input, weight, logits) }
}

fn attend(band: Band<'_, f32>, scores: &mut Vec<f32>, out: &mut [f32]) {
    attend_over::<Singles>(band, scores, out);
}

fn attend_halves(band: Band<'_, f16>, scores: &mut Vec<f32>, out: &mut [f32]) {
    attend_over::<Halves>(band, scores, out);
}

fn attend_over<R: Read>(band: Band<'_, R::Kept>, scores: &mut Vec<f32>, out: &mut [f32]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn inner<R: Read>(band: Band<'_, R::Kept>, scores: &mut Vec<f32>, out: &mut [f32]) {
        attend::attend::<R, 16, 4, 64>(band, scores, out);
    }
    // SAFETY: the processor can.
    unsafe { inner::<R>(band, scores, out) }
}

fn keep_halves(numbers: &[f32], kept: &mut [f16]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn inner(numbers: &[f32], kept: &mut [f16]) {
        attend::keep::<Halves>(numbers, kept);
    }
    // SAFETY: the processor can.
    unsafe { inner(numbers, kept) }
}

/// Halves of a cache.
struct Halves;

impl Read for Halves {
    type Kept = f16;

    #[inline(always)]
    fn read(kept: &[f16; PARTS]) -> [f32; PARTS] {
        let mut read = [0.0; PARTS];
        // SAFETY: sixteen halves are read, and sixteen singles written; the processor can, as this is
        // reached through the table only.
        unsafe {
            let halves = _mm256_loadu_si256(kept.as_ptr().cast());
            _mm512_storeu_ps(read.as_mut_ptr(), _mm512_cvtph_ps(halves));
        }
        read
    }
}

impl Write for Halves {
    #[inline(always)]
    fn write(numbers: [f32; PARTS]) -> [f16; PARTS] {
        let mut kept = [f16::ZERO; PARTS];
        // SAFETY: sixteen singles are read, and sixteen halves written; the processor can, likewise.
        unsafe {
            let singles = _mm512_loadu_ps(numbers.as_ptr());
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(singles);
            _mm256_storeu_si256(kept.as_mut_ptr().cast(), halves);
        }
        kept
    }
}

fn scores(score: Score, values: &mut [f32]) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn inner(score: Score, values: &mut [f32]) {
        float::scores(score, values);
    }
    // SAFETY: the processor can.
    unsafe { inner(score, values) }
}

/// # Safety
/// The processor has the features, and [`check`](super::check) holds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn together<const N: usize>(
    tile: Tile<'_>,
    inputs: &[&[Quantised]; N],
    sums: &mut [Sums; N],
) {
    // SAFETY: offsets below stay inside: a block has four or eight chunks of 64 bytes and 32 bytes
    // of scales, an input as many blocks as the tile, a sum 16 floats. Loads need no alignment.
    unsafe {
        let mut total = sums.each_ref().map(|sum| _mm512_loadu_ps(sum.as_ptr()));
        for block in 0..tile.blocks() {
            super::ahead(tile, block);
            let [codes, scales] = tile.offsets(block).map(|at| tile.bytes().as_ptr().add(at));
            let (codes, zero) = match tile.bits() {
                Bits::Four => (four(codes), 8),
                Bits::Eight => (eight(codes), 128),
            };
            let scales = _mm512_cvtph_ps(_mm256_loadu_si256(scales.cast()));
            for (total, input) in total.iter_mut().zip(inputs) {
                let input = input.get_unchecked(block);
                let four = input.codes.as_ptr().cast::<i32>();
                let mut products = _mm512_set1_epi32(-zero * input.sum);
                for (chunk, codes) in codes.iter().enumerate() {
                    let input = _mm512_set1_epi32(four.add(chunk).read_unaligned());
                    products = _mm512_dpbusd_epi32(products, *codes, input);
                }
                let scales = _mm512_mul_ps(scales, _mm512_set1_ps(input.scale));
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scales, *total);
            }
        }
        for (sum, total) in sums.iter_mut().zip(total) {
            _mm512_storeu_ps(sum.as_mut_ptr(), total);
        }
    }
}

/// A block's codes plus 8.
///
/// # Safety
/// A block of 4 bits is there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn four(block: *const u8) -> [__m512i; 8] {
    let low = _mm512_set1_epi8(15);
    let mut codes = [_mm512_setzero_si512(); 8];
    for chunk in 0..4 {
        // SAFETY: the caller's promise.
        let both = unsafe { _mm512_loadu_si512(block.add(chunk * CHUNK_BYTES).cast()) };
        codes[chunk] = _mm512_and_si512(both, low);
        codes[chunk + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
    codes
}

/// A block's codes plus 128.
///
/// # Safety
/// A block of 8 bits is there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn eight(block: *const u8) -> [__m512i; 8] {
    let sign = _mm512_set1_epi8(-128);
    let mut codes = [_mm512_setzero_si512(); 8];
    for (chunk, codes) in codes.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let signed = unsafe { _mm512_loadu_si512(block.add(chunk * CHUNK_BYTES).cast()) };
        *codes = _mm512_xor_si512(signed, sign);
    }
    codes
}
