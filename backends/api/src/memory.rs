//! The one door to mapped memory: private anonymous pages, or a file descriptor's pages.
#![allow(unsafe_code, reason = "the one unsafe door for memory mappings")]

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// Why memory could not be had or reached.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MemoryError {
    /// The system refused the mapping.
    #[error("cannot map {bytes} bytes")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The system's reason.
        #[source]
        cause: nix::errno::Errno,
    },
    /// The file behind the descriptor is shorter than the mapping asked for; touching the rest
    /// would raise SIGBUS.
    #[error("descriptor holds {have_bytes} bytes, fewer than the {need_bytes} to be mapped")]
    ShortFile {
        /// Bytes the descriptor holds.
        have_bytes: u64,
        /// Bytes asked for.
        need_bytes: usize,
    },
    /// The size of the file behind the descriptor could not be read.
    #[error("cannot read the size of the descriptor")]
    Stat(#[source] nix::errno::Errno),
    /// A copy would leave the buffer.
    #[error("bytes {offset}..+{bytes} lie outside a buffer of {have_bytes} bytes")]
    OutOfRange {
        /// First byte.
        offset: usize,
        /// Bytes to copy.
        bytes: usize,
        /// Bytes of the buffer.
        have_bytes: usize,
    },
    /// A write to memory that was mapped for reading.
    #[error("buffer is mapped read-only")]
    ReadOnly,
}

/// Whether a mapping may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// Where a buffer's pages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferOrigin {
    /// Anonymous pages of this process alone.
    Private,
    /// Pages of a descriptor that another process may map and write too.
    Shared,
}

/// A mapping of whole pages. Clones share it; the last one unmaps.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Mapping>);

#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    bytes: usize,
    access: Access,
    origin: BufferOrigin,
}

// SAFETY: a mapping belongs to the process, not to a thread, and `Mapping` hands out no Rust
// reference into it: all access is by raw-pointer copies, which tolerate concurrent writers
// (torn values, never undefined lengths or lifetimes). The inference libraries keep the same rule.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: `start` and `bytes` are what mmap returned, and this is their only owner.
            if let Err(errno) = unsafe { munmap(self.start, self.bytes) } {
                log::error!(errno = errno as i32; "munmap failed");
            }
        }
    }
}

impl Buffer {
    /// Zeroed private memory, page-aligned; pages appear when they are first touched.
    ///
    /// # Errors
    /// When the system refuses the mapping.
    pub fn private(bytes: usize) -> Result<Self, MemoryError> {
        let Some(length) = NonZeroUsize::new(bytes) else {
            return Ok(Self::empty(BufferOrigin::Private));
        };
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice aliases nothing.
        let mapped = unsafe {
            mmap_anonymous(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                flags,
            )
        };
        let start = mapped.map_err(|cause| MemoryError::Map { bytes, cause })?;
        let (access, origin) = (Access::ReadWrite, BufferOrigin::Private);
        Ok(Self(Arc::new(Mapping {
            start,
            bytes,
            access,
            origin,
        })))
    }

