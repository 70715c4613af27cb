//! Arithmetic on floats, written once and compiled for each instruction set.
//!
//! Every operation here is one that IEEE 754 defines to the last bit, and the order of sums is
//! written out, so that all instruction sets give the same bits: multiplication and addition are
//! fused where `mul_add` says so and nowhere else.

use crate::{
    Score,
    layout::{BLOCK, TILE_ROWS},
};

/// Numbers that are multiplied at once by the router.
const LANES: usize = 8;
/// Sums that each expert's logit is made of, so that they need not wait for each other.
const PARTS: usize = 4;
/// Adding this rounds a float of magnitude below 2²² to an integer, half to even, which the low
/// bits of the sum then hold.
const ROUND: f32 = 12_582_912.0;

/// Activations of one block: `code × scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Quantised {
    /// From −127 to 127.
    pub codes: [i8; BLOCK],
    /// What one step is worth.
    pub scale: f32,
    /// The codes' sum.
    pub sum: i32,
}

impl Quantised {
    /// Nothing but zeros.
    pub const ZERO: Self = Self {
        codes: [0; BLOCK],
        scale: 0.0,
        sum: 0,
    };
}

/// Quantises `values`, [`BLOCK`] to each of `out`: the largest magnitude becomes 127. A block with an
/// infinity or with what is no number gets a scale that is one, and so has no product that is a number.
#[inline(always)]
pub fn quantise(values: &[f32], out: &mut [Quantised]) {
    for (values, out) in values.as_chunks::<BLOCK>().0.iter().zip(out) {
        // Magnitudes are in the order of their bits, in which what is no number is beyond infinity;
        // the maximum of floats would pass over it.
        let mut largest = [0u32; LANES];
        for part in values.as_chunks::<LANES>().0 {
            for (largest, value) in largest.iter_mut().zip(part) {
                *largest = (*largest).max(value.abs().to_bits());
            }
        }
        let largest = largest.iter().fold(0, |most, &bits| most.max(bits));
        let largest = f32::from_bits(largest);
        if !largest.is_finite() {
            // The low bits of what is no number are anything, also no code.
            *out = Quantised {
                scale: largest,
                ..Quantised::ZERO
            };
            continue;
        }
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        for (code, value) in out.codes.iter_mut().zip(values) {
            *code = (value * inverse + ROUND).to_bits() as i8;
        }
        out.scale = largest / 127.0;
        out.sum = out.codes.iter().map(|&code| i32::from(code)).sum();
    }
}

/// `silu(gate) × up`, neuron by neuron.
#[inline(always)]
pub fn swiglu(gate: &[f32; TILE_ROWS], up: &[f32; TILE_ROWS], out: &mut [f32; TILE_ROWS]) {
    for ((gate, up), out) in gate.iter().zip(up).zip(out) {
        *out = gate / (1.0 + exp(-gate)) * up;
    }
}

/// e to the `x`, within 2 units in the last place where that is a normal number; below, 0 or as
/// good as, above, infinity or as good as.
///
/// Range reduction and polynomial as in Cephes' `expf` (Moshier, 1992).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Beyond these the power of two would have no exponent.
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let power = rounded - ROUND;
    // ln 2 in two parts, the first with few digits so that its product is exact.
    let rest = power.mul_add(-0.693_359_4, x);
    let rest = power.mul_add(2.121_944_4e-4, rest);
    let mut sum = 1.987_569_1e-4f32;
    for factor in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        sum = sum.mul_add(rest, factor);
    }
    let sum = sum.mul_add(rest * rest, rest) + 1.0;
    let exponent = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    sum * f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

