//! x86-64.

use super::{Architecture, Row, Table, common, legacy, rows};
use nix::libc::*;

/// `AUDIT_ARCH_X86_64`; numbers with bit 30 are those of x32.
pub const ARCHITECTURE: Option<Architecture> = Some(Architecture {
    name: "x86-64",
    audit: 0xc000_003e,
    numbers_end: Some(0x4000_0000),
});

const ROWS: &[Row] = rows! {
    SYS_mmap: "memory, libraries, weights";
    SYS_fstat: "size and kind of files";
    SYS_stat: "size and kind of files";
    SYS_lstat: "real paths";
    SYS_newfstatat: "size and kind of files";
    SYS_fadvise64: "read ahead of weights";
    SYS_getrlimit: "limits";
    SYS_select: "as pselect6";
    SYS_time: "time, where the vDSO cannot tell it";
    SYS_statfs: "kind of file system, huge pages";
    SYS_fstatfs: "kind of file system, huge pages";
    SYS_futex_waitv: "locks";
    SYS_arch_prctl: "leave to use the matrix registers (AMX)";
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
