//! What the tests of the whole product share: the built binaries, private daemons, reference data.

pub mod daemon;
pub mod faulty;
pub mod npy;
pub mod reference;

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A binary of the product, beside the test binary that is running.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("cannot tell where the test runs")?;
    let folder = test
        .ancestors()
        .nth(2)
        .context("tests run from target/<profile>/deps")?;
    let path = folder.join(name);
    anyhow::ensure!(
        path.exists(),
        "{} is not built: run tests/run, or `cargo build --release --workspace`",
        path.display()
    );
    Ok(path)
}

/// Copies a program that is to be run from there, by whoever may run it.
///
/// A process of its own copies it. Were the copy written here, a process that another test starts
/// meanwhile would hold it open for writing until its `exec`, and the kernel runs no such file.
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .arg(from)
        .arg(to)
        .status()
        .context("cannot start cp")?;
    anyhow::ensure!(status.success(), "cannot copy {}", from.display());
    Ok(())
}

/// A variable that `tests/run` sets.
pub fn prepared(variable: &str) -> Result<PathBuf> {
    let value = std::env::var_os(variable);
    let value = value.with_context(|| format!("{variable} is not set: run tests/run"))?;
    Ok(PathBuf::from(value))
}
