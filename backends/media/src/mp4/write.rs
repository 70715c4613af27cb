//! Boxes in memory, to be written.

/// Builds boxes one inside the other, big-endian.
#[derive(Default)]
pub(super) struct BoxWriter {
    pub(super) buffer: Vec<u8>,
}

impl BoxWriter {
    pub(super) fn boxed(&mut self, name: &[u8; 4], content: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.zeros(4);
        self.bytes(name);
        content(self);
        let bytes = (self.buffer.len() - start) as u32;
        self.buffer[start..start + 4].copy_from_slice(&bytes.to_be_bytes());
    }

    pub(super) fn full_box(
        &mut self,
        name: &[u8; 4],
        version: u8,
        flags: u32,
        content: impl FnOnce(&mut Self),
    ) {
        self.boxed(name, |w| {
            w.u32(u32::from(version) << 24 | flags);
            content(w);
        });
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.buffer.resize(self.buffer.len() + count, 0);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.buffer.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u32s(&mut self, values: &[u32]) {
        values.iter().for_each(|&value| self.u32(value));
    }
}
