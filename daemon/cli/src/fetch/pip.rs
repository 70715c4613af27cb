//! Downloading one package archive with pip.

use super::pins::Archive;
use crate::interrupt;
use crate::ui::Ui;
use anyhow::{Context, Result, bail, ensure};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Environment variable that names another Python.
const PYTHON_VARIABLE: &str = "MOTE_PYTHON";
/// The interpreter version whose archives are asked for; they are only unpacked, never imported.
const PYTHON_TAG: &str = "3.12";
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// What is kept of pip's messages for the error text.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
const MESSAGE_LINES_SHOWN: usize = 6;

/// One archive of one package.
pub struct Wanted<'a> {
    pub package: &'a str,
    pub version: &'a str,
    pub archive: &'a Archive,
}

/// Downloads an archive into `stage` and answers its path. Its digest was checked by pip; the
/// caller checks it again.
pub fn download(wanted: &Wanted<'_>, stage: &Path, ui: &Ui) -> Result<PathBuf> {
    let (wheels, temporary) = (stage.join("wheels"), stage.join("tmp"));
    for folder in [&wheels, &temporary] {
        std::fs::create_dir(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let requirements = stage.join("requirements.txt");
    let Wanted {
        package,
        version,
        archive,
    } = wanted;
    let line = format!("{package}=={version} --hash={}\n", archive.digest);
    std::fs::write(&requirements, line).context("cannot write the requirements")?;
    let python = std::env::var_os(PYTHON_VARIABLE).unwrap_or_else(|| "python3".into());
    let mut command = Command::new(&python);
    command
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-cache-dir",
        ])
        .args([
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar=off",
            "--quiet",
        ])
        .args(["--python-version", PYTHON_TAG, "--implementation", "cp"])
        .args(["--platform", &archive.platform, "--require-hashes"])
        .arg("--requirement")
        .arg(&requirements)
        .arg("--dest")
        .arg(&wheels)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn().with_context(|| {
        format!("cannot start {python:?}; packages are fetched with Python's pip (set {PYTHON_VARIABLE} to another Python)")
    })?;
    watch(child, wanted, stage, ui)?;
    the_only_file(&wheels)
}

/// Waits for pip, showing how much has arrived; ends it when the user interrupts.
fn watch(mut child: Child, wanted: &Wanted<'_>, stage: &Path, ui: &Ui) -> Result<()> {
    let stderr = child.stderr.take().context("pip's messages are piped")?;
    let messages = std::thread::spawn(move || {
        let mut text = Vec::new();
        // Beyond the limit pip would block; a truncated message is better than a stuck one.
        let kept = stderr.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut text);
        kept.map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let bytes = wanted.archive.bytes;
    let bar = ui.bytes_bar(wanted.package, bytes);
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait for pip")? {
            break status;
        }
        if interrupt::check().is_err() {
            child.kill().context("cannot stop pip")?;
            child.wait().context("cannot wait for pip")?;
        }
        interrupt::check()?;
        bar.set_position(bytes_under(stage).min(bytes));
        std::thread::sleep(POLL_INTERVAL);
    };
    bar.finish();
    let text = match messages.join() {
        Ok(read) => read.context("cannot read pip's messages")?,
        Err(_) => bail!("the reader of pip's messages panicked"),
    };
    if !status.success() {
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let last = lines[lines.len().saturating_sub(MESSAGE_LINES_SHOWN)..].join("\n  ");
        bail!(
            "pip could not get {}=={} ({status}):\n  {last}",
            wanted.package,
            wanted.version
        );
    }
    Ok(())
}

fn bytes_under(folder: &Path) -> u64 {
    // Files come and go while pip works: one that is gone counts nothing.
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_under(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

fn the_only_file(folder: &Path) -> Result<PathBuf> {
    let entries: Vec<_> = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("cannot list {}", folder.display()))?;
    ensure!(
        entries.len() == 1,
        "pip brought {} files, not 1",
        entries.len()
    );
    Ok(entries[0].path())
}
