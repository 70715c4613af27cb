//! What decoders are told before the first packet, parsed, so that nothing of a file is copied unread.

use super::{OpusHead, StreamInfo, VorbisHead};
use crate::Codec;

/// Parsed from one container, and written anew into another.
#[derive(Debug, Clone)]
pub(crate) enum SoundConfig {
    Esds(Esds),
    Opus(OpusHead),
    Flac(StreamInfo),
    /// `ALACSpecificConfig` (24 bytes, in the order of the format's description) without a channel layout.
    Alac([u8; 24]),
    /// `AC3SpecificBox` (ETSI TS 102 366, F.4).
    Ac3([u8; 3]),
    /// `EC3SpecificBox` (ETSI TS 102 366, F.6).
    Eac3(Vec<u8>),
    Vorbis(VorbisHead),
}

/// What of an `esds` box (ISO/IEC 14496-14, 5.6) is kept.
#[derive(Debug, Clone)]
pub(crate) struct Esds {
    /// `objectTypeIndication` (ISO/IEC 14496-1, table 5).
    pub(crate) object_type: u8,
    /// In bytes, 24 bits.
    pub(crate) buffer_bytes: [u8; 3],
    pub(crate) bits_per_second_max: u32,
    pub(crate) bits_per_second: u32,
    /// `DecoderSpecificInfo`: `AudioSpecificConfig` of AAC, empty for MP3.
    pub(crate) specific: Vec<u8>,
}

impl Esds {
    /// Bytes of `DecoderSpecificInfo`, at most, so that every descriptor around it has a size of one byte.
    pub(crate) const SPECIFIC_BYTES_MAX: usize = 64;
    /// MPEG-4 audio.
    pub(crate) const AAC: u8 = 0x40;
    /// MPEG-2 AAC: Main, Low Complexity, Scaleable Sampling Rate.
    pub(crate) const AAC_MPEG2: [u8; 3] = [0x66, 0x67, 0x68];
    /// MPEG-2 and MPEG-1 audio, of which MP3 is layer 3.
    pub(crate) const MP3: [u8; 2] = [0x69, 0x6b];

    pub(crate) fn is_mp3(&self) -> bool {
        Self::MP3.contains(&self.object_type)
    }
}

impl SoundConfig {
    pub(crate) fn codec(&self) -> Codec {
        match self {
            Self::Esds(esds) if esds.is_mp3() => Codec::Mp3,
            Self::Esds(_) => Codec::Aac,
            Self::Opus(_) => Codec::Opus,
            Self::Flac(_) => Codec::Flac,
            Self::Alac(_) => Codec::Alac,
            Self::Ac3(_) => Codec::Ac3,
            Self::Eac3(_) => Codec::Eac3,
            Self::Vorbis(_) => Codec::Vorbis,
        }
    }
}
