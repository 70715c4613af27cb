//! AArch64: of calls with successors it has the successors alone.

use super::{Architecture, Row, Table, common, rows};
use nix::libc::*;

/// `AUDIT_ARCH_AARCH64`.
pub const ARCHITECTURE: Option<Architecture> = Some(Architecture {
    name: "AArch64",
    audit: 0xc000_00b7,
    numbers_end: None,
});

const ROWS: &[Row] = rows! {
    SYS_mmap: "memory, libraries, weights";
    SYS_fstat: "size and kind of files";
    SYS_newfstatat: "size and kind of files";
    SYS_fadvise64: "read ahead of weights";
    SYS_statfs: "kind of file system, huge pages";
    SYS_fstatfs: "kind of file system, huge pages";
    SYS_futex_waitv: "locks";
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
];
