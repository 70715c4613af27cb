//! What can be told of a message without decoding it.
//!
//! Decoding allocates per field, and an empty submessage takes two bytes on the wire but a hundred
//! in memory: fields are counted before a hostile frame can be unfolded.

use crate::frame::Link;

/// Fields of a frame and of its body together. The largest honest message is a model list or a
/// conversation, with a field per entry.
pub(crate) const FIELDS_MAX: usize = 16 << 10;

/// First field number of a frame's body.
const BODY_FIRST: u64 = 10;

/// The outer fields of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    /// 0 on a worker's link.
    pub(crate) request_id: u64,
    /// How many descriptors the message names.
    pub(crate) fd_count: u64,
    /// Field number of its body, the last one when there are several; 0 without.
    pub(crate) body: u64,
    /// Fields of the message and of its body.
    pub(crate) fields: usize,
}

/// The bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Outline {
    pub(crate) fn of(message: &[u8], link: Link) -> Result<Self, Malformed> {
        let (id_field, fd_field) = match link {
            Link::Client => (1, 2),
            Link::Worker => (0, 1),
        };
        let mut outline = Self::default();
        let mut rest = message;
        while let Some(field) = Field::next(&mut rest)? {
            outline.fields += 1;
            match field {
                Field::Varint(number, value) if number == fd_field => outline.fd_count = value,
                Field::Varint(number, value) if number == id_field => outline.request_id = value,
                Field::Bytes(number, bytes) if number >= BODY_FIRST => {
                    outline.body = number;
                    outline.fields += fields_of(bytes);
                }
                _ => {}
            }
        }
        Ok(outline)
    }
}

/// Fields at the start of `bytes`; what follows and is no field is left to the decoder.
fn fields_of(mut bytes: &[u8]) -> usize {
    let mut fields = 0;
    while let Ok(Some(_)) = Field::next(&mut bytes) {
        fields += 1;
    }
    fields
}

enum Field<'a> {
    Varint(u64, u64),
    Bytes(u64, &'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    /// The next field of a message, `None` at its end.
    fn next(rest: &mut &'a [u8]) -> Result<Option<Self>, Malformed> {
        if rest.is_empty() {
            return Ok(None);
        }
        let key = varint(rest)?;
        let number = key >> 3;
        if number == 0 {
            return Err(Malformed);
        }
        let field = match key & 7 {
            0 => Self::Varint(number, varint(rest)?),
            1 => skip(rest, 8).map(|_| Self::Other)?,
            2 => {
                let length = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
                Self::Bytes(number, skip(rest, length)?)
            }
            5 => skip(rest, 4).map(|_| Self::Other)?,
            _ => return Err(Malformed),
        };
        Ok(Some(field))
    }
}

fn skip<'a>(rest: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Malformed> {
    let (skipped, after) = rest.split_at_checked(bytes).ok_or(Malformed)?;
    *rest = after;
    Ok(skipped)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for index in 0..10 {
        let (byte, after) = rest.split_first().ok_or(Malformed)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}
