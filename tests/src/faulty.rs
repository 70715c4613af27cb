//! A runtime with a provider that lies, fails, hangs and dies as it is told.

use crate::prepared;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The provider's name.
pub const PROVIDER: &str = "FaultyExecutionProvider";
/// Its library in a runtime's folder …
pub const LIBRARY_FILE: &str = "libfaulty_provider.so";
/// … and the file that says how it fails once it has been probed.
pub const FAULT_FILE: &str = "fault";
/// The flavour's name.
pub const FLAVOUR: &str = "onnxruntime-faulty";

/// A folder of runtimes with that one in it.
pub fn runtimes(folder: &Path, fault: &str) -> Result<PathBuf> {
    let runtimes = folder.join("faulty-runtimes");
    let flavour = runtimes.join(FLAVOUR);
    std::fs::create_dir_all(&flavour)?;
    let library = prepared("MOTE_TEST_ORT_LIBRARY")?.canonicalize()?;
    std::fs::copy(compiled()?, flavour.join(LIBRARY_FILE))?;
    std::fs::write(flavour.join(FAULT_FILE), fault)?;
    std::fs::write(
        flavour.join("runtime.toml"),
        format!(
            "format = 1\nname = \"{FLAVOUR}\"\nbackend = \"onnxruntime\"\nversion = \"1\"\n\
             library = {library:?}\nlicence = \"MIT\"\n"
        ),
    )?;
    Ok(runtimes)
}

/// The provider's library, compiled once per process.
fn compiled() -> Result<&'static Path> {
    static LIBRARY: OnceLock<Result<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let compile = || {
        let source = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../backends/ort/tests/fixtures/faulty_provider.c"
        );
        let folder = tempfile::tempdir()?;
        let library = folder.path().join(LIBRARY_FILE);
        let mut compiler = Command::new("cc");
        compiler.args(["-std=c11", "-O1", "-shared", "-fPIC", source, "-o"]);
        let status = compiler.arg(&library).arg("-lm").status();
        let status = status.context("cannot start a C compiler")?;
        anyhow::ensure!(status.success(), "cannot compile {source}");
        Ok((folder, library))
    };
    match LIBRARY.get_or_init(compile) {
        Ok((_, library)) => Ok(library),
        Err(error) => anyhow::bail!("{error:#}"),
    }
}
