//! AAC as containers describe it (ISO/IEC 14496-3, 1.6.2).

use crate::MediaError;
use crate::bits::Bits;

/// Samples per second by `samplingFrequencyIndex`.
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000,
    7350,
];
const ESCAPED_RATE: u32 = 15;
const ESCAPED_TYPE: u32 = 31;
/// `audioObjectType` of Main, Low Complexity, Scalable Sample Rate and Long Term Prediction.
const PLAIN_TYPES: std::ops::RangeInclusive<u32> = 1..=4;
/// Spectral band replication: the rate is another than that of what is coded.
const SBR: u32 = 5;
/// Parametric stereo: mono is decoded to stereo.
const PS: u32 = 29;
/// Unified speech and audio coding.
const USAC: u32 = 42;

/// What an `AudioSpecificConfig` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AacKind {
    /// Samples per second of what is coded.
    pub(crate) core_rate: u32,
    /// Samples per second when decoded, where that is said.
    pub(crate) decoded_rate: Option<u32>,
    /// None where the stream says it.
    pub(crate) channels: Option<u16>,
    /// Samples in a packet, at the rate of what is coded; None where this is not known.
    pub(crate) packet_samples: Option<u32>,
}

/// Reads the start of an `AudioSpecificConfig`; kinds of MPEG-4 audio other than AAC are refused.
pub(crate) fn read_audio_specific_config(config: &[u8]) -> Result<AacKind, MediaError> {
    let what = "AudioSpecificConfig";
    let mut bits = Bits::new(what, config);
    let kind = object_type(&mut bits)?;
    if !PLAIN_TYPES.contains(&kind) && ![SBR, PS, USAC].contains(&kind) {
        return Err(MediaError::corrupt(what, "is of a kind that is not AAC"));
    }
    let core_rate = rate(&mut bits)?;
    let channels = match bits.bits(4)? {
        0 => None,
        _ if kind == PS => Some(2),
        7 => Some(8),
        count @ 1..7 => Some(count as u16),
        _ => {
            return Err(MediaError::corrupt(
                what,
                "has an impossible number of channels",
            ));
        }
    };
    let is_extended = kind == SBR || kind == PS;
    let decoded_rate = if is_extended {
        let decoded = rate(&mut bits)?;
        object_type(&mut bits)?;
        Some(decoded)
    } else {
        None
    };
    // `frameLengthFlag`
    let packet_samples = match kind {
        USAC => None,
        _ if bits.flag()? => Some(960),
        _ => Some(1024),
    };
    Ok(AacKind {
        core_rate,
        decoded_rate,
        channels,
        packet_samples,
    })
}

fn object_type(bits: &mut Bits<'_>) -> Result<u32, MediaError> {
    match bits.bits(5)? {
        ESCAPED_TYPE => Ok(32 + bits.bits(6)?),
        kind => Ok(kind),
    }
}

fn rate(bits: &mut Bits<'_>) -> Result<u32, MediaError> {
    let rate = match bits.bits(4)? {
        ESCAPED_RATE => Some(bits.bits(24)?),
        index => RATES.get(index as usize).copied(),
    };
    rate.filter(|&rate| rate > 0).ok_or(MediaError::corrupt(
        "AudioSpecificConfig",
        "has an impossible sample rate",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_aac_are_told_apart() {
        let low_complexity = read_audio_specific_config(&[0x11, 0x90]).expect("AAC");
        assert_eq!(low_complexity.core_rate, 48_000);
        assert_eq!(low_complexity.channels, Some(2));
        assert_eq!(low_complexity.packet_samples, Some(1024));
        assert_eq!(low_complexity.decoded_rate, None);
        // Object type 5, 24 kHz decoded to 48 kHz, mono.
        let extended = read_audio_specific_config(&[0x2b, 0x09, 0x88, 0x00]).expect("HE-AAC");
        assert_eq!(
            (extended.core_rate, extended.decoded_rate),
            (24_000, Some(48_000))
        );
        for lie in [
            &[][..],
            &[0x11],
            &[0x17, 0x10],
            &[0xf8, 0, 0, 0],
            &[0x11, 0xf8],
            &[0, 0],
        ] {
            assert!(read_audio_specific_config(lie).is_err(), "{lie:?}");
        }
    }
}
