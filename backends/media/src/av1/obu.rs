//! Open bitstream units (AV1 bitstream specification, 5.3), each with its size.

use crate::{Limits, MediaError};

use super::sequence::SequenceHeader;

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
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
