//! Packets of a track, one at a time.

use super::{Packet, SoundTrack};
use crate::MediaError;

/// Goes from packet to packet; holds one of them.
pub(crate) struct PacketCursor {
    track: SoundTrack,
    next: usize,
    buffer: Vec<u8>,
}

impl PacketCursor {
    pub(crate) fn new(track: SoundTrack) -> Self {
        Self {
            track,
            next: 0,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn track(&self) -> &SoundTrack {
        &self.track
    }

    /// The packet that comes next.
    pub(crate) fn peek(&self) -> Option<Packet> {
        self.track.kept().get(self.next).copied()
    }

    /// Whether the next packet is the last one.
    pub(crate) fn is_last(&self) -> bool {
        self.next + 1 == self.track.kept().len()
    }

    /// Reads the next packet and goes on to the one behind it.
    pub(crate) fn read(&mut self) -> Result<Option<(Packet, &[u8])>, MediaError> {
        let Some(packet) = self.peek() else {
            return Ok(None);
        };
        self.buffer.resize(packet.bytes as usize, 0);
        let source = self.track.source();
        source.read_at(&mut self.buffer, packet.position, "a packet of sound")?;
        self.next += 1;
        Ok(Some((packet, &self.buffer)))
    }
}
