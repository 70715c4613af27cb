//! Files by absolute position, so that a descriptor shared with a client cannot have its offset moved under us.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::limits::at_most;
use crate::{Limits, MediaError, Quantity, Unsupported};

/// A regular file of bounded size, open for reading. Copies share the descriptor.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    file: Arc<File>,
    /// Where it begins in the file.
    base: u64,
    bytes: u64,
}

impl Source {
    pub(crate) fn new(file: File, limits: &Limits) -> Result<Self, MediaError> {
        let meta = file.metadata().map_err(MediaError::Read)?;
        if !meta.is_file() {
            return Err(MediaError::NotSupported(Unsupported::IrregularFile));
        }
        at_most(Quantity::FileBytes, meta.len(), limits.file_bytes_max)?;
        Ok(Self {
            file: Arc::new(file),
            base: 0,
            bytes: meta.len(),
        })
    }

    /// A part of it as a source of its own.
    pub(crate) fn part(&self, start: u64, bytes: u64) -> Self {
        Self {
            file: Arc::clone(&self.file),
            base: self.base + start,
            bytes,
        }
    }

    /// Size when it was opened.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Fills `buffer` from `position`; `inside` names what is being read.
    pub(crate) fn read_at(
        &self,
        buffer: &mut [u8],
        position: u64,
        inside: &'static str,
    ) -> Result<(), MediaError> {
        self.file
            .read_exact_at(buffer, self.base + position)
            .map_err(|cause| match cause.kind() {
                io::ErrorKind::UnexpectedEof => MediaError::Truncated { inside },
                _ => MediaError::Read(cause),
            })
    }

    /// A sequential view from the start.
    pub(crate) fn reader(&self) -> SourceReader {
        SourceReader {
            file: Arc::clone(&self.file),
            base: self.base,
            bytes: self.bytes,
            position: 0,
        }
    }
}

/// A sequential view of a [`Source`] with a position of its own.
pub(crate) struct SourceReader {
    file: Arc<File>,
    base: u64,
    bytes: u64,
    position: u64,
}

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes.saturating_sub(self.position);
        let want = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self
            .file
            .read_at(&mut buffer[..want], self.base + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for SourceReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.bytes.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// A file being written from its start.
pub(crate) struct Sink {
    file: File,
    position: u64,
}

impl Sink {
    /// Empties `file`.
    pub(crate) fn new(file: File) -> Result<Self, MediaError> {
        if !file.metadata().map_err(MediaError::Write)?.is_file() {
            return Err(MediaError::NotSupported(Unsupported::IrregularFile));
        }
        file.set_len(0).map_err(MediaError::Write)?;
        Ok(Self { file, position: 0 })
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), MediaError> {
        self.write_all(bytes).map_err(MediaError::Write)
    }

    /// Overwrites bytes written earlier.
    pub(crate) fn patch(&mut self, position: u64, bytes: &[u8]) -> Result<(), MediaError> {
        self.file
            .write_all_at(bytes, position)
            .map_err(MediaError::Write)
    }

    /// Checks that the file holds what was written (a descriptor in append mode ignores positions) and gives its size.
    pub(crate) fn finish(self) -> Result<u64, MediaError> {
        let bytes = self.file.metadata().map_err(MediaError::Write)?.len();
        if bytes != self.position {
            let cause = io::Error::other("the file's size is not what was written to it");
            return Err(MediaError::Write(cause));
        }
        Ok(bytes)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
