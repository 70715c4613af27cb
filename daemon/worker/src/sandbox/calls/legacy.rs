//! Calls that x86-64 and 32-bit Arm have and AArch64 does not: C libraries still make them there.

use super::{EPERM, Row, Verdict, rows};
use nix::libc::*;

/// Calls of every worker.
pub const ROWS: &[Row] = rows! {
    SYS_open: "as openat";
    SYS_access: "as faccessat";
    SYS_readlink: "as readlinkat";
    SYS_poll: "as ppoll";
    SYS_epoll_create: "as epoll_create1";
    SYS_epoll_wait: "as epoll_pwait";
    SYS_eventfd: "as eventfd2";
    SYS_pipe: "as pipe2";
    SYS_dup2: "as dup3";
    SYS_unlink: "as unlinkat";
    SYS_rename: "as renameat";
    SYS_mkdir: "as mkdirat";
    SYS_rmdir: "as unlinkat";
    SYS_chmod: "as fchmod" => Verdict::Pretend;
    SYS_chown: "as fchownat" => Verdict::Refuse(EPERM);
    SYS_fork: "no processes" => Verdict::Refuse(EPERM);
    SYS_vfork: "no processes" => Verdict::Refuse(EPERM);
};
