//! AVX2 with FMA and F16C: half a tile is eight rows in one register.
#![allow(unsafe_code, reason = "the door to AVX2")]

use super::{Kernels, Sums};
use crate::{
    Score,
    attend::{self, Band, PARTS, Read, Singles, Write},
    float::{self, Quantised},
    layout::{Bits, Tile},
};
use half::f16;
use std::arch::x86_64::*;

/// Inputs that are multiplied together: their sums and a block's codes fill the registers.
const TOGETHER: usize = 4;
/// Rows in a register.
const LANES: usize = 8;
/// Bytes of a chunk of a whole tile, and of half.
const CHUNK_BYTES: usize = 64;
const HALF_BYTES: usize = 32;

static KERNELS: Kernels = Kernels {
    name: "avx2",
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
    let has = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    has.then_some(&KERNELS)
}

// The functions of the table are reached through `kernels` only, which is what makes the calls
// below sound: the processor has been asked for AVX2, FMA and F16C.

fn multiply(tile: Tile<'_>, inputs: &[&[Quantised]], sums: &mut [Sums]) {
    super::check(tile, inputs, sums);
    let (four, last) = inputs.as_chunks::<TOGETHER>();
    let (four_sums, last_sums) = sums.as_chunks_mut::<TOGETHER>();
    for (inputs, sums) in four.iter().zip(four_sums) {
        // SAFETY: the processor can; `check` has found all lengths to fit.
        unsafe { together(tile, inputs, sums) };
    }
    for (input, sums) in last.iter().zip(last_sums) {
        // SAFETY: as above.
        unsafe { together(tile, &[*input], std::array::from_mut(sums)) };
    }
}

fn quantise(values: &[f32], out: &mut [Quantised]) {
    #[target_feature(enable = "avx2,fma")]
    fn inner(values: &[f32], out: &mut [Quantised]) {
        float::quantise(values, out);
    }
    // SAFETY: the processor can.
    unsafe { inner(values, out) }
}

fn swiglu(gate: &Sums, up: &Sums, out: &mut Sums) {
    #[target_feature(enable = "avx2,fma")]
    fn inner(gate: &Sums, up: &Sums, out: &mut Sums) {
        float::swiglu(gate, up, out);
    }
    // SAFETY: the processor can.
    unsafe { inner(gate, up, out) }
}

fn router(input: &[f32], weight: &[f32], logits: &mut [f32]) {
    #[target_feature(enable = "avx2,fma")]
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
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner<R: Read>(band: Band<'_, R::Kept>, scores: &mut Vec<f32>, out: &mut [f32]) {
        attend::attend::<R, 8, 2, 32>(band, scores, out);
    }
    // SAFETY: the processor can.
    unsafe { inner::<R>(band, scores, out) }
}

fn keep_halves(numbers: &[f32], kept: &mut [f16]) {
    #[target_feature(enable = "avx2,fma,f16c")]
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
        let eights = kept.as_chunks::<LANES>().0.iter();
        for (kept, read) in eights.zip(read.as_chunks_mut::<LANES>().0) {
            // SAFETY: eight halves are read, and eight singles written; the processor can, as this is
            // reached through the table only.
            unsafe {
                let halves = _mm_loadu_si128(kept.as_ptr().cast());
                _mm256_storeu_ps(read.as_mut_ptr(), _mm256_cvtph_ps(halves));
            }
        }
        read
    }
}

impl Write for Halves {
    #[inline(always)]
    fn write(numbers: [f32; PARTS]) -> [f16; PARTS] {
        let mut kept = [f16::ZERO; PARTS];
        let eights = numbers.as_chunks::<LANES>().0.iter();
        for (numbers, kept) in eights.zip(kept.as_chunks_mut::<LANES>().0) {
            // SAFETY: eight singles are read, and eight halves written; the processor can, likewise.
            unsafe {
                let singles = _mm256_loadu_ps(numbers.as_ptr());
                let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(singles);
                _mm_storeu_si128(kept.as_mut_ptr().cast(), halves);
            }
        }
        kept
    }
}

fn scores(score: Score, values: &mut [f32]) {
    #[target_feature(enable = "avx2,fma")]
    fn inner(score: Score, values: &mut [f32]) {
        float::scores(score, values);
    }
    // SAFETY: the processor can.
    unsafe { inner(score, values) }
}

/// One half of the tile after the other, for `N` inputs at once.
///
/// # Safety
/// The processor has the features, and [`check`](super::check) holds.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn together<const N: usize>(
    tile: Tile<'_>,
    inputs: &[&[Quantised]; N],
    sums: &mut [Sums; N],
) {
    for half in 0..2 {
        // SAFETY: the caller's promise.
        unsafe {
            match tile.bits() {
                Bits::Four => half_of_four(tile, inputs, sums, half),
                Bits::Eight => half_of_eight(tile, inputs, sums, half),
            }
        }
    }
}

