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
