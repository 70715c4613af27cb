//! Which models' files were verified, kept in a file: a restart reads only what is needed of them.

use super::Stamp;
use crate::limits::VERIFIED_BYTES_MAX;
use crate::state::StateFile;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A file of another format is dropped: what is in it is found out by verifying again.
const FORMAT: u32 = 1;
const FILE_NAME: &str = "verified.json";

/// A model's digest, and its files as they were when they had it.
pub type Verified = (String, Stamp);

#[derive(Debug, Deserialize)]
struct File {
    format: u32,
    models: Vec<Verified>,
}

#[derive(Debug, Serialize)]
struct FileRef<'a> {
    format: u32,
    models: &'a [Verified],
}

/// The file of what was verified. Who can write to the state folder can pass off files as verified: it is
/// the daemon's own.
#[derive(Debug)]
pub struct VerifiedStore(StateFile);

impl VerifiedStore {
    /// In the state folder.
    pub fn new(state: &Path) -> Self {
        Self(StateFile::new(state, FILE_NAME, VERIFIED_BYTES_MAX))
    }

    /// What was verified before.
    pub fn read(&self) -> Vec<Verified> {
        let file = self.0.read::<File>().filter(|file| file.format == FORMAT);
        file.map_or(Vec::new(), |file| file.models)
    }

    /// Keeps what was verified.
    pub fn keep(&self, models: &[Verified]) {
        self.0.keep(models, |models| {
            serde_json::to_vec(&FileRef {
                format: FORMAT,
                models,
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_comes_back_and_what_cannot_be_read_does_not() {
        let state = tempfile::tempdir().expect("a folder");
        let store = VerifiedStore::new(state.path());
        assert_eq!(store.read(), []);
        let stamp: Stamp = serde_json::from_str("[[1,2,3,4,5]]").expect("a stamp");
        let models = [("digest".to_owned(), stamp)];
        store.keep(&models);
        assert_eq!(store.read(), models);
        let path = state.path().join(FILE_NAME);
        let kept = std::fs::read_to_string(&path).expect("kept");
        for spoilt in [&kept[..kept.len() / 2], "{\"format\":2,\"models\":[]}", ""] {
            std::fs::write(&path, spoilt).expect("writable");
            assert_eq!(store.read(), []);
        }
    }
}
