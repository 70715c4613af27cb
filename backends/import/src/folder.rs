//! A model folder that appears complete or not at all.
//!
//! Files are written to a stage folder beside the target, synced, read back against the
//! digests made while writing, and the folder is renamed into place. Dropping an
//! unpublished stage removes it.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    ImportError,
    digest::{Digest, Hasher},
    progress::{Monitor, Stage},
};

const COPY_BYTES: usize = 1 << 20;

/// A file of a published folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// Name within the folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Digest of its content.
    pub digest: Digest,
}

/// A folder being written.
pub(crate) struct StageFolder {
    path: PathBuf,
    target: PathBuf,
    files: Vec<FileReport>,
    published: bool,
}

impl StageFolder {
    /// Makes an empty stage folder beside `target`, which must not exist.
    pub fn create(target: &Path) -> Result<Self, ImportError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(ImportError::TargetPath {
                path: target.to_owned(),
            });
        };
        if target.symlink_metadata().is_ok() {
            return Err(ImportError::TargetExists {
                path: target.to_owned(),
            });
        }
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!(
            ".{}.importing-{}-{serial}",
            name.to_string_lossy(),
            process::id()
        ));
        fs::create_dir_all(parent).map_err(write_error(parent))?;
        fs::create_dir(&path).map_err(write_error(&path))?;
        Ok(Self {
            path,
            target: target.to_owned(),
            files: Vec::new(),
            published: false,
        })
    }

    /// Opens a new file for writing.
    pub fn file(&self, name: &str) -> Result<StagedFile, ImportError> {
        let path = self.path.join(name);
        let file = File::create_new(&path).map_err(write_error(&path))?;
        Ok(StagedFile {
            writer: BufWriter::with_capacity(COPY_BYTES, file),
            name: name.to_owned(),
            path,
            bytes: 0,
            hasher: Hasher::default(),
        })
    }

    /// Takes a written file into the folder, on disk.
    pub fn keep(&mut self, file: StagedFile) -> Result<(), ImportError> {
        let report = file.finish()?;
        self.files.push(report);
        Ok(())
    }

    /// Writes a whole file.
    pub fn write(&mut self, name: &str, content: &[u8]) -> Result<(), ImportError> {
        let mut file = self.file(name)?;
        file.write(content)?;
        self.keep(file)
    }

    /// The files written so far.
    pub fn files(&self) -> &[FileReport] {
        &self.files
    }

    /// Reads every file back and compares it with what was written.
    pub fn verify(&self, monitor: &mut Monitor<'_>) -> Result<(), ImportError> {
        let total = self.files.iter().map(|file| file.bytes).sum();
        monitor.begin(Stage::Verify, total, total);
        for file in &self.files {
            let path = self.path.join(&file.name);
            let found = digest_of(&path, monitor)?;
            if found != file.digest {
                return Err(ImportError::Verify { path });
            }
        }
        Ok(())
    }

    /// The file `name` as it is on disk.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, ImportError> {
        let path = self.path.join(name);
        fs::read(&path).map_err(read_error(&path))
    }

    /// Renames the folder to its target and returns its files.
    pub fn publish(mut self) -> Result<Vec<FileReport>, ImportError> {
        sync_folder(&self.path)?;
        fs::rename(&self.path, &self.target).map_err(|source| ImportError::Publish {
            path: self.target.clone(),
            source,
        })?;
        self.published = true;
        if let Some(parent) = self.target.parent() {
            sync_folder(parent)?;
        }
        Ok(std::mem::take(&mut self.files))
    }
}

impl Drop for StageFolder {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            log::warn!(error:%; "cannot remove an unfinished import");
        }
    }
}

/// A file of a stage folder, being written and digested.
pub(crate) struct StagedFile {
    writer: BufWriter<File>,
    name: String,
    path: PathBuf,
    bytes: u64,
    hasher: Hasher,
}

impl StagedFile {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn write(&mut self, content: &[u8]) -> Result<(), ImportError> {
        self.writer
            .write_all(content)
            .map_err(write_error(&self.path))?;
        self.hasher.update(content);
        self.bytes += content.len() as u64;
        Ok(())
    }

    fn finish(self) -> Result<FileReport, ImportError> {
        let file = self
            .writer
            .into_inner()
            .map_err(|error| write_error(&self.path)(error.into_error()))?;
        file.sync_all().map_err(write_error(&self.path))?;
        Ok(FileReport {
            name: self.name,
            bytes: self.bytes,
            digest: self.hasher.finish(),
        })
    }
}

/// The digest of the file at `path`, reported to `monitor` byte by byte.
pub(crate) fn digest_of(path: &Path, monitor: &mut Monitor<'_>) -> Result<Digest, ImportError> {
    let mut file = File::open(path).map_err(read_error(path))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match file.read(&mut buffer).map_err(read_error(path))? {
            0 => return Ok(hasher.finish()),
            count => {
                hasher.update(&buffer[..count]);
                monitor.advance(count)?;
            }
        }
    }
}

fn sync_folder(path: &Path) -> Result<(), ImportError> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(write_error(path))
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> ImportError {
    let path = path.to_owned();
    |source| ImportError::Write { path, source }
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ImportError {
    let path = path.to_owned();
    |source| ImportError::Read { path, source }
}
