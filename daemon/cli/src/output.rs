//! Results that appear complete or not at all: they are written beside their places and renamed at
//! the end. Whatever ends the work before, nothing is left behind.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};

/// What a file made without a detour would have; the user's mask applies.
const FILE_MODE: u32 = 0o666;
const PREFIX: &str = ".mote-";

/// A file beside its place; dropped, it is gone.
pub struct PendingFile {
    file: NamedTempFile,
    path: PathBuf,
    replace: bool,
}

impl PendingFile {
    /// An empty file that [`keep_all`] will put at `path`, instead of an older one only with
    /// `replace`.
    pub fn create(path: &Path, replace: bool) -> Result<Self> {
        if path.is_dir() {
            bail!("{} is a folder", path.display());
        }
        if path.exists() && !replace {
            bail!("{} exists; replace it with --force", path.display());
        }
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(parent_of(path)?)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            replace,
        })
    }

    /// To be written to.
    pub fn file(&self) -> &File {
        self.file.as_file()
    }
}

/// Puts complete files in their places. When one cannot be, those that are new are taken back.
pub fn keep_all(files: Vec<PendingFile>) -> Result<()> {
    let mut new: Vec<PathBuf> = Vec::new();
    for file in files {
        let PendingFile {
            file,
            path,
            replace,
        } = file;
        let is_new = !path.exists();
        let kept = if replace {
            file.persist(&path)
        } else {
            file.persist_noclobber(&path)
        };
        if let Err(error) = kept {
            for path in &new {
                remove(path);
            }
            return Err(error.error)
                .with_context(|| format!("cannot put {} in place", path.display()));
        }
        if is_new {
            new.push(path);
        }
    }
    Ok(())
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}

/// Files on their way into a folder, which may be there already; dropped, they are gone.
pub struct PendingFolder {
    stage: TempDir,
    path: PathBuf,
}

impl PendingFolder {
    /// An empty folder beside `path`, or in it when it is there.
    pub fn create(path: &Path) -> Result<Self> {
        ensure!(
            path.is_dir() || !path.exists(),
            "{} is no folder",
            path.display()
        );
        let place = if path.is_dir() {
            path
        } else {
            parent_of(path)?
        };
        let failed = || format!("cannot create a folder in {}", place.display());
        let stage = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(place)
            .with_context(failed)?;
        let pending = Self {
            stage,
            path: path.to_owned(),
        };
        std::fs::create_dir(pending.folder()).with_context(failed)?;
        Ok(pending)
    }

    /// To be filled with files.
    pub fn folder(&self) -> PathBuf {
        self.stage.path().join("files")
    }

    /// Puts the complete files in their place. In a folder that was there, files of the same names
    /// are replaced, and others that are `stale` are removed.
    pub fn keep(self, stale: impl Fn(&str) -> bool) -> Result<()> {
        let folder = self.folder();
        let failed = || format!("cannot put {} in place", self.path.display());
        if !self.path.exists() {
            return std::fs::rename(&folder, &self.path).with_context(failed);
        }
        let mut kept = BTreeSet::new();
        for name in names_in(&folder).with_context(failed)? {
            std::fs::rename(folder.join(&name), self.path.join(&name)).with_context(failed)?;
            kept.insert(name);
        }
        for name in names_in(&self.path).with_context(failed)? {
            if !kept.contains(&name) && name.to_str().is_some_and(&stale) {
                remove(&self.path.join(&name));
            }
        }
        Ok(())
    }
}

fn names_in(folder: &Path) -> std::io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

/// The folder that a path lies in, which must be there.
pub fn parent_of(path: &Path) -> Result<&Path> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    ensure!(parent.is_dir(), "there is no folder {}", parent.display());
    Ok(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = names_in(folder)
            .expect("it can be listed")
            .into_iter()
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    fn pending(path: &Path, replace: bool, text: &str) -> PendingFile {
        let pending = PendingFile::create(path, replace).expect("it can be made");
        pending.file().write_all(text.as_bytes()).expect("written");
        pending
    }

    #[test]
    fn files_appear_together_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        drop(pending(&a, false, "lost"));
        assert!(names(folder.path()).is_empty());

        let files = vec![pending(&a, false, "one"), pending(&b, false, "two")];
        // Somebody else was faster.
        std::fs::write(&b, "precious").expect("written");
        assert!(keep_all(files).is_err());
        assert_eq!(names(folder.path()), ["b"]);
        assert_eq!(std::fs::read_to_string(&b).expect("read"), "precious");

        assert!(PendingFile::create(&b, false).is_err());
        let files = vec![pending(&a, false, "one"), pending(&b, true, "two")];
        keep_all(files).expect("kept");
        assert_eq!(names(folder.path()), ["a", "b"]);
        assert_eq!(std::fs::read_to_string(&b).expect("read"), "two");
    }

    #[test]
    fn a_folder_is_replaced_file_by_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("frames");
        let fill = |names: &[&str]| {
            let pending = PendingFolder::create(&path).expect("it can be made");
            for name in names {
                std::fs::write(pending.folder().join(name), name).expect("written");
            }
            pending
        };
        drop(fill(&["lost"]));
        assert!(names(folder.path()).is_empty());
        fill(&["f1", "f2", "f3"]).keep(|_| true).expect("kept");
        assert_eq!(names(folder.path()), ["frames"]);
        std::fs::write(path.join("notes"), "mine").expect("written");
        fill(&["f1"])
            .keep(|name| name.starts_with('f'))
            .expect("kept");
        assert_eq!(names(&path), ["f1", "notes"]);
    }
}
