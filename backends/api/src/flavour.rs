//! A runtime flavour: one set of libraries that a worker process loads, described by a
//! `runtime.toml` beside them.

use crate::digest::Digest;
use crate::manifest::BackendKind;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the description in a flavour's folder.
pub const RUNTIME_FILE_NAME: &str = "runtime.toml";
/// The flavour that is always there, compiled into the worker.
pub const TRACT_FLAVOUR: &str = "tract";
const RUNTIME_FILE_BYTES_MAX: u64 = 64 << 10;

/// A set of libraries of one inference runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flavour {
    /// Version of this file's format: 1.
    pub format: u32,
    /// Name: `onnxruntime-cpu`, `tflite`, …
    pub name: String,
    /// Inference library.
    pub backend: BackendKind,
    /// The library's version as packaged.
    pub version: String,
    /// The library to load: a file name in the folder, or an absolute path of a vendor's build.
    pub library: PathBuf,
    /// Licence as the package states it.
    pub licence: String,
    /// Every file of the folder that is loaded, with its digest.
    #[serde(default)]
    pub files: Vec<FlavourFile>,
}

/// One file of a flavour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlavourFile {
    /// File name in the folder.
    pub name: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
}

/// Why a flavour's folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum FlavourError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{} is larger than {RUNTIME_FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not a runtime description", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        cause: Box<toml::de::Error>,
    },
    #[error("{} has format {have}; this version reads format 1", path.display())]
    Format { path: PathBuf, have: u32 },
    #[error("{} does not match its digest", path.display())]
    Altered { path: PathBuf },
}

impl Flavour {
    /// The built-in tract flavour.
    pub fn tract(version: &str) -> Self {
        Self {
            format: 1,
            name: TRACT_FLAVOUR.into(),
            backend: BackendKind::Tract,
            version: version.into(),
            library: PathBuf::new(),
            licence: "MIT OR Apache-2.0".into(),
            files: Vec::new(),
        }
    }

    /// Reads the description in `folder`.
    ///
    /// # Errors
    /// When it is missing, too large, or not of a known format.
    pub fn read(folder: &Path) -> Result<Self, FlavourError> {
        let path = folder.join(RUNTIME_FILE_NAME);
        let read = |cause| FlavourError::Read {
            path: path.clone(),
            cause,
        };
        if std::fs::metadata(&path).map_err(read)?.len() > RUNTIME_FILE_BYTES_MAX {
            return Err(FlavourError::TooLarge { path });
        }
        let text = std::fs::read_to_string(&path).map_err(read)?;
        let flavour: Self = toml::from_str(&text).map_err(|cause| FlavourError::Parse {
            path: path.clone(),
            cause: Box::new(cause),
        })?;
        match flavour.format {
            1 => Ok(flavour),
            have => Err(FlavourError::Format { path, have }),
        }
    }

    /// Where the library lies when the description was read from `folder`.
    pub fn library_path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.library)
    }

    /// Checks size and digest of every file.
    ///
    /// # Errors
    /// Names the first file that is missing or altered.
    pub fn verify(&self, folder: &Path) -> Result<(), FlavourError> {
        for file in &self.files {
            let path = folder.join(&file.name);
            let read = |cause| FlavourError::Read {
                path: path.clone(),
                cause,
            };
            let same_size = std::fs::metadata(&path).map_err(read)?.len() == file.bytes;
            if !same_size || Digest::of_file(&path).map_err(read)? != file.digest {
                return Err(FlavourError::Altered { path });
            }
        }
        Ok(())
    }
}
