//! The one unsafe door of the sandbox: what no safe binding offers.
#![allow(
    unsafe_code,
    reason = "the one door for bare system calls of the sandbox"
)]

use super::filter::Instruction;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: two words per set.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up every capability of the calling thread, for good.
pub fn drop_capabilities() -> Result<(), Errno> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let none = [CapabilityWord::default(); 2];
    // SAFETY: both pointers are to live values laid out as `linux/capability.h` has them, two words
    // as version 3 reads; the kernel keeps neither.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Lets writes beyond the limit of file size fail with `EFBIG` instead of ending the process.
pub fn ignore_file_size_signal() -> Result<(), Errno> {
    // SAFETY: no handler runs; the signal is ignored.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.map(drop)
}

/// Installs a filter on every thread of this process. It cannot be taken back.
pub fn install_filter(program: &[Instruction]) -> Result<(), Errno> {
    // Without the second flag, kernels before 5.16 also turn off speculation for the process, which
    // costs speed and protects nothing: it has no secrets from its own code.
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    match install(program, flags) {
        Err(Errno::EINVAL) => install(program, libc::SECCOMP_FILTER_FLAG_TSYNC),
        result => result,
    }
}

fn install(program: &[Instruction], flags: libc::c_ulong) -> Result<(), Errno> {
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` points to `len` live instructions, which the kernel copies and does not
    // write to, whatever the type of the pointer says.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match result {
        0 => Ok(()),
        // The number of a thread that cannot be filtered along.
        1.. => Err(Errno::ESRCH),
        _ => Err(Errno::last()),
    }
}
