//! What providers compiled, on disk: kept within a limit, the longest unused going first.

use crate::limits::{COMPILED_DEPTH_MAX, COMPILED_FOLDERS_MAX};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A folder that was made or used within this time may belong to a worker that was started after the
/// folders in use were listed.
const FRESH: Duration = Duration::from_secs(60);

struct Folder {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Notes that folders are in use, and removes others until all together have no more than
/// `bytes_max`; empty ones always. Those of the last minute stay. How many bytes are left.
///
/// # Errors
/// When the folder of all cannot be read. What cannot be removed is left, with a warning.
pub fn tidy(root: &Path, bytes_max: u64, in_use: &[PathBuf]) -> io::Result<u64> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let (mut kept, mut others) = (0, Vec::new());
    for entry in entries.take(COMPILED_FOLDERS_MAX) {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let bytes = bytes_in(&path, COMPILED_DEPTH_MAX);
        let used = entry.metadata().and_then(|it| it.modified());
        let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
        let is_used = in_use.contains(&path);
        if is_used {
            touch(&path);
        }
        if is_used || used.elapsed().is_ok_and(|ago| ago < FRESH) {
            kept += bytes;
        } else {
            others.push(Folder { path, bytes, used });
        }
    }
    others.sort_by_key(|folder| std::cmp::Reverse(folder.used));
    for folder in others {
        let fits = kept + folder.bytes <= bytes_max;
        if fits && folder.bytes > 0 {
            kept += folder.bytes;
            continue;
        }
        let path = folder.path.display().to_string();
        match fs::remove_dir_all(&folder.path) {
            Ok(()) => log::debug!(path = path, bytes = folder.bytes; "removed what was compiled"),
            Err(error) => log::warn!(path = path; "cannot remove what was compiled: {error}"),
        }
    }
    Ok(kept)
}

fn bytes_in(folder: &Path, depth: u32) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() && depth > 0 => bytes_in(&entry.path(), depth - 1),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |it| it.len()),
        _ => 0,
    };
    entries.map(bytes).sum()
}

/// Its time is that of its last use.
fn touch(folder: &Path) {
    let touched = fs::File::open(folder).and_then(|it| it.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        let path = folder.display().to_string();
        log::debug!(path = path; "cannot note that a folder is used: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let make = |name: &str, bytes: usize, age_s: u64| {
            let folder = root.path().join(name);
            fs::create_dir_all(folder.join("deeper")).expect("made");
            fs::write(folder.join("deeper/program"), vec![0; bytes]).expect("written");
            let used = SystemTime::now() - Duration::from_secs(age_s);
            let opened = fs::File::open(&folder).expect("opened");
            opened.set_modified(used).expect("dated");
            folder
        };
        let oldest = make("oldest", 100, 400);
        let (old, new) = (make("old", 100, 300), make("new", 100, 200));
        let (empty, fresh) = (make("empty", 0, 300), make("fresh", 0, 0));
        let left = tidy(root.path(), 250, std::slice::from_ref(&oldest)).expect("tidied");
        assert_eq!(left, 200);
        assert!(oldest.exists() && new.exists() && fresh.exists());
        assert!(!old.exists() && !empty.exists());
        // It was used just now, so the other one is the longest unused.
        assert_eq!(tidy(root.path(), 100, &[]).expect("tidied"), 100);
        assert!(oldest.exists() && !new.exists());
        assert_eq!(
            tidy(&root.path().join("nowhere"), 0, &[]).expect("nothing"),
            0
        );
    }
}
