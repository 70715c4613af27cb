//! Opus as containers describe it (RFC 7845; "Encapsulation of Opus in ISO Base Media File Format"; "Matroska Media
//! Container Codec Specifications", `A_OPUS`).

use crate::MediaError;

/// Ticks per second of Opus's clock.
pub(crate) const TICK_RATE: u32 = 48_000;
/// Ticks in a packet, at most: 120 ms (RFC 6716, 3.2).
const PACKET_TICKS_MAX: u32 = 5760;
const MAGIC: &[u8] = b"OpusHead";
/// Fields before the channel mapping in WebM's head.
const HEAD_BYTES: usize = 19;
/// The same in `dOps`.
const BOX_BYTES: usize = 11;

/// The identification header (RFC 7845, 5.1).
#[derive(Debug, Clone)]
pub(crate) struct OpusHead {
    pub(crate) channels: u8,
    /// What decoders drop at the start, in ticks of 1/48,000 s.
    pub(crate) pre_skip: u16,
    /// Of what was encoded; only told.
    input_rate: u32,
    /// In 1/256 dB.
    gain: i16,
    family: u8,
    /// Streams, coupled ones, and the stream of each channel; empty for family 0.
    mapping: Vec<u8>,
}

impl OpusHead {
    /// `CodecPrivate` in WebM: little-endian fields.
    pub(crate) fn from_webm(head: &[u8]) -> Result<Self, MediaError> {
        let Some((&fields, mapping)) = head.split_first_chunk::<HEAD_BYTES>() else {
            return Err(refused("is shorter than its fields"));
        };
        let [.., version, channels, a, b, c, d, e, f, g, h, family] = fields;
        // Versions below 16 are compatible.
        if !fields.starts_with(MAGIC) || version & 0xf0 != 0 {
            return Err(refused("is of an unknown version"));
        }
        Self {
            channels,
            pre_skip: u16::from_le_bytes([a, b]),
            input_rate: u32::from_le_bytes([c, d, e, f]),
            gain: i16::from_le_bytes([g, h]),
            family,
            mapping: Vec::new(),
        }
        .with_mapping(mapping)
    }

    /// Payload of `dOps` in MP4: big-endian fields.
    pub(crate) fn from_mp4(payload: &[u8]) -> Result<Self, MediaError> {
        let Some((&fields, mapping)) = payload.split_first_chunk::<BOX_BYTES>() else {
            return Err(refused("is shorter than its fields"));
        };
        let [version, channels, a, b, c, d, e, f, g, h, family] = fields;
        if version != 0 {
            return Err(refused("is of an unknown version"));
        }
        Self {
            channels,
            pre_skip: u16::from_be_bytes([a, b]),
            input_rate: u32::from_be_bytes([c, d, e, f]),
            gain: i16::from_be_bytes([g, h]),
            family,
            mapping: Vec::new(),
        }
        .with_mapping(mapping)
    }

    /// The mapping of families other than 0 (RFC 7845, 5.1.1).
    fn with_mapping(mut self, table: &[u8]) -> Result<Self, MediaError> {
        if self.channels == 0 {
            return Err(refused("has no channels"));
        }
        if self.family == 0 {
            return match self.channels {
                1 | 2 => Ok(self),
                _ => Err(refused("has too many channels for its mapping")),
            };
        }
        let table = table
            .get(..2 + usize::from(self.channels))
            .ok_or(refused("is shorter than its fields"))?;
        let &[streams, coupled, ref channels @ ..] = table else {
            return Err(refused("is shorter than its fields"));
        };
        let decoded = u16::from(streams) + u16::from(coupled);
        let is_there = |&channel: &u8| channel == u8::MAX || u16::from(channel) < decoded;
        if streams == 0 || coupled > streams || decoded > 255 || !channels.iter().all(is_there) {
            return Err(refused("has an impossible mapping"));
        }
        self.mapping = table.to_vec();
        Ok(self)
    }

