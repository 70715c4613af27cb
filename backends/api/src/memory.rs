//! The one door to mapped memory: private anonymous pages, or a file descriptor's pages.
#![allow(unsafe_code, reason = "the one unsafe door for memory mappings")]

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// Readable bytes that follow every mapping, at least: vector kernels load whole registers and may
/// read past a tensor's end (XNNPACK by its `XNN_EXTRA_BYTES`, up to 128). As large as the largest
/// page, so that a page of their own follows a mapping that ends with a page.
const TAIL_BYTES: usize = 64 << 10;

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
    /// The system did not take pages back.
    #[error("cannot give {bytes} bytes back")]
    Discard {
        /// Bytes to be given back.
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
            // SAFETY: `reserve` mapped this range, and this is its only owner.
            if let Err(errno) = unsafe { munmap(self.start, self.bytes + TAIL_BYTES) } {
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
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Ok(Self(Arc::new(Mapping {
            start: reserve(length, protection)?,
            bytes,
            access: Access::ReadWrite,
            origin: BufferOrigin::Private,
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
        let mapping = Mapping {
            start: reserve(length, ProtFlags::PROT_READ)?,
            bytes,
            access,
            origin: BufferOrigin::Shared,
        };
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        let address = mapping.start.addr();
        // SAFETY: the pages replaced are those just reserved, which nobody else knows; the length
        // was checked against the file above, and the caller keeps the file from shrinking.
        let mapped = unsafe { mmap(Some(address), length, protection, flags, fd, 0) };
        mapped.map_err(|cause| MemoryError::Map { bytes, cause })?;
        Ok(Self(Arc::new(mapping)))
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

    /// Whether no other handle to this mapping exists, so that nobody reads it any more.
    pub fn is_only_handle(&self) -> bool {
        Arc::strong_count(&self.0) == 1
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

    /// Copies `bytes` bytes from byte `from` to byte `to` of the same buffer; the ranges may overlap.
    ///
    /// # Errors
    /// When a range leaves the buffer or the buffer is read-only.
    pub fn copy_within(&self, from: usize, to: usize, bytes: usize) -> Result<(), MemoryError> {
        self.check_range(from, bytes)?;
        self.check_range(to, bytes)?;
        if self.0.access == Access::ReadOnly {
            return Err(MemoryError::ReadOnly);
        }
        // SAFETY: both ranges lie in a writable mapping (checked), and `copy` allows overlap; no
        // slice over a mapping exists.
        unsafe { std::ptr::copy(self.as_ptr().add(from), self.as_ptr().add(to), bytes) };
        Ok(())
    }

    /// Gives the whole pages in `bytes` bytes from byte `offset` on back to the system, which takes
    /// them anew, zeroed, when they are touched again. What the rest of the range holds stays. Shared
    /// memory keeps its pages.
    ///
    /// # Errors
    /// When the range leaves the buffer, the buffer is read-only, or the system refuses.
    pub fn discard(&self, offset: usize, bytes: usize) -> Result<(), MemoryError> {
        self.check_range(offset, bytes)?;
        if self.0.access == Access::ReadOnly {
            return Err(MemoryError::ReadOnly);
        }
        let start = offset.next_multiple_of(TAIL_BYTES);
        let end = (offset + bytes) / TAIL_BYTES * TAIL_BYTES;
        if self.0.origin == BufferOrigin::Shared || start >= end {
            return Ok(());
        }
        let length = end - start;
        // SAFETY: the range lies in this private mapping (checked) and begins and ends with a page,
        // whatever their size; all access is by copies that any content of memory is fine for.
        unsafe {
            let pages = self.0.start.byte_add(start);
            madvise(pages, length, MmapAdvise::MADV_DONTNEED)
        }
        .map_err(|cause| MemoryError::Discard {
            bytes: length,
            cause,
        })
    }

    /// Adds up all whole 64-bit words, wrapping: the cheapest honest way to read every byte, for
    /// benchmarks that want to know what reading alone costs.
    pub fn checksum(&self) -> u64 {
        let words = self.0.bytes / size_of::<u64>();
        let start = self.as_ptr().cast::<u64>();
        // SAFETY: `words` whole words lie in the mapping, which is page-aligned and lives as long
        // as `self`; they are read through a raw pointer, so a concurrent writer tears values at
        // worst.
        (0..words).fold(0, |sum, i| sum.wrapping_add(unsafe { start.add(i).read() }))
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

/// Anonymous pages for `bytes` and the tail, at an address of the kernel's choice.
fn reserve(bytes: NonZeroUsize, protection: ProtFlags) -> Result<NonNull<c_void>, MemoryError> {
    let map = |cause| MemoryError::Map {
        bytes: bytes.get(),
        cause,
    };
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
    let length = bytes.checked_add(TAIL_BYTES);
    let length = length.ok_or_else(|| map(nix::errno::Errno::ENOMEM))?;
    // SAFETY: an anonymous mapping at an address of the kernel's choice aliases nothing.
    unsafe { mmap_anonymous(None, length, protection, flags) }.map_err(map)
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
    fn discarded_pages_are_zero_and_the_rest_stays() {
        let buffer = Buffer::private(4 * TAIL_BYTES).expect("memory");
        buffer.copy_in(0, &vec![7u8; 4 * TAIL_BYTES]).expect("fits");
        buffer
            .discard(TAIL_BYTES - 1, 2 * TAIL_BYTES + 2)
            .expect("is given back");
        let mut values = vec![1u8; 4 * TAIL_BYTES];
        buffer.copy_out(0, &mut values).expect("fits");
        let (before, rest) = values.split_at(TAIL_BYTES);
        let (given, after) = rest.split_at(2 * TAIL_BYTES);
        assert!(before.iter().chain(after).all(|&value| value == 7));
        assert!(given.iter().all(|&value| value == 0));
        let outside = buffer.discard(1, 4 * TAIL_BYTES).expect_err("outside");
        assert!(matches!(outside, MemoryError::OutOfRange { .. }));
    }

    #[test]
    fn bytes_are_copied_within_a_buffer_also_where_ranges_overlap() {
        let buffer = Buffer::private(8).expect("memory");
        buffer
            .copy_in(0, &[1u8, 2, 3, 4, 5, 6, 7, 8])
            .expect("fits");
        buffer.copy_within(0, 2, 5).expect("fits");
        let mut values = [0u8; 8];
        buffer.copy_out(0, &mut values).expect("fits");
        assert_eq!(values, [1, 2, 1, 2, 3, 4, 5, 8]);
        buffer.copy_within(4, 2, 5).expect_err("leaves the buffer");
        buffer.copy_within(2, 4, 5).expect_err("leaves the buffer");
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
    fn zeros_follow_a_mapping_that_ends_with_a_page() {
        let fd = memfd(4096);
        for buffer in [
            Buffer::private(4096).expect("map"),
            Buffer::shared(&fd, 4096, Access::ReadWrite).expect("map"),
        ] {
            buffer.copy_in(0, &[1u8; 4096]).expect("in range");
            // SAFETY: the tail is part of the mapping, which lives until the end of this scope.
            let tail = unsafe { std::slice::from_raw_parts(buffer.as_ptr().add(4096), 128) };
            assert_eq!(tail, [0; 128]);
        }
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
