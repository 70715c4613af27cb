//! Protobuf written by hand, for messages that the codec would never write.

use mote_wire::Frame;
use std::os::fd::OwnedFd;

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame's outer message with request id 7.
    pub fn request() -> Self {
        Self::new().varint(1, 7)
    }

    fn push(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn varint(mut self, field: u64, value: u64) -> Self {
        self.push(field << 3);
        self.push(value);
        self
    }

    pub fn bytes(mut self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.push(field << 3 | 2);
        self.push(bytes.as_ref().len() as u64);
        self.0.extend(bytes.as_ref());
        self
    }

    pub fn message(self, field: u64, message: Self) -> Self {
        self.bytes(field, message.0)
    }

    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.push(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn frame(self) -> Frame {
        self.frame_with(Vec::new())
    }

    pub fn frame_with(self, fds: Vec<OwnedFd>) -> Frame {
        Frame { bytes: self.0, fds }
    }
}
