//! The one door to bytes and descriptors on a socket, and the checks of descriptors that came in.
#![allow(
    unsafe_code,
    reason = "the one unsafe door for descriptors: only the raw call tells of descriptors that the \
              kernel handed over before it reported truncation; and tokio trusts its caller that a \
              descriptor it watches stays open"
)]

use crate::limits::{BUFFER_BYTES_MAX, FDS_PER_FRAME_MAX};
use crate::types::Status;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{SFlag, fstat};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Bytes of control messages: the descriptors of one frame and a header.
const CONTROL_BYTES: usize = 16 + FDS_PER_FRAME_MAX * size_of::<RawFd>();

/// What one call received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// 0 at the end of the stream.
    pub(crate) bytes: usize,
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether descriptors were lost.
    pub(crate) fds_lost: bool,
}

/// Sends some of `parts`, and all of `fds` with the first byte.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[OwnedFd],
) -> io::Result<usize> {
    let mut raw = [0; FDS_PER_FRAME_MAX];
    let raw = &mut raw[..fds.len()];
    for (raw, fd) in raw.iter_mut().zip(fds) {
        *raw = fd.as_raw_fd();
    }
    let rights = [ControlMessage::ScmRights(raw)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    loop {
        let flags = MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(socket.as_raw_fd(), parts, control, flags, None) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Receives at most one buffer and the descriptors that came with it, close-on-exec.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // Control messages begin with a `cmsghdr`, which wants the alignment of a word.
    let mut control = [0u64; CONTROL_BYTES.div_ceil(8)];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: `msghdr` is a C struct of integers and pointers; all zeroes is a value of it, and
    // padding that some targets have in it cannot be named.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES as _;
    let bytes = loop {
        // SAFETY: `message` points at `part` and `control`, and `part` at `buffer`, with their true
        // lengths; all of them are exclusively ours until the call returns.
        let result =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(result) {
            Ok(bytes) => break bytes,
            Err(_) => match io::Error::last_os_error() {
                cause if cause.kind() == io::ErrorKind::Interrupted => {}
                cause => return Err(cause),
            },
        }
    };
    Ok(Received {
        bytes,
        fds: take_fds(&message),
        fds_lost: message.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// A socket whose only descriptor stays the same for as long as the value lives.
#[cfg(feature = "async")]
pub(crate) trait Owner: AsRawFd {}

#[cfg(feature = "async")]
impl Owner for OwnedFd {}

#[cfg(feature = "async")]
impl Owner for std::sync::Arc<std::os::unix::net::UnixStream> {}

/// Has the current runtime watch a socket.
#[cfg(feature = "async")]
pub(crate) fn watch<S: Owner>(
    socket: S,
    interest: tokio::io::Interest,
) -> io::Result<tokio::io::unix::AsyncFd<S>> {
    // SAFETY: an `Owner` keeps its one descriptor open and tells no other until it is dropped;
    // `AsyncFd` owns it and lends it out by shared reference only.
    let watched = unsafe { tokio::io::unix::AsyncFd::register_with_interest(socket, interest) };
    Ok(watched?)
}

/// Owns every descriptor that `recvmsg` put into `message`, so that none can leak.
fn take_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled `message`, whose control buffer outlives this function's caller;
    // the macro stays within `msg_controllen`.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: a header that the macros return lies within the control buffer, aligned, and was
        // written by the kernel.
        let (level, kind, length) = unsafe {
            (
                (*header).cmsg_level,
                (*header).cmsg_type,
                (*header).cmsg_len,
            )
        };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: arithmetic on an integer.
            let empty = unsafe { libc::CMSG_LEN(0) } as usize;
            #[allow(clippy::unnecessary_cast, reason = "musl has a `u32` here")]
            let length = length as usize;
            let count = length.saturating_sub(empty) / size_of::<RawFd>();
            // SAFETY: `header` is valid as above, so its data follows it.
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel wrote `count` descriptors there; each is open, new to this
                // process and owned by nobody else.
                let fd = unsafe { OwnedFd::from_raw_fd(data.add(index).read_unaligned()) };
                fds.push(fd);
            }
        }
        // SAFETY: both arguments are valid as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    fds
}

/// Refuses a descriptor that must not be mapped: only a memfd of at least `bytes` bytes that is
/// sealed against shrinking can never raise SIGBUS in the process that maps it.
///
/// With `writable` it must also be open for writing and not sealed against it.
pub fn check_sealed(fd: BorrowedFd<'_>, bytes: u64, writable: bool) -> Result<(), Status> {
    if bytes == 0 {
        return Err(Status::invalid("bytes", "a buffer holds at least one byte"));
    }
    if bytes > BUFFER_BYTES_MAX {
        return Err(Status::LimitExceeded {
            what: "bytes".into(),
            have: bytes,
            limit: BUFFER_BYTES_MAX,
        });
    }
    let refuse = |why: &str| Err(Status::invalid("fd", why));
    let Ok(seals) = fcntl(fd, FcntlArg::F_GET_SEALS) else {
        return refuse("it is no memfd");
    };
    let seals = SealFlag::from_bits_retain(seals);
    if !seals.contains(SealFlag::F_SEAL_SHRINK) {
        return refuse("it is not sealed against shrinking");
    }
    let access = access_of(fd, "fd")?;
    if access == OFlag::O_WRONLY {
        return refuse("it is not open for reading");
    }
    let unwritable = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_FUTURE_WRITE;
    if writable && (seals.intersects(unwritable) || access != OFlag::O_RDWR) {
        return refuse("it cannot be written");
    }
    let have = fstat(fd)
        .map_err(|cause| Status::invalid("fd", cause))?
        .st_size;
    if u64::try_from(have).unwrap_or(0) < bytes {
        return refuse(&format!("it holds {have} bytes, fewer than {bytes}"));
    }
    Ok(())
}

/// Refuses anything but a regular file, which neither blocks nor ends for reasons of its own.
pub(crate) fn check_file(fd: &OwnedFd, field: &str, writable: bool) -> Result<(), Status> {
    let refuse = |why: &str| Err(Status::invalid(field, why));
    let mode = fstat(fd)
        .map_err(|cause| Status::invalid(field, cause))?
        .st_mode;
    if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return refuse("it is no regular file");
    }
    match access_of(fd.as_fd(), field)? {
        OFlag::O_RDWR => Ok(()),
        OFlag::O_RDONLY if !writable => Ok(()),
        _ if writable => refuse("it is not open for reading and writing"),
        _ => refuse("it is not open for reading"),
    }
}

fn access_of(fd: BorrowedFd<'_>, field: &str) -> Result<OFlag, Status> {
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|cause| Status::invalid(field, cause))?;
    Ok(OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE)
}
