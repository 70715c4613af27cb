//! Block encodings of ggml tensors and their dequantisation to f32.
//!
//! Layouts are those of ggml's `block_*` structures: scales are IEEE f16, and the two
//! nibbles of a byte are half a block apart.

use half::{bf16, f16};

/// Element encodings this reader understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgmlType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// 32 × 4 bits around a scale.
    Q4_0,
    /// 32 × 4 bits, scale and minimum.
    Q4_1,
    /// 32 × 5 bits around a scale.
    Q5_0,
    /// 32 × 5 bits, scale and minimum.
    Q5_1,
    /// 32 × 8 bits around a scale.
    Q8_0,
    /// 256 × 6 bits, 16 sub-block scales and a common scale.
    Q6K,
}

impl GgmlType {
    /// The type with ggml's number `number`, if understood.
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Elements per block and bytes per block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q6K => (256, 210),
        }
    }

    /// Decodes whole blocks. `encoded` holds exactly the blocks of `out`.
    pub(super) fn dequantise(self, encoded: &[u8], out: &mut [f32]) {
        let (block_elements, block_bytes) = self.block();
        debug_assert_eq!(
            encoded.len() / block_bytes * block_elements,
            out.len(),
            "callers size both sides from the same row count"
        );
        let decode: fn(&[u8], &mut [f32]) = match self {
            Self::F32 => |block, out| {
                out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            },
            Self::F16 => |block, out| out[0] = half_at(block, 0),
            Self::Bf16 => |block, out| out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            Self::Q4_0 => q4_0,
            Self::Q4_1 => q4_1,
            Self::Q5_0 => q5_0,
            Self::Q5_1 => q5_1,
            Self::Q8_0 => q8_0,
            Self::Q6K => q6_k,
        };
        for (block, values) in encoded
            .chunks_exact(block_bytes)
            .zip(out.chunks_exact_mut(block_elements))
        {
            decode(block, values);
        }
    }
}

fn half_at(bytes: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([bytes[offset], bytes[offset + 1]]).to_f32()
}

fn q4_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (index, byte) in block[2..].iter().enumerate() {
        out[index] = f32::from(i16::from(byte & 15) - 8) * scale;
        out[index + 16] = f32::from(i16::from(byte >> 4) - 8) * scale;
    }
}

fn q4_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (index, byte) in block[4..].iter().enumerate() {
        out[index] = f32::from(byte & 15) * scale + minimum;
        out[index + 16] = f32::from(byte >> 4) * scale + minimum;
    }
}

/// The fifth bits of elements `index` and `index + 16`, moved to bit 4.
fn fifth_bits(high: &[u8], index: usize) -> (u8, u8) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let bit = |element: usize| ((high >> element & 1) << 4) as u8;
    (bit(index), bit(index + 16))
}

fn q5_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (index, byte) in block[6..].iter().enumerate() {
        let (low, high) = fifth_bits(&block[2..6], index);
        out[index] = f32::from(i16::from(byte & 15 | low) - 16) * scale;
        out[index + 16] = f32::from(i16::from(byte >> 4 | high) - 16) * scale;
    }
}

fn q5_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (index, byte) in block[8..].iter().enumerate() {
        let (low, high) = fifth_bits(&block[4..8], index);
        out[index] = f32::from(byte & 15 | low) * scale + minimum;
        out[index + 16] = f32::from(byte >> 4 | high) * scale + minimum;
    }
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (value, byte) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(byte.cast_signed()) * scale;
    }
}

