//! Bits of a header, most significant first.

use crate::MediaError;

/// Reads unsigned fields from the start of a payload.
pub(crate) struct Bits<'a> {
    what: &'static str,
    bytes: &'a [u8],
    /// In bits, from the start.
    position: usize,
}

impl<'a> Bits<'a> {
    /// `what` names the structure in errors.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            what,
            bytes,
            position: 0,
        }
    }

    pub(crate) fn flag(&mut self) -> Result<bool, MediaError> {
        let byte = self
            .bytes
            .get(self.position / 8)
            .ok_or(MediaError::corrupt(self.what, "is shorter than its fields"))?;
        let bit = byte >> (7 - self.position % 8) & 1;
        self.position += 1;
        Ok(bit == 1)
    }

    /// A number of `count` bits, at most 32.
    pub(crate) fn bits(&mut self, count: u32) -> Result<u32, MediaError> {
        debug_assert!(count <= 32, "a field of {count} bits");
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Ok(value)
    }

    pub(crate) fn skip(&mut self, count: u32) -> Result<(), MediaError> {
        (0..count).try_for_each(|_| self.flag().map(|_| ()))
    }
}
