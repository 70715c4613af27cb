//! Open bitstream units (AV1 bitstream specification, 5.3), each with its size.

use crate::{Limits, MediaError};

use super::sequence::SequenceHeader;

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;
/// Bytes of the longest `leb128()`.
const SIZE_BYTES_MAX: usize = 8;

/// One unit.
struct Unit<'a> {
    kind: u8,
    /// Header and payload.
    whole: &'a [u8],
    payload: &'a [u8],
}

/// The first unit, and what follows it. The last unit of a sample may leave its size out.
fn split_first(units: &[u8]) -> Option<(Unit<'_>, &[u8])> {
    let &header = units.first()?;
    let (has_extension, has_size) = (header & 4 != 0, header & 2 != 0);
    let mut start = 1 + usize::from(has_extension);
    let mut bytes = units.len().checked_sub(start)? as u64;
    if has_size {
        bytes = 0;
        for group in 0..SIZE_BYTES_MAX {
            let &byte = units.get(start)?;
            start += 1;
            bytes |= u64::from(byte & 0x7f) << (group * 7);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    let end = start.checked_add(usize::try_from(bytes).ok()?)?;
    let (whole, rest) = units.split_at_checked(end)?;
    let kind = header >> 3 & 15;
    let payload = &whole[start..];
    Some((
        Unit {
            kind,
            whole,
            payload,
        },
        rest,
    ))
}

/// The temporal unit as a container stores it: without its delimiter (AV1 in ISOBMFF, 2.4).
pub(super) fn without_delimiter(units: &[u8]) -> &[u8] {
    match split_first(units) {
        Some((unit, rest)) if unit.kind == TEMPORAL_DELIMITER => rest,
        _ => units,
    }
}

/// The sequence header unit with which a temporal unit begins.
pub(super) fn sequence_header_unit(units: &[u8]) -> Option<&[u8]> {
    let (unit, _) = split_first(units)?;
    (unit.kind == SEQUENCE_HEADER).then_some(unit.whole)
}

/// `units` up to the second one that begins a frame or shows one again, and what follows from there on.
pub(super) fn split_frame(units: &[u8]) -> (&[u8], &[u8]) {
    let (mut left, mut has_frame) = (units, false);
    while let Some((unit, rest)) = split_first(left) {
        if matches!(unit.kind, FRAME_HEADER | FRAME) {
            if has_frame {
                return units.split_at(units.len() - left.len());
            }
            has_frame = true;
        }
        left = rest;
    }
    (units, &[])
}

/// Reads the first sequence header among `units`, if there is one.
pub(crate) fn find_sequence_header(
    units: &[u8],
    limits: &Limits,
) -> Result<Option<SequenceHeader>, MediaError> {
    let mut left = units;
    while let Some((unit, rest)) = split_first(left) {
        if unit.kind == SEQUENCE_HEADER {
            return SequenceHeader::read(unit.payload, limits).map(Some);
        }
        left = rest;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiter_is_dropped_and_header_found() {
        let units = [0x12, 0, 0x0a, 2, 7, 8, 0x32, 1, 9];
        let stored = without_delimiter(&units);
        assert_eq!(stored, &units[2..]);
        assert_eq!(sequence_header_unit(stored), Some(&units[2..6]));
        assert_eq!(without_delimiter(stored), stored);
        assert_eq!(sequence_header_unit(&units[6..]), None);
    }

    #[test]
    fn frames_are_split_and_nothing_is_lost() {
        // A delimiter, a header with its tiles, a whole frame and padding, a frame shown again, and half a unit.
        let pieces = [
            &[0x12, 0, 0x1a, 1, 0x10, 0x22, 1, 7][..],
            &[0x32, 2, 0x10, 7, 0x7a, 0],
            &[0x1a, 1, 0x88, 0x1a, 9],
        ];
        let whole = pieces.concat();
        let mut left = &whole[..];
        for piece in pieces {
            let (frame, rest) = split_frame(left);
            assert_eq!(frame, piece);
            left = rest;
        }
        assert!(left.is_empty());
    }

    #[test]
    fn sizes_beyond_the_sample_end_the_search() {
        let limits = Limits::default();
        for units in [
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
            &[0x0a, 200, 1],
            &[0x0e],
            &[],
        ] {
            assert!(matches!(find_sequence_header(units, &limits), Ok(None)));
        }
    }
}