/// Bytes 0..128 hold low nibbles, 128..192 the upper bit pairs, 192..208 sub-block scales.
/// Each half of the block holds four runs of 32 elements that share one upper-bit byte.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 208);
    for (half, values) in out.chunks_exact_mut(128).enumerate() {
        let low = &block[half * 64..][..64];
        let upper = &block[128 + half * 32..][..32];
        let scales = &block[192 + half * 8..][..8];
        for (element, value) in values.iter_mut().enumerate() {
            let (run, lane) = (element / 32, element % 32);
            let byte = low[run % 2 * 32 + lane];
            let nibble = if run < 2 { byte & 15 } else { byte >> 4 };
            let code = nibble | (upper[lane] >> (2 * run) & 3) << 4;
            let sub_scale = f32::from(scales[run * 2 + lane / 16].cast_signed());
            *value = scale * sub_scale * f32::from(i16::from(code) - 32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        hexadecimal
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| {
                let digits = std::str::from_utf8(pair).expect("the blocks are ASCII");
                u8::from_str_radix(digits, 16).expect("the blocks are hexadecimal")
            })
            .collect()
    }

    /// Random blocks with the values that ggml's own Python package gives for them:
    /// elements 0..8 and 16..20 of small blocks, every sixteenth of the large one.
    #[test]
    fn blocks_decode_to_what_ggml_makes_of_them() {
        let cases: [(GgmlType, &str, &[f32]); 6] = [
            (
                GgmlType::Q4_0,
                "00388b4ae5f1a94106a0956a26afbccdafe5",
                &[
                    1.5, 1.0, -1.5, -3.5, 0.5, -3.5, -1.0, -4.0, 0.0, -2.0, 3.0, 3.5,
                ],
            ),
            (
                GgmlType::Q4_1,
                "003400be62f90a945f5693c642276ad5ab2da739",
                &[
                    -1.0, 0.75, 1.0, -0.5, 2.25, 0.0, -0.75, 0.0, 0.0, 2.25, -1.5, 0.75,
                ],
            ),
            (
                GgmlType::Q5_0,
                "00384551370e99b2d74c3427fa48d732a1df70aca1e9",
                &[
                    4.5, -7.0, 3.5, -2.0, -6.0, -4.5, 5.0, -4.0, 4.5, 5.5, 6.5, -6.0,
                ],
            ),
            (
                GgmlType::Q5_1,
                "003400be26115901dd06f27f8f063cd25e19a621f9bd0ccc",
                &[
                    1.75, 4.0, 3.0, 2.25, 2.25, 4.0, 1.5, -1.0, 5.75, -1.5, 2.25, 4.25,
                ],
            ),
            (
                GgmlType::Q8_0,
                "003021397c1ec795ca7748dc03d17a88934d85527357a2e64647f03e2fb81f223f41",
                &[
                    4.125, 7.125, 15.5, 3.75, -7.125, -13.375, -6.75, 14.875, -15.375, 10.25,
                    14.375, 10.875,
                ],
            ),
            (
                GgmlType::Q6K,
                "92c58efd5185f0711ef7677a1f132a818d882195a100b28d6b236b82481bd9fe630dc3ce3be4ebca\
             b72f45b35223479f6e794d57037e2cfde9e15a7789781e3721a557d8e5a703296dcb81db3f65cf9c\
             1bdc5d1d8fc83f0b0bb4db71be572209851d3d24f4c0cf83fe4363f82f4759778955f6ced681cbea\
             7179ced2c8f814a13472ff70ce369d8385452a44f318337f08cd1e614f235d3f83bc45fee9ee0403\
             a79be118544441317c9311f85e0429b19f7ec0e156f65a3322e791b880ee995e3f0d307d2fbaf400\
             693a179e0d027ed40028",
                &[
                    -59.0625, -7.71875, -19.5, 54.6875, 36.71875, 52.5, 9.75, -0.0, 55.78125,
                    48.9375, -7.90625, -76.5625, 0.8125, -0.9375, 31.5, -11.0,
                ],
            ),
        ];
        for (ggml_type, block, expected) in cases {
            let mut values = vec![0.0; ggml_type.block().0];
            ggml_type.dequantise(&bytes(block), &mut values);
            let found: Vec<f32> = match ggml_type {
                GgmlType::Q6K => values.iter().step_by(16).copied().collect(),
                _ => [&values[..8], &values[16..20]].concat(),
            };
            assert_eq!(found, expected, "{ggml_type:?}");
        }
    }

    #[test]
    fn floats_of_every_width_decode() {
        let decode = |ggml_type: GgmlType, bytes: &[u8]| {
            let mut value = [0.0];
            ggml_type.dequantise(bytes, &mut value);
            value[0]
        };
        assert_eq!(decode(GgmlType::F32, &1.5f32.to_le_bytes()), 1.5);
        assert_eq!(decode(GgmlType::F16, &[0x00, 0xbe]), -1.5);
        assert_eq!(decode(GgmlType::Bf16, &[0xc0, 0x3f]), 1.5);
    }
}
