//! Anonymous shared memory that can be handed to another process.

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// A memfd of fixed size: sealed against shrinking and growing, close-on-exec.
#[derive(Debug)]
pub struct Memfd {
    file: File,
    bytes: u64,
}

/// Anonymous memory that grows as it is written to, close-on-exec. For what only its writer reads again:
/// it cannot be mapped safely.
pub fn scratch(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?)
}

impl Memfd {
    /// A memfd of `bytes` zeroes. `name` is shown in `/proc` and otherwise without meaning.
    pub fn create(name: &str, bytes: u64) -> io::Result<Self> {
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let file = File::from(fd);
        file.set_len(bytes)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self { file, bytes })
    }

    /// A memfd that holds `content` and can be changed by nobody any more.
    pub fn holding(name: &str, content: &[u8]) -> io::Result<Self> {
        let memfd = Self::create(name, content.len() as u64)?;
        memfd.write_all_at(content, 0)?;
        memfd.freeze()?;
        Ok(memfd)
    }

    /// Seals the content. Fails while a writable mapping of it exists.
    pub fn freeze(&self) -> io::Result<()> {
        fcntl(&self.file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE))?;
        Ok(())
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies `content` in at `offset`.
    pub fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(content, offset)
    }

    /// Copies bytes at `offset` out, as many as `content` is long.
    pub fn read_exact_at(&self, content: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(content, offset)
    }

    /// Another descriptor of the same memory.
    pub fn try_clone_fd(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// The descriptor itself.
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }
}

impl AsFd for Memfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
