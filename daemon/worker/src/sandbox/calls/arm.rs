//! 32-bit Arm (EABI): wide variants of calls, and two of its own that are no system calls proper.

#![allow(
    non_upper_case_globals,
    reason = "named as the libc crate names its own"
)]

use super::{Architecture, Row, Table, common, legacy, rows};
use nix::libc::*;

/// `AUDIT_ARCH_ARM`.
pub const ARCHITECTURE: Option<Architecture> = Some(Architecture {
    name: "32-bit Arm",
    audit: 0x4000_0028,
    numbers_end: None,
});

// Same numbers on all 32-bit architectures: uapi/asm-generic/unistd.h. The libc crate lacks them.
const SYS_clock_gettime64: c_long = 403;
const SYS_clock_getres_time64: c_long = 406;
const SYS_clock_nanosleep_time64: c_long = 407;
const SYS_timerfd_gettime64: c_long = 410;
const SYS_timerfd_settime64: c_long = 411;
const SYS_pselect6_time64: c_long = 413;
const SYS_ppoll_time64: c_long = 414;
const SYS_rt_sigtimedwait_time64: c_long = 421;
const SYS_futex_time64: c_long = 422;
// uapi/asm/unistd.h of arm, from __ARM_NR_BASE on.
const SYS_arm_cacheflush: c_long = 0x0f_0002;
const SYS_arm_set_tls: c_long = 0x0f_0005;

const ROWS: &[Row] = rows! {
    SYS_futex_time64: "locks and conditions";
    SYS_clock_gettime64: "time, where the vDSO cannot tell it";
    SYS_clock_getres_time64: "resolution of clocks";
    SYS_clock_nanosleep_time64: "sleep";
    SYS_timerfd_gettime64: "timers of libraries";
    SYS_timerfd_settime64: "timers of libraries";
    SYS_pselect6_time64: "waiting for descriptors";
    SYS_ppoll_time64: "waiting for sockets";
    SYS_rt_sigtimedwait_time64: "threads that wait for signals";
    SYS_mmap2: "memory, libraries, weights";
    SYS_fstat64: "size and kind of files";
    SYS_stat64: "size and kind of files";
    SYS_lstat64: "real paths";
    SYS_fstatat64: "size and kind of files";
    SYS_statfs64: "kind of file system, huge pages";
    SYS_fstatfs64: "kind of file system, huge pages";
    SYS__llseek: "position in clips";
    SYS_ftruncate64: "size of a memfd or clip";
    SYS_fcntl64: "close-on-exec, seals of a memfd";
    SYS_arm_fadvise64_64: "read ahead of weights";
    SYS__newselect: "as pselect6";
    SYS_ugetrlimit: "limits";
    SYS_getuid32: "whether the environment can be trusted";
    SYS_geteuid32: "whether the environment can be trusted";
    SYS_getgid32: "whether the environment can be trusted";
    SYS_getegid32: "whether the environment can be trusted";
    SYS_futex_waitv: "locks";
    SYS_sigreturn: "return from a handler";
    SYS_arm_cacheflush: "code that is compiled at run time";
    SYS_arm_set_tls: "a thread's start";
};

/// All there is.
pub const TABLES: &[Table] = &[
    Table {
        rows: common::DRIVER_ROWS,
        drivers_only: true,
    },
    Table {
        rows: common::ROWS,
        drivers_only: false,
    },
    Table {
        rows: ROWS,
        drivers_only: false,
    },
    Table {
        rows: legacy::ROWS,
        drivers_only: false,
    },
];
