//! Text that is read: files and standard input, of bounded length.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The text of `input`, which people know as `name`, of at most so many bytes.
pub fn text(input: impl Read, name: &str, bytes_max: usize) -> Result<String> {
    let mut text = String::new();
    input
        .take(bytes_max as u64 + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {name}"))?;
    ensure!(
        text.len() <= bytes_max,
        "{name} is longer than {bytes_max} bytes"
    );
    Ok(text)
}

/// The text of a file of at most so many bytes.
pub fn text_of(file: &Path, bytes_max: usize) -> Result<String> {
    let name = file.display().to_string();
    let opened = File::open(file).with_context(|| format!("cannot open {name}"))?;
    text(opened, &name, bytes_max)
}
