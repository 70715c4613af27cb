//! Files of the state folder: what was found out, so that it need not be found out again.

use serde::de::DeserializeOwned;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// A JSON file of bounded size. Whatever is wrong with it, it is as if it were not there.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    bytes_max: u64,
}

impl StateFile {
    /// `name` in the state folder.
    pub fn new(state: &Path, name: &str, bytes_max: u64) -> Self {
        Self {
            path: state.join(name),
            bytes_max,
        }
    }

    /// What was kept. Why it cannot be read is told in the log, unless it is not there.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        match self.parse() {
            Ok(kept) => Some(kept),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let path = self.path.display().to_string();
                log::warn!(path = path; "cannot read what was found out, it is found out anew: {error}");
                None
            }
        }
    }

    fn parse<T: DeserializeOwned>(&self) -> std::io::Result<T> {
        let mut contents = Vec::new();
        let file = std::fs::File::open(&self.path)?;
        file.take(self.bytes_max + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > self.bytes_max {
            let why = format!("it is more than {} bytes", self.bytes_max);
            return Err(std::io::Error::new(ErrorKind::InvalidData, why));
        }
        Ok(serde_json::from_slice(&contents)?)
    }

    /// Keeps the first of `items` as the JSON that `make` makes of them: all of them, or as many halves as
    /// it takes to fit. A failure is told in the log.
    pub fn keep<I>(&self, items: &[I], make: impl Fn(&[I]) -> serde_json::Result<Vec<u8>>) {
        if let Err(error) = self.write(items, make) {
            let path = self.path.display().to_string();
            log::warn!(path = path; "cannot keep what was found out: {error}");
        }
    }

    /// Writes beside and renames, so that a reader sees the old file or the new one.
    fn write<I>(
        &self,
        mut items: &[I],
        make: impl Fn(&[I]) -> serde_json::Result<Vec<u8>>,
    ) -> std::io::Result<()> {
        let contents = loop {
            let contents = make(items)?;
            if contents.len() as u64 <= self.bytes_max || items.is_empty() {
                break contents;
            }
            items = &items[..items.len() / 2];
        };
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        let beside = self
            .path
            .with_extension(format!("json.{}", std::process::id()));
        let put = || {
            let mut new = std::fs::File::create(&beside)?;
            new.write_all(&contents)?;
            new.sync_all()?;
            std::fs::rename(&beside, &self.path)
        };
        put().inspect_err(|_| {
            // The error that is told is the one that came first.
            let _ = std::fs::remove_file(&beside);
        })
    }
}
