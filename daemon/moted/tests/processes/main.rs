//! The daemon as a process, with worker processes of this very program, which does as its model's
//! name says.
#![allow(
    clippy::print_stdout,
    reason = "a test program tells its results there"
)]

mod cases;
mod client;
mod peers;
mod power;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--socket-fd") {
        worker::run(&arguments);
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen = |name: &str| filter.is_none_or(|filter| name.contains(filter.as_str()));
    let mut failed = 0;
    for (name, case) in cases::ALL.iter().filter(|(name, _)| chosen(name)) {
        let result = catch_unwind(AssertUnwindSafe(case));
        println!(
            "test {name} ... {}",
            if result.is_ok() { "ok" } else { "FAILED" }
        );
        failed += u8::from(result.is_err());
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
