//! Open bitstream units (AV1 bitstream specification, 5.3), as rav1e writes them: each with its size.

const TEMPORAL_DELIMITER: u8 = 2;
const SEQUENCE_HEADER: u8 = 1;

/// Kind and bytes (header included) of the first unit, and what follows it.
fn split_first(units: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let &header = units.first()?;
    let (has_extension, has_size) = (header & 4 != 0, header & 2 != 0);
    let mut at = 1 + usize::from(has_extension);
    let mut size = 0_u64;
    if !has_size {
        return None;
    }
    for group in 0..8 {
        let &byte = units.get(at)?;
        at += 1;
        size |= u64::from(byte & 0x7f) << (group * 7);
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (unit, rest) = units.split_at_checked(at.checked_add(usize::try_from(size).ok()?)?)?;
    Some((header >> 3 & 15, unit, rest))
}

/// The temporal unit as a container stores it: without its delimiter (AV1 in ISOBMFF, 2.4).
pub(super) fn without_delimiter(unit: &[u8]) -> &[u8] {
    match split_first(unit) {
        Some((TEMPORAL_DELIMITER, _, rest)) => rest,
        _ => unit,
    }
}

/// The sequence header with which a temporal unit begins.
pub(super) fn sequence_header(unit: &[u8]) -> Option<&[u8]> {
    match split_first(unit) {
        Some((SEQUENCE_HEADER, header, _)) => Some(header),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiter_is_dropped_and_header_found() {
        let unit = [0x12, 0, 0x0a, 2, 7, 8, 0x32, 1, 9];
        let stored = without_delimiter(&unit);
        assert_eq!(stored, &unit[2..]);
        assert_eq!(sequence_header(stored), Some(&unit[2..6]));
        assert_eq!(without_delimiter(stored), stored);
        assert_eq!(sequence_header(&unit[6..]), None);
    }
}
