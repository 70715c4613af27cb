//! Folders of PNG frames as one stream of PNG files, and back. A PNG file tells its own end (PNG
//! specification, 5.6), so files one after another need no index.

use anyhow::{Context, Result, bail, ensure};
use mote_wire::Memfd;
use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";
const FRAMES_MAX: usize = 100_000;
const STREAM_BYTES_MAX: u64 = 4 << 30;
const CHUNK_BYTES_MAX: u64 = 1 << 30;

/// All PNG files of a folder, in the order of their names, one after another in memory.
pub fn join(folder: &Path) -> Result<OwnedFd> {
    let entries = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("png"))
    });
    paths.sort();
    ensure!(
        !paths.is_empty(),
        "{} holds no .png files",
        folder.display()
    );
    ensure!(
        paths.len() <= FRAMES_MAX,
        "there are more than {FRAMES_MAX} frames"
    );
    let mut total = 0;
    for path in &paths {
        total += std::fs::metadata(path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
    }
    ensure!(
        total <= STREAM_BYTES_MAX,
        "the frames are more than {STREAM_BYTES_MAX} bytes"
    );
    let memfd = Memfd::create("mote-frames", total).context("cannot make shared memory")?;
    let mut offset = 0;
    for path in &paths {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(
            bytes.starts_with(&SIGNATURE),
            "{} is no PNG file",
            path.display()
        );
        memfd
            .write_all_at(&bytes, offset)
            .with_context(|| format!("{} changed while it was read", path.display()))?;
        offset += bytes.len() as u64;
    }
    Ok(memfd.into_fd())
}

/// Whether a file is one that [`split`] writes.
pub fn is_frame(name: &str) -> bool {
    let number = name
        .strip_prefix("frame-")
        .and_then(|rest| rest.strip_suffix(".png"));
    number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Writes each PNG file of a stream into a folder as `frame-00000.png`, …
pub fn split(stream: &File, folder: &Path) -> Result<()> {
    let mut stream = stream;
    stream.rewind().context("cannot rewind the frames")?;
    let mut reader = BufReader::new(stream);
    for index in 0..FRAMES_MAX {
        let Some(png) = next_png(&mut reader)? else {
            return Ok(());
        };
        let path = folder.join(format!("frame-{index:05}.png"));
        let mut file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        file.write_all(&png)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    bail!("there are more than {FRAMES_MAX} frames")
}

fn next_png(reader: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut png = Vec::new();
    reader
        .take(8)
        .read_to_end(&mut png)
        .context("cannot read a frame")?;
    if png.is_empty() {
        return Ok(None);
    }
    ensure!(png == SIGNATURE, "the stream of frames is torn");
    loop {
        let start = png.len();
        reader
            .take(8)
            .read_to_end(&mut png)
            .context("cannot read a frame")?;
        ensure!(
            png.len() == start + 8,
            "the stream of frames ends inside a frame"
        );
        let mut length = [0; 4];
        length.copy_from_slice(&png[start..start + 4]);
        let rest = u64::from(u32::from_be_bytes(length)) + 4;
        ensure!(
            rest <= CHUNK_BYTES_MAX,
            "a frame has a chunk of {rest} bytes"
        );
        let read = reader
            .take(rest)
            .read_to_end(&mut png)
            .context("cannot read a frame")?;
        ensure!(
            read as u64 == rest,
            "the stream of frames ends inside a frame"
        );
        if &png[start + 4..start + 8] == b"IEND" {
            return Ok(Some(png));
        }
    }
}