    /// The first `bytes` bytes of a descriptor, shared with whoever else maps it.
    ///
    /// The caller has checked that the file cannot shrink (a memfd sealed against shrinking, or a
    /// file nobody else may write): a shorter file is refused here, one that shrinks later raises
    /// SIGBUS.
    ///
    /// # Errors
    /// When the file is shorter than `bytes` or the system refuses the mapping.
    pub fn shared(fd: impl AsFd, bytes: usize, access: Access) -> Result<Self, MemoryError> {
        let stat = nix::sys::stat::fstat(fd.as_fd()).map_err(MemoryError::Stat)?;
        let have_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if have_bytes < bytes as u64 {
            return Err(MemoryError::ShortFile {
                have_bytes,
                need_bytes: bytes,
            });
        }
        let Some(length) = NonZeroUsize::new(bytes) else {
            return Ok(Self::empty(BufferOrigin::Shared));
        };
        let protection = match access {
            Access::ReadOnly => ProtFlags::PROT_READ,
            Access::ReadWrite => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        // SAFETY: the kernel chooses the address, so nothing is aliased; the length was checked
        // against the file above, and the caller keeps the file from shrinking.
        let mapped = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, 0) };
        let start = mapped.map_err(|cause| MemoryError::Map { bytes, cause })?;
        Ok(Self(Arc::new(Mapping {
            start,
            bytes,
            access,
            origin: BufferOrigin::Shared,
        })))
    }

    fn empty(origin: BufferOrigin) -> Self {
        let (start, access) = (NonNull::dangling(), Access::ReadWrite);
        Self(Arc::new(Mapping {
            start,
            bytes: 0,
            access,
            origin,
        }))
    }

    /// Bytes of the mapping.
    pub fn len(&self) -> usize {
        self.0.bytes
    }

    /// Whether it holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.bytes == 0
    }

    /// Whether writes are allowed.
    pub fn access(&self) -> Access {
        self.0.access
    }

    /// Whether another process may see these pages.
    pub fn origin(&self) -> BufferOrigin {
        self.0.origin
    }

    /// Start of the mapping, for inference libraries; valid while a clone of `self` lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.start.as_ptr().cast()
    }

    /// Copies `values.len()` elements out, starting at byte `offset`.
    ///
    /// # Errors
    /// When the range leaves the buffer.
    pub fn copy_out<T: crate::tensor::Element>(
        &self,
        offset: usize,
        values: &mut [T],
    ) -> Result<(), MemoryError> {
        let bytes = size_of_val(values);
        self.check_range(offset, bytes)?;
        // SAFETY: the source range lies in the mapping (checked), the target is a live slice of
        // `bytes` bytes, they cannot overlap, and every bit pattern is a value of `T` (Element).
        unsafe {
            let source = self.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(source, values.as_mut_ptr().cast::<u8>(), bytes);
        }
        Ok(())
    }

    /// Copies `values` in, starting at byte `offset`.
    ///
    /// # Errors
    /// When the range leaves the buffer or the buffer is read-only.
    pub fn copy_in<T: crate::tensor::Element>(
        &self,
        offset: usize,
        values: &[T],
    ) -> Result<(), MemoryError> {
        let bytes = size_of_val(values);
        self.check_range(offset, bytes)?;
        if self.0.access == Access::ReadOnly {
            return Err(MemoryError::ReadOnly);
        }
        // SAFETY: the target range lies in a writable mapping (both checked), the source is a live
        // slice of `bytes` bytes, and they cannot overlap since no slice over a mapping exists.
        unsafe {
            let target = self.as_ptr().add(offset);
            std::ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), target, bytes);
        }
        Ok(())
    }

    fn check_range(&self, offset: usize, bytes: usize) -> Result<(), MemoryError> {
        let have_bytes = self.0.bytes;
        match offset.checked_add(bytes) {
            Some(end) if end <= have_bytes => Ok(()),
            _ => Err(MemoryError::OutOfRange {
                offset,
                bytes,
                have_bytes,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    fn memfd(bytes: i64) -> OwnedFd {
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let fd = nix::sys::memfd::memfd_create(c"test", flags).expect("memfd");
        nix::unistd::ftruncate(&fd, bytes).expect("ftruncate");
        fd
    }

    #[test]
    fn a_short_descriptor_is_refused_before_anyone_touches_it() {
        let error = Buffer::shared(memfd(100), 4096, Access::ReadOnly).expect_err("too short");
        assert_eq!(
            error,
            MemoryError::ShortFile {
                have_bytes: 100,
                need_bytes: 4096
            }
        );
    }

    #[test]
    fn writes_are_seen_by_the_other_mapping_and_refused_on_a_read_only_one() {
        let fd = memfd(4096);
        let writer = Buffer::shared(&fd, 4096, Access::ReadWrite).expect("map");
        let reader = Buffer::shared(&fd, 4096, Access::ReadOnly).expect("map");
        writer.copy_in(8, &[7u8, 8, 9]).expect("in range");
        let mut seen = [0u8; 3];
        reader.copy_out(8, &mut seen).expect("in range");
        assert_eq!(seen, [7, 8, 9]);
        assert_eq!(reader.copy_in(0, &[1u8]), Err(MemoryError::ReadOnly));
        assert!(matches!(
            reader.copy_out(4095, &mut seen),
            Err(MemoryError::OutOfRange { .. })
        ));
    }
}