    /// `CodecPrivate`, with another pre-skip.
    pub(crate) fn to_webm(&self, pre_skip: u16) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&[1, self.channels]);
        head.extend_from_slice(&pre_skip.to_le_bytes());
        head.extend_from_slice(&self.input_rate.to_le_bytes());
        head.extend_from_slice(&self.gain.to_le_bytes());
        head.push(self.family);
        head.extend_from_slice(&self.mapping);
        head
    }

    /// Payload of `dOps`, with another pre-skip.
    pub(crate) fn to_mp4(&self, pre_skip: u16) -> Vec<u8> {
        let mut payload = vec![0, self.channels];
        payload.extend_from_slice(&pre_skip.to_be_bytes());
        payload.extend_from_slice(&self.input_rate.to_be_bytes());
        payload.extend_from_slice(&self.gain.to_be_bytes());
        payload.push(self.family);
        payload.extend_from_slice(&self.mapping);
        payload
    }
}

fn refused(why: &'static str) -> MediaError {
    MediaError::corrupt("the head of Opus", why)
}

/// Ticks in a packet, by its first two bytes (RFC 6716, 3.1 and 3.2.5).
pub(crate) fn packet_ticks(packet: &[u8]) -> Option<u32> {
    let &toc = packet.first()?;
    let config = usize::from(toc >> 3);
    let frame_ticks = match config {
        ..12 => [480, 960, 1920, 2880][config % 4],
        12..16 => [480, 960][config % 2],
        _ => [120, 240, 480, 960][config % 4],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    let ticks = frames * frame_ticks;
    (1..=PACKET_TICKS_MAX).contains(&ticks).then_some(ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_tell_their_length() {
        // SILK 10 and 60 ms, hybrid 20 ms, CELT 2.5 and 20 ms; two frames; six of 20 ms; none; too many.
        for (packet, ticks) in [
            (&[0_u8][..], Some(480)),
            (&[3 << 3], Some(2880)),
            (&[13 << 3], Some(960)),
            (&[16 << 3], Some(120)),
            (&[31 << 3], Some(960)),
            (&[31 << 3 | 1], Some(1920)),
            (&[31 << 3 | 2], Some(1920)),
            (&[31 << 3 | 3, 0xc6], Some(5760)),
            (&[31 << 3 | 3, 0], None),
            (&[31 << 3 | 3, 7], None),
            (&[31 << 3 | 3], None),
            (&[], None),
        ] {
            assert_eq!(packet_ticks(packet), ticks, "{packet:?}");
        }
    }

    #[test]
    fn heads_are_the_same_in_either_container() {
        for (family, mapping) in [(0, &[][..]), (1, &[4, 2, 0, 4, 1, 2, 3, 5][..])] {
            let head = OpusHead {
                channels: if family == 0 { 2 } else { 6 },
                pre_skip: 312,
                input_rate: 44_100,
                gain: -300,
                family,
                mapping: mapping.to_vec(),
            };
            let webm = head.to_webm(312);
            let mp4 = head.to_mp4(312);
            let from_webm = OpusHead::from_webm(&webm).expect("a head");
            assert_eq!(from_webm.to_mp4(312), mp4);
            let from_mp4 = OpusHead::from_mp4(&mp4).expect("a head");
            assert_eq!(from_mp4.to_webm(312), webm);
            assert_eq!((from_mp4.pre_skip, from_mp4.gain), (312, -300));
            for cut in 0..mp4.len() {
                assert!(OpusHead::from_mp4(&mp4[..cut]).is_err(), "{cut}");
            }
            for cut in 0..webm.len() {
                assert!(OpusHead::from_webm(&webm[..cut]).is_err(), "{cut}");
            }
        }
        for lie in [
            [0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0],
            [0, 3, 1, 2, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(OpusHead::from_mp4(&lie).is_err());
        }
        for mapping in [[0, 0, 0], [1, 2, 0], [1, 0, 1]] {
            let lie = [&[0, 1, 1, 2, 0, 0, 0, 0, 0, 0, 1], &mapping[..]].concat();
            assert!(OpusHead::from_mp4(&lie).is_err(), "{mapping:?}");
        }
    }
}
