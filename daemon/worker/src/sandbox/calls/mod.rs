//! The system calls a worker may make: reviewed data, one row each, with the reason.
//!
//! A call that is in no table answers `ENOSYS`, as on a kernel without it: libraries ask for what is
//! newer than they can count on and know how to go on without. Rows that refuse a call say so with
//! the error that its callers expect instead. Nothing is killed for asking: the call is not made
//! either way, and vendor libraries do ask (for sockets, for helper programs). Only a call of
//! another architecture's numbering ends the process, since no library makes one by mistake.
//!
//! Numbers are the `libc` crate's for the architecture that is compiled for. [`EVERYWHERE`] holds
//! what x86-64, AArch64 and 32-bit Arm all have; what only some of them have is in a file of its own.

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod machine;
#[cfg(target_arch = "arm")]
#[path = "arm.rs"]
mod machine;
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "arm", target_endian = "little")
)))]
#[path = "unknown.rs"]
mod machine;
#[cfg(target_arch = "x86_64")]
#[path = "x86_64.rs"]
mod machine;

mod common;
/// Calls that x86-64 and 32-bit Arm have kept from before their successors, which AArch64 alone has.
#[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
mod legacy;

pub use machine::{ARCHITECTURE, TABLES};

use nix::libc;

/// What the filter needs to know of an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// Its name, for people.
    pub name: &'static str,
    /// `AUDIT_ARCH_*` of `linux/audit.h`.
    pub audit: u32,
    /// Numbers from here on belong to another calling convention (x32 on x86-64).
    pub numbers_end: Option<u32>,
}

/// Rows that go together.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The rows.
    pub rows: &'static [Row],
    /// Whether they hold only for workers whose provider has a driver of its own.
    pub drivers_only: bool,
}

/// One system call.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, `SYS_` in front.
    pub name: &'static str,
    /// Its number here.
    pub number: u32,
    /// What it is for.
    pub why: &'static str,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It is made when any condition holds; otherwise it fails with the error.
    AllowIf(&'static [Condition], i32),
    /// It fails with the error.
    Refuse(i32),
    /// It is not made and answers that it was, as its callers take no other answer.
    Pretend,
}

/// Holds when an argument, masked, is a value.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// Which of the six arguments.
    pub argument: u32,
    /// Bits to look at.
    pub mask: u64,
    /// What they must be.
    pub value: Value,
}

/// A value to compare with.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// This one.
    Is(u64),
    /// The number of the process that the filter is made for.
    OwnProcess,
}

/// The kernel reads these arguments as 32 bits wide.
const INT: u64 = 0xffff_ffff;

/// An argument of type `int` has this value.
const fn int(argument: u32, value: i32) -> Condition {
    Condition {
        argument,
        mask: INT,
        value: Value::Is(value.cast_unsigned() as u64),
    }
}

/// Rows from lines of `SYS_name: "reason";`, optionally `SYS_name: "reason" => verdict;`.
macro_rules! rows {
    (@verdict) => { $crate::sandbox::calls::Verdict::Allow };
    (@verdict $verdict:expr) => { $verdict };
    ($($call:ident: $why:literal $(=> $verdict:expr)?;)*) => {
        &[$($crate::sandbox::calls::Row {
            name: stringify!($call),
            number: $call as u32,
            why: $why,
            verdict: rows!(@verdict $($verdict)?),
        }),*]
    };
}
use rows;

/// The rows that hold for a worker.
pub fn rows_for(drivers: bool) -> impl Iterator<Item = &'static Row> {
    // The first row of a number counts, so a driver's wider rule goes before the common one.
    let tables = TABLES
        .iter()
        .filter(move |table| !table.drivers_only || drivers);
    tables.flat_map(|table| table.rows)
}

const EPERM: i32 = libc::EPERM;
const EACCES: i32 = libc::EACCES;
