//! Memory that the daemon maps too.

use crate::error::ClientError;
use crate::link::Link;
use crate::mapping::Mapping;
use mote_wire::Memfd;
use mote_wire::types::{BufferRange, FrameFormat, RegisterBuffer, Request, VideoFrame};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Ids are unique in the process, so that a buffer may be registered on several connections.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Memory shared with the daemon: tensors in it are named, not sent.
///
/// From [`Client::buffer`](crate::Client::buffer) it is registered on the client's connection until
/// it is dropped; from [`Stream::buffer`](crate::Stream::buffer), on the stream's.
#[derive(Debug)]
pub struct Buffer {
    id: u64,
    memfd: Memfd,
    mapping: Mapping,
    registered: Option<Weak<Link>>,
}

impl Buffer {
    /// `bytes` zeroes that nobody else knows yet.
    pub(crate) fn create(bytes: u64) -> Result<Self, ClientError> {
        let create = || -> io::Result<(Memfd, Mapping)> {
            let memfd = Memfd::create("mote-buffer", bytes)?;
            let mapping = Mapping::new(&memfd)?;
            Ok((memfd, mapping))
        };
        let (memfd, mapping) = create().map_err(|cause| ClientError::Memory { bytes, cause })?;
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            memfd,
            mapping,
            registered: None,
        })
    }

    /// Makes the buffer known to the daemon until it is dropped.
    pub(crate) fn registered(mut self, link: &Arc<Link>) -> Result<Self, ClientError> {
        link.ask(self.registration()?)?;
        self.registered = Some(Arc::downgrade(link));
        Ok(self)
    }

    /// The request that makes it known.
    pub(crate) fn registration(&self) -> Result<Request, ClientError> {
        let bytes = self.bytes();
        let fd = self.memfd.try_clone_fd();
        Ok(Request::RegisterBuffer(RegisterBuffer {
            buffer: self.id,
            bytes,
            writable: true,
            fd: fd.map_err(|cause| ClientError::Memory { bytes, cause })?,
        }))
    }

    /// Its id on every connection it is registered on.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.mapping.bytes() as u64
    }

    /// A part of it. `offset` must be a multiple of 64.
    pub fn range(&self, offset: u64, bytes: u64) -> BufferRange {
        BufferRange {
            buffer: self.id,
            offset,
            bytes,
        }
    }

    /// All of it as a frame for the input or output `name`: without gaps, from the start, in BT.601 and the range
    /// that is usual for its format. Fields say more: planes with gaps, other colours, the size of an input
    /// that the model leaves open.
    pub fn frame(
        &self,
        name: impl Into<String>,
        format: FrameFormat,
        (width, height): (u32, u32),
    ) -> VideoFrame {
        VideoFrame::dense(name, format, (width, height), self.id)
    }

    /// Copies `content` in at `offset`.
    pub fn copy_in(&mut self, offset: u64, content: &[u8]) -> Result<(), ClientError> {
        let error = self.out_of_range(offset, content.len());
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let target = self.mapping.slice_mut().get_mut(offset..);
        let target = target.and_then(|target| target.get_mut(..content.len()));
        target.ok_or(error)?.copy_from_slice(content);
        Ok(())
    }

    /// Copies bytes at `offset` out, as many as `content` is long.
    pub fn copy_out(&self, offset: u64, content: &mut [u8]) -> Result<(), ClientError> {
        let place = usize::try_from(offset).unwrap_or(usize::MAX);
        if self.mapping.copy_out(place, content) {
            Ok(())
        } else {
            Err(self.out_of_range(offset, content.len()))
        }
    }

    /// Lets `read` see the bytes. The buffer is borrowed exclusively, as by a call that names it
    /// for an output: no such call can be under way.
    pub fn with_slice<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> R {
        read(self.mapping.slice())
    }

    /// Lets `write` change the bytes.
    pub fn with_slice_mut<R>(&mut self, write: impl FnOnce(&mut [u8]) -> R) -> R {
        write(self.mapping.slice_mut())
    }

    fn out_of_range(&self, offset: u64, bytes: usize) -> ClientError {
        ClientError::OutOfRange {
            offset,
            bytes: bytes as u64,
            have_bytes: self.bytes(),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(link) = self.registered.as_ref().and_then(Weak::upgrade) {
            // A connection that is closed has forgotten its buffers already.
            let _ = link.tell(Request::UnregisterBuffer { buffer: self.id });
        }
    }
}
