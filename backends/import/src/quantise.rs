//! Weight quantisation with ggml's arithmetic, in the layout of ONNX Runtime's block-wise
//! kernels: unsigned codes around a zero point of half the range, one scale per 32 elements.
//!
//! Scales are rounded to f16 after the codes are chosen, as ggml's Q8_0 and Q4_0 do, so the
//! same weights give the same numbers here and in llama.cpp.

use half::f16;
pub use mote_kernels::{BLOCK, Bits};

use crate::ImportError;

/// How a weight matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// 8-bit codes, zero point 128, block of 32 (ggml Q8_0).
    #[default]
    Int8,
    /// 4-bit codes, zero point 8, block of 32 (ggml Q4_0).
    Int4,
    /// IEEE half on disk; kernels of the CPU compute with singles made of them at load.
    F16,
    /// IEEE single, for checks.
    F32,
}

impl Storage {
    /// Bits per code; `None` for floats.
    pub fn code_bits(self) -> Option<Bits> {
        match self {
            Self::Int8 => Some(Bits::Eight),
            Self::Int4 => Some(Bits::Four),
            Self::F16 | Self::F32 => None,
        }
    }

    /// The name used in manifests: `int8`, `int4`, `f16` or `f32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }
}

/// Like [`quantise`], but appends one code per element, its zero at 0.
pub(crate) fn quantise_signed(
    bits: Bits,
    values: &[f32],
    (codes, scales): (&mut Vec<i8>, &mut Vec<f32>),
) {
    let mut stored = Vec::with_capacity(values.len());
    quantise(bits, values, (&mut stored, scales));
    let signed = |code: u8, zero: u8| code.wrapping_sub(zero).cast_signed();
    match bits {
        Bits::Eight => codes.extend(stored.iter().map(|&code| signed(code, 128))),
        Bits::Four => codes.extend(
            stored
                .iter()
                .flat_map(|&pair| [signed(pair & 15, 8), signed(pair >> 4, 8)]),
        ),
    }
}

/// Appends the codes and scales of `values`, whose length is a multiple of [`BLOCK`]. Codes of 8 bits
/// are a byte each; of two of 4 bits, the earlier one is in the low nibble. Callers have seen that all
/// values are [numbers](all_numbers).
pub(crate) fn quantise(bits: Bits, values: &[f32], (codes, scales): (&mut Vec<u8>, &mut Vec<f32>)) {
    debug_assert!(
        values.len().is_multiple_of(BLOCK),
        "callers check that rows are whole blocks"
    );
    for block in values.chunks_exact(BLOCK) {
        scales.push(match bits {
            Bits::Eight => eight(block, codes),
            Bits::Four => four(block, codes),
        });
    }
}

/// Refuses `values` of `tensor` among which is an infinity or what is no number: codes would be numbers.
pub(crate) fn all_numbers(tensor: &str, values: &[f32]) -> Result<(), ImportError> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    Err(ImportError::NoNumbers {
        tensor: tensor.to_owned(),
    })
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// What a scale is after storage as f16.
fn stored(scale: f32) -> f32 {
    f16::from_f32(scale).to_f32()
}

fn eight(block: &[f32], codes: &mut Vec<u8>) -> f32 {
    let largest = block.iter().fold(0f32, |max, value| max.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    // `round` is C's roundf: halves away from zero. The cast saturates.
    codes.extend(
        block
            .iter()
            .map(|value| ((value * inverse).round() + 128.0) as u8),
    );
    stored(scale)
}

fn four(block: &[f32], codes: &mut Vec<u8>) -> f32 {
    // The first value of largest magnitude keeps its sign and gets code 0.
    let extreme = block.iter().fold(0f32, |extreme, &value| {
        if value.abs() > extreme.abs() {
            value
        } else {
            extreme
        }
    });
    let scale = extreme / -8.0;
    let inverse = inverse(scale);
    let code = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    codes.extend(
        block
            .chunks_exact(2)
            .map(|pair| code(pair[0]) | code(pair[1]) << 4),
    );
    stored(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantised(bits: Bits, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        quantise(bits, values, (&mut codes, &mut scales));
        (codes, scales)
    }

    #[test]
    fn eight_bits_match_values_worked_out_by_hand() {
        let mut block = [0.0; BLOCK];
        block[..5].copy_from_slice(&[127.0, -127.0, 0.5, -0.5, 2.4]);
        let (codes, scales) = quantised(Bits::Eight, &block);
        assert_eq!(&codes[..6], &[255, 1, 129, 127, 130, 128]);
        assert_eq!(scales, [1.0]);
    }

    #[test]
    fn eight_bit_scales_are_rounded_to_f16_after_coding() {
        let mut block = [0.0; BLOCK];
        block[0] = 1.0;
        let (codes, scales) = quantised(Bits::Eight, &block);
        assert_eq!(codes[0], 255);
        // 1/127 = 0.0078740157…; the nearest f16 is 2^-7 × (1 + 8/1024).
        assert_eq!(scales, [0.0078125 * (1.0 + 8.0 / 1024.0)]);
    }

    #[test]
    fn four_bits_match_values_worked_out_by_hand() {
        let mut block = [0.0; BLOCK];
        block[..6].copy_from_slice(&[-8.0, 7.0, 3.4, -3.6, 8.0, 0.5]);
        let (codes, scales) = quantised(Bits::Four, &block);
        // -8 comes first, so the scale is +1 and +8 saturates at code 15.
        assert_eq!(scales, [1.0]);
        assert_eq!(&codes[..4], &[0xf0, 0x4b, 0x9f, 0x88]);
    }

    #[test]
    fn a_positive_extreme_makes_the_four_bit_scale_negative() {
        let mut block = [0.0; BLOCK];
        block[1] = 16.0;
        let (codes, scales) = quantised(Bits::Four, &block);
        assert_eq!(scales, [-2.0]);
        assert_eq!(codes[0], 0x08);
    }

    #[test]
    fn a_block_of_zeros_has_scale_zero_and_zero_point_codes() {
        assert_eq!(
            quantised(Bits::Eight, &[0.0; BLOCK]),
            (vec![128; 32], vec![0.0])
        );
        assert_eq!(
            quantised(Bits::Four, &[0.0; BLOCK]),
            (vec![0x88; 16], vec![0.0])
        );
    }
}
