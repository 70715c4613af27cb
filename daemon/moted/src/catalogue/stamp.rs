//! Whether a model's files are the ones that were verified before.

use super::Entry;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;

/// Inode, size and times of every file that counts. Whoever changes a file's bytes changes its
/// `ctime`, which only the kernel sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(Vec<(u64, u64, u64, i64, i64)>);

impl Stamp {
    /// Of the files the manifest has digests of; `None` when one cannot be looked at, or there are
    /// none.
    pub fn of(entry: &Entry) -> Option<Self> {
        let files = entry.manifest.files.keys().map(|file| {
            let meta = std::fs::metadata(entry.folder.join(file)).ok()?;
            Some((
                meta.dev(),
                meta.ino(),
                meta.size(),
                meta.ctime(),
                meta.ctime_nsec(),
            ))
        });
        let files: Vec<_> = files.collect::<Option<_>>()?;
        (!files.is_empty()).then_some(Self(files))
    }
}
