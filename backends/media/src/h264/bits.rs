//! Bits of a NAL unit (H.264 7.2 and 9.1).

use crate::MediaError;

/// Reads the payload of a NAL unit bit by bit, skipping emulation prevention bytes.
pub(super) struct BitReader<'a> {
    what: &'static str,
    rest: std::slice::Iter<'a, u8>,
    zeros_before: u32,
    byte: u8,
    bits_left: u32,
}

impl<'a> BitReader<'a> {
    /// `payload` follows the NAL unit header; `what` names it in errors.
    pub(super) fn new(what: &'static str, payload: &'a [u8]) -> Self {
        Self {
            what,
            rest: payload.iter(),
            zeros_before: 0,
            byte: 0,
            bits_left: 0,
        }
    }

    pub(super) fn flag(&mut self) -> Result<bool, MediaError> {
        if self.bits_left == 0 {
            self.byte = self
                .next_byte()
                .ok_or(MediaError::corrupt(self.what, "is shorter than its fields"))?;
            self.bits_left = 8;
        }
        self.bits_left -= 1;
        Ok(self.byte >> self.bits_left & 1 == 1)
    }

    fn next_byte(&mut self) -> Option<u8> {
        let mut byte = *self.rest.next()?;
        if self.zeros_before >= 2 && byte == 3 {
            self.zeros_before = 0;
            byte = *self.rest.next()?;
        }
        self.zeros_before = if byte == 0 { self.zeros_before + 1 } else { 0 };
        Some(byte)
    }

    /// An unsigned number of `count` bits, at most 32.
    pub(super) fn bits(&mut self, count: u32) -> Result<u32, MediaError> {
        debug_assert!(count <= 32, "a field of {count} bits");
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Ok(value)
    }

    pub(super) fn u8(&mut self) -> Result<u8, MediaError> {
        self.bits(8).map(|value| value as u8)
    }

    /// An Exp-Golomb code, `ue(v)`.
    pub(super) fn unsigned(&mut self) -> Result<u32, MediaError> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(MediaError::corrupt(self.what, "has a number above 32 bits"));
            }
        }
        Ok((1 << zeros) - 1 + self.bits(zeros)?)
    }

    /// A signed Exp-Golomb code, `se(v)`.
    pub(super) fn signed(&mut self) -> Result<i32, MediaError> {
        let code = self.unsigned()?;
        let magnitude = (code / 2 + code % 2) as i32;
        Ok(if code % 2 == 1 { magnitude } else { -magnitude })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_match_table_9_2() {
        // 1 010 011 00100 00101 then se(v): 010 011
        let mut bits = BitReader::new(
            "a test",
            &[0b1010_0110, 0b0100_0010, 0b1010_0111, 0b0000_0000],
        );
        let unsigned: Vec<u32> = (0..5).map(|_| bits.unsigned().expect("a code")).collect();
        assert_eq!(unsigned, [0, 1, 2, 3, 4]);
        assert_eq!(bits.signed().expect("a code"), 1);
        assert_eq!(bits.signed().expect("a code"), -1);
    }

    #[test]
    fn emulation_prevention_is_skipped() {
        let mut bits = BitReader::new("a test", &[0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 2]);
        let bytes: Vec<u8> = std::iter::from_fn(|| bits.u8().ok()).collect();
        assert_eq!(bytes, [0, 0, 1, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn endless_zeros_are_refused() {
        assert!(BitReader::new("a test", &[0; 3]).unsigned().is_err());
        assert!(BitReader::new("a test", &[0; 64]).unsigned().is_err());
    }
}
