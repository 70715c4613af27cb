//! [`CheckpointFile`]: where a job's work so far outlives its worker.
//!
//! Two places take turns, so that one is whole whenever the process may end. Each begins with a header:
//! magic, number of the checkpoint, length, SHA-256 of the bytes, little-endian. The file may be the client's own and hold
//! anything: what does not add up counts as nothing.

use mote_api::Digest;
use mote_wire::types::Status;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Bytes of a checkpoint.
const CHECKPOINT_BYTES_MAX: usize = 256 << 20;
/// Where the second place begins; the file is sparse up to there.
const SECOND_AT: u64 = 512 << 20;
const MAGIC: [u8; 8] = *b"motechk1";
/// Magic, number, length and a digest as 71 characters, rounded up.
const HEADER_BYTES: usize = 128;

/// A file that holds the last checkpoint.
pub struct CheckpointFile {
    file: File,
    /// Number of the last checkpoint; 0 when there is none.
    number: u64,
}

struct Header {
    number: u64,
    bytes: usize,
    digest: [u8; HEADER_BYTES - 24],
}

impl CheckpointFile {
    /// Looks into the file: the checkpoint that it holds, if there is one.
    pub fn open(file: OwnedFd) -> (Self, Option<Vec<u8>>) {
        let file = File::from(file);
        let mut places: Vec<_> = [0, SECOND_AT]
            .into_iter()
            .filter_map(|at| Some((Header::read(&file, at)?, at)))
            .collect();
        places.sort_by_key(|(header, _)| std::cmp::Reverse(header.number));
        let number = places.first().map_or(0, |(header, _)| header.number);
        let content = places
            .into_iter()
            .find_map(|(header, at)| header.content(&file, at));
        (Self { file, number }, content)
    }

    /// Keeps a checkpoint in the place of the one before the last.
    ///
    /// # Errors
    /// [`Status::LimitExceeded`], or [`Status::ComputeFailed`] when it cannot be written.
    pub fn write(&mut self, content: &[u8]) -> Result<(), Status> {
        if content.len() > CHECKPOINT_BYTES_MAX {
            return Err(Status::LimitExceeded {
                what: "bytes of a checkpoint".into(),
                have: content.len() as u64,
                limit: CHECKPOINT_BYTES_MAX as u64,
            });
        }
        let number = self.number.wrapping_add(1);
        let at = if number.is_multiple_of(2) {
            0
        } else {
            SECOND_AT
        };
        let header = Header {
            number,
            bytes: content.len(),
            digest: digest_of(content),
        };
        // The header last: until it is there, the other place counts.
        let written = self
            .file
            .write_all_at(&[0; HEADER_BYTES], at)
            .and_then(|()| self.file.write_all_at(content, at + HEADER_BYTES as u64))
            .and_then(|()| header.write(&self.file, at));
        written.map_err(|error| Status::ComputeFailed {
            operation: "keep a checkpoint".into(),
            cause: error.to_string(),
        })?;
        self.number = number;
        Ok(())
    }

    /// Empties the file: the work is done.
    pub fn clear(&self) {
        if let Err(error) = self.file.set_len(0) {
            log::warn!("a checkpoint stays behind: {error}");
        }
    }
}

fn digest_of(content: &[u8]) -> [u8; HEADER_BYTES - 24] {
    let mut digest = [0; HEADER_BYTES - 24];
    let text = Digest::of(content).to_string();
    let length = text.len().min(digest.len());
    digest[..length].copy_from_slice(&text.as_bytes()[..length]);
    digest
}

impl Header {
    fn read(file: &File, at: u64) -> Option<Self> {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, at).ok()?;
        let number = |range: std::ops::Range<usize>| {
            let bytes: [u8; 8] = bytes[range].try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        let length = usize::try_from(number(16..24)?).ok()?;
        let holds = bytes[..8] == MAGIC && length <= CHECKPOINT_BYTES_MAX;
        holds.then_some(Self {
            number: number(8..16)?,
            bytes: length,
            digest: bytes[24..].try_into().ok()?,
        })
    }

    fn write(&self, file: &File, at: u64) -> io::Result<()> {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.bytes as u64).to_le_bytes());
        bytes[24..].copy_from_slice(&self.digest);
        file.write_all_at(&bytes, at)
    }

    fn content(&self, file: &File, at: u64) -> Option<Vec<u8>> {
        let there = file.metadata().ok()?.len();
        if there < at + (HEADER_BYTES + self.bytes) as u64 {
            return None;
        }
        let mut content = vec![0; self.bytes];
        file.read_exact_at(&mut content, at + HEADER_BYTES as u64)
            .ok()?;
        (digest_of(&content) == self.digest).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> File {
        tempfile::tempfile().expect("a file")
    }

    fn open(file: &File) -> (CheckpointFile, Option<Vec<u8>>) {
        CheckpointFile::open(file.try_clone().expect("duplicated").into())
    }

    #[test]
    fn the_last_whole_one_is_found_again() {
        let file = scratch();
        let (mut kept, nothing) = open(&file);
        assert_eq!(nothing, None);
        kept.write(b"one").expect("written");
        kept.write(b"two, longer").expect("written");
        assert_eq!(open(&file).1.as_deref(), Some(&b"two, longer"[..]));
        kept.write(b"three").expect("written");
        assert_eq!(open(&file).1.as_deref(), Some(&b"three"[..]));
        // The third was torn: the second counts.
        file.write_all_at(b"T", SECOND_AT + HEADER_BYTES as u64)
            .expect("torn");
        let (mut kept, content) = open(&file);
        assert_eq!(content.as_deref(), Some(&b"two, longer"[..]));
        kept.write(b"four").expect("written");
        assert_eq!(open(&file).1.as_deref(), Some(&b"four"[..]));
        kept.clear();
        assert_eq!(open(&file).1, None);
    }

    #[test]
    fn lies_are_no_checkpoint() {
        let file = scratch();
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        for length in [1, CHECKPOINT_BYTES_MAX as u64, u64::MAX] {
            bytes[16..24].copy_from_slice(&length.to_le_bytes());
            file.write_all_at(&bytes, 0).expect("written");
            assert_eq!(open(&file).1, None);
        }
        file.set_len(0).expect("emptied");
        file.write_all_at(&MAGIC, 0).expect("written");
        assert_eq!(open(&file).1, None);
    }
}