/// `logits = input × weight`, where `weight` is `[input.len(), logits.len()]`.
#[inline(always)]
pub fn router(input: &[f32], weight: &[f32], logits: &mut [f32]) {
    let count = logits.len();
    let whole = count - count % LANES;
    for first in (0..whole).step_by(LANES) {
        let mut sums = [[0.0f32; LANES]; PARTS];
        for (inputs, rows) in input.chunks(PARTS).zip(weight.chunks(PARTS * count)) {
            for ((input, row), sum) in inputs.iter().zip(rows.chunks(count)).zip(&mut sums) {
                for (sum, weight) in sum.iter_mut().zip(&row[first..first + LANES]) {
                    *sum = input.mul_add(*weight, *sum);
                }
            }
        }
        for (lane, logit) in logits[first..first + LANES].iter_mut().enumerate() {
            *logit = (sums[0][lane] + sums[1][lane]) + (sums[2][lane] + sums[3][lane]);
        }
    }
    for (index, logit) in logits.iter_mut().enumerate().skip(whole) {
        *logit = sum_of(input.iter().zip(weight[index..].iter().step_by(count)));
    }
}

/// Makes scores of logits.
#[inline(always)]
pub fn scores(score: Score, values: &mut [f32]) {
    if score == Score::Sigmoid {
        values.iter_mut().for_each(|value| *value = sigmoid(*value));
        return;
    }
    let most = values
        .iter()
        .fold(f32::NEG_INFINITY, |most, &value| most.max(value));
    values
        .iter_mut()
        .for_each(|value| *value = exp(*value - most));
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}

/// 1 / (1 + e^−x)
#[inline(always)]
pub fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + exp(-value))
}

/// The sum of products, in the order that [`router`] sums all its logits in.
#[inline(always)]
fn sum_of<'a>(pairs: impl Iterator<Item = (&'a f32, &'a f32)>) -> f32 {
    let mut sums = [0.0f32; PARTS];
    for (index, (input, weight)) in pairs.enumerate() {
        sums[index % PARTS] = input.mul_add(*weight, sums[index % PARTS]);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_right_to_two_units_in_the_last_place() {
        for step in -87_000..88_000 {
            let x = step as f32 / 1000.0;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(
                (found - exact).abs() <= 2.4e-7 * exact,
                "{x}: {found} {exact}"
            );
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(f32::INFINITY) > 1e38);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_largest_activation_becomes_127_and_halves_go_to_even() {
        let mut values = [0.0; BLOCK];
        values[..6].copy_from_slice(&[-127.0, 1.5, 2.5, -0.5, 126.6, 3.0]);
        let mut quantised = [Quantised::ZERO];
        quantise(&values, &mut quantised);
        let [Quantised { codes, scale, sum }] = quantised;
        assert_eq!(codes[..7], [-127, 2, 2, 0, 127, 3, 0]);
        assert_eq!((scale, sum), (1.0, 7));
        quantise(&[0.0; BLOCK], &mut quantised);
        assert_eq!(quantised, [Quantised::ZERO]);
    }

    #[test]
    fn what_is_no_number_becomes_the_scale_and_never_a_code() {
        // Bits whose low ones would be −128.
        let low = f32::from_bits(0x7fc0_0080);
        for value in [f32::NAN, -f32::NAN, low, f32::INFINITY, f32::NEG_INFINITY] {
            for place in 0..BLOCK {
                let mut values = [1.0; BLOCK];
                values[place] = value;
                let mut quantised = [Quantised::ZERO];
                quantise(&values, &mut quantised);
                let [Quantised { codes, scale, sum }] = quantised;
                assert_eq!((codes, sum), ([0; BLOCK], 0));
                assert_eq!(scale.is_nan(), value.is_nan());
                assert!(!scale.is_finite());
            }
        }
    }

    #[test]
    fn logits_are_products_whatever_the_number_of_experts() {
        let input: Vec<f32> = (0..7).map(|index| index as f32).collect();
        for experts in 1..20 {
            let weight: Vec<f32> = (0..7 * experts).map(|index| index as f32).collect();
            let mut logits = vec![0.0; experts];
            router(&input, &weight, &mut logits);
            // Small integers: every order of sums is exact.
            for (expert, logit) in logits.iter().enumerate() {
                let exact: usize = (0..7).map(|index| index * (index * experts + expert)).sum();
                assert_eq!(*logit, exact as f32);
            }
        }
    }
}