/// # Safety
/// As for [`together`]; `half` is 0 or 1.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn half_of_four<const N: usize>(
    tile: Tile<'_>,
    inputs: &[&[Quantised]; N],
    sums: &mut [Sums; N],
    half: usize,
) {
    let low = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    // SAFETY: offsets below stay inside: a block has four chunks of 64 bytes and 32 bytes of
    // scales, an input as many blocks as the tile, a sum 16 floats. Loads need no alignment.
    unsafe {
        let mut total = sums
            .each_ref()
            .map(|sum| _mm256_loadu_ps(sum.as_ptr().add(half * LANES)));
        for block in 0..tile.blocks() {
            if half == 0 {
                super::ahead(tile, block);
            }
            let [at, scales] = halves(tile, block, half);
            let mut codes = [_mm256_setzero_si256(); 8];
            for chunk in 0..4 {
                let both = _mm256_loadu_si256(at.add(chunk * CHUNK_BYTES).cast());
                codes[chunk] = _mm256_and_si256(both, low);
                codes[chunk + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
            }
            let scales = _mm256_cvtph_ps(_mm_loadu_si128(scales.cast()));
            for (total, input) in total.iter_mut().zip(inputs) {
                let input = input.get_unchecked(block);
                let four = input.codes.as_ptr().cast::<i32>();
                // At most 8 × 2 × 15 × 127 = 30,480: no sum of 16 bits overflows.
                let mut products = _mm256_setzero_si256();
                for (chunk, codes) in codes.iter().enumerate() {
                    let input = _mm256_set1_epi32(four.add(chunk).read_unaligned());
                    products = _mm256_add_epi16(products, _mm256_maddubs_epi16(*codes, input));
                }
                let products = _mm256_madd_epi16(products, ones);
                let products = _mm256_sub_epi32(products, _mm256_set1_epi32(8 * input.sum));
                *total = add(*total, products, scales, input.scale);
            }
        }
        for (sum, total) in sums.iter_mut().zip(total) {
            _mm256_storeu_ps(sum.as_mut_ptr().add(half * LANES), total);
        }
    }
}

/// # Safety
/// As for [`together`]; `half` is 0 or 1.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn half_of_eight<const N: usize>(
    tile: Tile<'_>,
    inputs: &[&[Quantised]; N],
    sums: &mut [Sums; N],
    half: usize,
) {
    let ones = _mm256_set1_epi16(1);
    // SAFETY: as above, with eight chunks to a block.
    unsafe {
        let mut total = sums
            .each_ref()
            .map(|sum| _mm256_loadu_ps(sum.as_ptr().add(half * LANES)));
        for block in 0..tile.blocks() {
            if half == 0 {
                super::ahead(tile, block);
            }
            let [at, scales] = halves(tile, block, half);
            let mut products = [_mm256_setzero_si256(); N];
            for chunk in 0..8 {
                let codes = _mm256_loadu_si256(at.add(chunk * CHUNK_BYTES).cast());
                let magnitudes = _mm256_abs_epi8(codes);
                for (products, input) in products.iter_mut().zip(inputs) {
                    let four = input.get_unchecked(block).codes.as_ptr().cast::<i32>();
                    let input = _mm256_set1_epi32(four.add(chunk).read_unaligned());
                    // The codes' signs go to the input: at most 2 × 128 × 127 = 32,512.
                    let input = _mm256_sign_epi8(input, codes);
                    let pairs = _mm256_maddubs_epi16(magnitudes, input);
                    *products = _mm256_add_epi32(*products, _mm256_madd_epi16(pairs, ones));
                }
            }
            let scales = _mm256_cvtph_ps(_mm_loadu_si128(scales.cast()));
            for ((total, input), products) in total.iter_mut().zip(inputs).zip(products) {
                *total = add(*total, products, scales, input.get_unchecked(block).scale);
            }
        }
        for (sum, total) in sums.iter_mut().zip(total) {
            _mm256_storeu_ps(sum.as_mut_ptr().add(half * LANES), total);
        }
    }
}

/// Where the codes and the scales of half a tile's rows in one block begin.
///
/// # Safety
/// The tile has such a block, and `half` is 0 or 1.
#[inline(always)]
unsafe fn halves(tile: Tile<'_>, block: usize, half: usize) -> [*const u8; 2] {
    let [codes, scales] = tile.offsets(block);
    let start = tile.bytes().as_ptr();
    // SAFETY: a block has chunks of 64 bytes and 16 scales of 2 bytes, all of them among the tile's bytes.
    unsafe {
        [
            start.add(codes + half * HALF_BYTES),
            start.add(scales + half * LANES * 2),
        ]
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add(total: __m256, products: __m256i, scales: __m256, scale: f32) -> __m256 {
    let scales = _mm256_mul_ps(scales, _mm256_set1_ps(scale));
    _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scales, total)
}
