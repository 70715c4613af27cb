//! Boxes and their fields, read in place.

use crate::error::FourCc;
use crate::file::Source;
use crate::limits::at_most;
use crate::{Limits, MediaError, Quantity, Unsupported};

/// Boxes looked at on the top level before giving up on finding `moov`.
const TOP_LEVEL_BOXES_MAX: u64 = 4096;
/// 32-bit size and name.
const HEADER_BYTES: u64 = 8;
/// 32-bit size, name and 64-bit size.
const LONG_HEADER_BYTES: u64 = 16;

/// Reads the payload of the file's `moov` box.
pub(super) fn read_index(source: &Source, limits: &Limits) -> Result<Vec<u8>, MediaError> {
    let mut position = 0;
    for _ in 0..TOP_LEVEL_BOXES_MAX {
        if position == source.bytes() {
            return Err(MediaError::Truncated {
                inside: "the MP4 file, before its moov box",
            });
        }
        let (name, payload, end) = top_level_header(source, position)?;
        match &name.0 {
            b"moov" => {
                at_most(Quantity::IndexBytes, end - payload, limits.index_bytes_max)?;
                if end > source.bytes() {
                    return Err(MediaError::Truncated {
                        inside: "the moov box",
                    });
                }
                let mut index = vec![0; (end - payload) as usize];
                source.read_at(&mut index, payload, "the moov box")?;
                return Ok(index);
            }
            b"moof" => return Err(MediaError::NotSupported(Unsupported::Fragments)),
            _ if end > source.bytes() => {
                return Err(MediaError::Truncated {
                    inside: "an MP4 box",
                });
            }
            _ => position = end,
        }
    }
    let have = TOP_LEVEL_BOXES_MAX + 1;
    Err(MediaError::TooLarge {
        what: Quantity::Boxes,
        have,
        limit: TOP_LEVEL_BOXES_MAX,
    })
}

/// Name, start of the payload and end of the box at `position`. The end may lie behind the file's.
fn top_level_header(source: &Source, position: u64) -> Result<(FourCc, u64, u64), MediaError> {
    let mut head = [0; HEADER_BYTES as usize];
    source.read_at(&mut head, position, "an MP4 box header")?;
    let [a, b, c, d, name @ ..] = head;
    let (header_bytes, bytes) = match u32::from_be_bytes([a, b, c, d]) {
        0 => (HEADER_BYTES, source.bytes() - position),
        1 => {
            let mut long = [0; 8];
            source.read_at(&mut long, position + HEADER_BYTES, "an MP4 box header")?;
            (LONG_HEADER_BYTES, u64::from_be_bytes(long))
        }
        short => (HEADER_BYTES, short.into()),
    };
    let end = position.checked_add(bytes);
    match end {
        Some(end) if bytes >= header_bytes => Ok((FourCc(name), position + header_bytes, end)),
        _ => Err(MediaError::corrupt("an MP4 box", "has an impossible size")),
    }
}

/// The boxes inside a payload, in order.
pub(super) struct Boxes<'a> {
    rest: &'a [u8],
}

impl<'a> Boxes<'a> {
    pub(super) fn inside(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// The first box called `name`.
    pub(super) fn find(payload: &'a [u8], name: &[u8; 4]) -> Result<Option<&'a [u8]>, MediaError> {
        for inner in Self::inside(payload) {
            let (found, body) = inner?;
            if found.0 == *name {
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    /// The first box called `name`, which must be there.
    pub(super) fn require(
        payload: &'a [u8],
        name: &'static [u8; 4],
    ) -> Result<&'a [u8], MediaError> {
        let missing = MediaError::corrupt(
            str::from_utf8(name).unwrap_or("an MP4 box"),
            "box is missing",
        );
        Self::find(payload, name)?.ok_or(missing)
    }

    fn split_first(&mut self) -> Result<(FourCc, &'a [u8]), MediaError> {
        let mut fields = Fields::of("an MP4 box header", self.rest);
        let size = fields.u32()?;
        let name = FourCc(fields.array()?);
        let bytes = match size {
            0 => self.rest.len() as u64,
            1 => fields.u64()?,
            short => short.into(),
        };
        let header_bytes = self.rest.len() - fields.rest().len();
        if bytes < header_bytes as u64 || bytes > self.rest.len() as u64 {
            return Err(MediaError::corrupt(
                "an MP4 box",
                "does not fit the box around it",
            ));
        }
        let (this, rest) = self.rest.split_at(bytes as usize);
        self.rest = rest;
        Ok((name, &this[header_bytes..]))
    }
}

impl<'a> Iterator for Boxes<'a> {
    type Item = Result<(FourCc, &'a [u8]), MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        // QuickTime ends some lists with four zero bytes; nothing shorter than a header can be a box.
        if (self.rest.len() as u64) < HEADER_BYTES {
            return None;
        }
        let item = self.split_first();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

/// Big-endian fields from the start of a payload.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// `what` names the structure in errors.
    pub(super) fn of(what: &'static str, payload: &'a [u8]) -> Self {
        Self {
            what,
            rest: payload,
        }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], MediaError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(MediaError::corrupt(self.what, "is shorter than its fields"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), MediaError> {
        self.bytes(count).map(|_| ())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], MediaError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, MediaError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, MediaError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, MediaError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, MediaError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, MediaError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A 64-bit field in version 1 of a box, a 32-bit one in version 0.
    pub(super) fn u32_or_u64(&mut self, version: u8) -> Result<u64, MediaError> {
        if version == 1 {
            self.u64()
        } else {
            self.u32().map(u64::from)
        }
    }

    /// Version and flags of a full box; the version.
    pub(super) fn version(&mut self) -> Result<u8, MediaError> {
        let [version, ..] = self.array::<4>()?;
        Ok(version)
    }

    /// A 32-bit count followed by that many entries of `N` bytes.
    pub(super) fn table<const N: usize>(&mut self) -> Result<&'a [[u8; N]], MediaError> {
        let count = self.u32()? as usize;
        let (entries, _) = self.rest.as_chunks::<N>();
        entries.get(..count).ok_or(MediaError::corrupt(
            self.what,
            "announces more entries than it holds",
        ))
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}
