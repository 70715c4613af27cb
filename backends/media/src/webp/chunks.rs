//! RIFF chunks: a name, a size, the content, and a byte to make it even.

use crate::file::Source;
use crate::limits::at_most;
use crate::{MediaError, Quantity};

/// Name and size.
pub(super) const CHUNK_HEAD_BYTES: u64 = 8;
/// `RIFF`, its size, `WEBP`.
pub(super) const FILE_HEAD_BYTES: u64 = 12;

/// Where a chunk's content lies in the file.
pub(super) struct Chunk {
    pub(super) name: [u8; 4],
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Chunk {
    pub(super) fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// The chunks of a part of a file, in order.
pub(super) struct Chunks<'a> {
    source: &'a Source,
    position: u64,
    end: u64,
    seen: u64,
    seen_max: u64,
}

impl<'a> Chunks<'a> {
    /// Those between `start` and `end`, `chunks_max` at most.
    pub(super) fn between(source: &'a Source, start: u64, end: u64, chunks_max: u64) -> Self {
        Self {
            source,
            position: start,
            end,
            seen: 0,
            seen_max: chunks_max,
        }
    }

    /// The next one; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<Chunk>, MediaError> {
        if self.position >= self.end {
            return Ok(None);
        }
        self.seen += 1;
        at_most(Quantity::Elements, self.seen, self.seen_max)?;
        let too_long = MediaError::corrupt("a WebP chunk", "does not fit what is around it");
        let start = self.position + CHUNK_HEAD_BYTES;
        if start > self.end {
            return Err(too_long);
        }
        let mut head = [0; CHUNK_HEAD_BYTES as usize];
        self.source
            .read_at(&mut head, self.position, "a WebP chunk")?;
        let [a, b, c, d, size @ ..] = head;
        let end = start + u64::from(u32::from_le_bytes(size));
        if end > self.end {
            return Err(too_long);
        }
        self.position = end + end % 2;
        let name = [a, b, c, d];
        Ok(Some(Chunk { name, start, end }))
    }
}

/// Appends a chunk to `file`.
pub(super) fn append_chunk(file: &mut Vec<u8>, name: &[u8; 4], content: &[u8]) {
    file.extend_from_slice(name);
    file.extend_from_slice(&(content.len() as u32).to_le_bytes());
    file.extend_from_slice(content);
    if content.len() % 2 == 1 {
        file.push(0);
    }
}

/// A WebP file of these chunks.
pub(super) fn file_of(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut file = b"RIFF\0\0\0\0WEBP".to_vec();
    for (name, content) in chunks {
        append_chunk(&mut file, name, content);
    }
    let bytes = (file.len() as u64 - CHUNK_HEAD_BYTES) as u32;
    file[4..8].copy_from_slice(&bytes.to_le_bytes());
    file
}

/// Content of a `VP8X` chunk.
pub(super) fn extended_header(flags: u8, (width, height): (u32, u32)) -> [u8; 10] {
    let mut content = [0; 10];
    content[0] = flags;
    content[4..7].copy_from_slice(&u24(width - 1));
    content[7..10].copy_from_slice(&u24(height - 1));
    content
}

/// A 24-bit number.
pub(super) fn u24(value: u32) -> [u8; 3] {
    let [a, b, c, _] = value.to_le_bytes();
    [a, b, c]
}

/// The 24-bit number at `at`.
pub(super) fn u24_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], 0])
}
