//! `mote_buffer_t`: memory that the daemon maps too.

use crate::call::{Out, call, free, give};
use crate::client::{MoteClient, client};
use crate::error::MoteError;
use crate::failure::Failure;
use mote_client::Buffer;
use std::ffi::c_void;
use std::ptr::{self, NonNull};

/// A buffer, and where it is mapped for as long as it lives.
pub struct MoteBuffer {
    pub(crate) buffer: Buffer,
    start: NonNull<u8>,
}

impl MoteBuffer {
    pub(crate) fn new(mut buffer: Buffer) -> Self {
        let start = buffer.with_slice_mut(|content| NonNull::from(content).cast());
        Self { buffer, start }
    }

    /// The bytes at `offset`, when so many are there.
    pub(crate) fn at(&self, offset: u64, bytes: u64) -> Option<*const u8> {
        let end = offset.checked_add(bytes)?;
        let offset = usize::try_from(offset).ok()?;
        let is_inside = end <= self.buffer.bytes();
        is_inside.then(|| self.start.as_ptr().wrapping_add(offset).cast_const())
    }
}

/// The buffer that a call is about.
pub(crate) fn buffer(buffer: Option<&MoteBuffer>) -> Result<&Buffer, Failure> {
    match buffer {
        Some(buffer) => Ok(&buffer.buffer),
        None => Err(Failure::null("buffer")),
    }
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_buffer_create(
    given: Option<&MoteClient>,
    bytes: u64,
    buffer: Out<'_, MoteBuffer>,
    error: Out<'_, MoteError>,
) -> i32 {
    call(error, || {
        give(buffer, "buffer", || {
            let client = client(given)?;
            not_empty(bytes)?;
            Ok(MoteBuffer::new(client.buffer(bytes)?))
        })
    })
}

/// Memory of no bytes cannot be mapped.
pub(crate) fn not_empty(bytes: u64) -> Result<(), Failure> {
    if bytes == 0 {
        Err(Failure::invalid("bytes", "is 0"))
    } else {
        Ok(())
    }
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_buffer_data(buffer: Option<&MoteBuffer>) -> *mut c_void {
    buffer.map_or(ptr::null_mut(), |buffer| buffer.start.as_ptr().cast())
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_buffer_bytes(buffer: Option<&MoteBuffer>) -> u64 {
    buffer.map_or(0, |buffer| buffer.buffer.bytes())
}

/// See `mote.h`.
#[unsafe(no_mangle)]
pub extern "C" fn mote_buffer_free(buffer: Option<Box<MoteBuffer>>) {
    free(buffer);
}
