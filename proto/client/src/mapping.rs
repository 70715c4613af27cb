//! The one door to mapped memory.
#![allow(unsafe_code, reason = "the one unsafe door for memory mappings")]

use mote_wire::Memfd;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// A memfd's pages, readable and writable, shared with whoever else maps them.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: through a shared `Mapping` bytes are only copied out, by raw pointer.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all of `memfd`, which must not be empty.
    pub(crate) fn new(memfd: &Memfd) -> io::Result<Self> {
        let bytes = usize::try_from(memfd.bytes())
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses where; nothing that is mapped is replaced. A `Memfd` is sealed
        // against shrinking, so every page of it stays there.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, memfd, 0)? };
        Ok(Self {
            start,
            bytes: bytes.get(),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes. The daemon writes to them only while a call of this process lasts that names
    /// them as an output, and such a call borrows them.
    pub(crate) fn slice(&mut self) -> &[u8] {
        self.slice_mut()
    }

    /// As [`Mapping::slice`], to be written.
    pub(crate) fn slice_mut(&mut self) -> &mut [u8] {
        // SAFETY: `start` is the first of `bytes` mapped bytes until `self` is dropped; `&mut self`
        // keeps every other reference of this process away.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes) }
    }

    /// Copies bytes at `offset` out; false when they are not all there.
    pub(crate) fn copy_out(&self, offset: usize, target: &mut [u8]) -> bool {
        let end = offset.checked_add(target.len());
        if end.is_none_or(|end| end > self.bytes) {
            return false;
        }
        // SAFETY: the range was checked above; `target` is exclusively borrowed, so it cannot
        // overlap the mapping, of which no `&mut` exists while `self` is shared. A daemon that
        // writes at the same time makes the bytes unspecified, which any byte may be.
        unsafe {
            let source = self.start.as_ptr().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(source, target.as_mut_ptr(), target.len());
        }
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is what `mmap` gave, and nobody can reach it any more.
        if let Err(cause) = unsafe { munmap(self.start, self.bytes) } {
            log::error!("cannot unmap {} bytes: {cause}", self.bytes);
        }
    }
}
