//! A checkpoint on disk, in either format.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    ImportError,
    checkpoint::{
        self, Checkpoint, ModelConfig, open_gguf, open_hugging_face, open_hugging_face_without_head,
    },
    digest::{Digest, Hasher},
    emit::Gives,
    gguf::{self, Gguf},
    licence,
    progress::{Monitor, Stage},
    safetensors::{
        SafetensorsError, SafetensorsFolder, limits, read_optional, read_required, read_start,
    },
    tokenizer::TokenizerFiles,
    tokenizer_folder,
};

const DIGEST_BYTES: usize = 1 << 20;
/// What describes the model to people, in folders.
const CARD_FILE: &str = "README.md";
const LICENCE_KEY: &str = "general.license";
/// What licences are called in folders.
const LICENCE_FILES: [&str; 4] = ["LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"];

/// An open checkpoint.
pub(crate) enum Source {
    Gguf(Gguf),
    Folder(Folder),
}

/// A Hugging Face folder.
pub(crate) struct Folder {
    weights: SafetensorsFolder,
    config: Map<String, Value>,
}

impl Source {
    /// Opens what is at `path`: a folder with safetensors, or else a GGUF file.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        if !path.is_dir() {
            return Ok(Self::Gguf(Gguf::open(path).map_err(ImportError::Source)?));
        }
        Ok(Self::Folder(Folder {
            config: checkpoint::read_config(path)?,
            weights: SafetensorsFolder::open(path)?,
        }))
    }

    /// What is in it, checked: all that is needed for what is to be given.
    pub fn checkpoint(&self, gives: Gives) -> Result<Checkpoint<'_>, ImportError> {
        Ok(match self {
            Self::Gguf(gguf) => open_gguf(gguf)?,
            Self::Folder(folder) => match gives {
                Gives::Logits => open_hugging_face(&folder.weights, &folder.config)?,
                Gives::States => open_hugging_face_without_head(&folder.weights, &folder.config)?,
            },
        })
    }

    /// Elements of all tensors, and their size in bytes.
    pub fn sizes(&self) -> (u64, u64) {
        match self {
            Self::Gguf(gguf) => {
                let elements = |rows: usize, columns: usize| rows as u64 * columns as u64;
                gguf.tensors().fold((0, 0), |(count, bytes), tensor| {
                    let more = elements(tensor.rows, tensor.columns);
                    (count + more, bytes + tensor.bytes)
                })
            }
            Self::Folder(folder) => (folder.weights.elements(), folder.weights.bytes()),
        }
    }

    /// Digests the open files, which need not be what their paths name by now: those of a
    /// folder one after the other, in the order of their names.
    pub fn digest(&self, monitor: &mut Monitor<'_>) -> Result<Digest, ImportError> {
        let mut hasher = Hasher::default();
        let mut piece = vec![0; DIGEST_BYTES];
        match self {
            Self::Gguf(gguf) => {
                let total = gguf.file_bytes();
                monitor.begin(Stage::Digest, total, total);
                let mut offset = 0;
                while offset < total {
                    let count = (total - offset).min(DIGEST_BYTES as u64) as usize;
                    let bytes = &mut piece[..count];
                    gguf.read_bytes(offset, bytes)
                        .map_err(ImportError::Source)?;
                    hasher.update(bytes);
                    monitor.advance(count)?;
                    offset += count as u64;
                }
            }
            Self::Folder(folder) => {
                let total = folder.weights.bytes();
                monitor.begin(Stage::Digest, total, total);
                folder.weights.for_each_piece(&mut piece, |bytes| {
                    hasher.update(bytes);
                    monitor.advance(bytes.len())
                })?;
            }
        }
        Ok(hasher.finish())
    }

    /// The tokenizer: rebuilt from metadata, or the folder's own.
    pub fn tokenizer(&self, config: &ModelConfig) -> Result<TokenizerFiles, ImportError> {
        let (vocab, context) = (config.vocab, config.context_tokens);
        Ok(match self {
            Self::Gguf(gguf) => TokenizerFiles::from_metadata(gguf.metadata(), vocab, context)?,
            Self::Folder(folder) => {
                tokenizer_folder::read(folder.weights.path(), &folder.config, vocab)?
            }
        })
    }

    /// SPDX identifier of the licence that the model card or the metadata name.
    pub fn licence_id(&self) -> Result<Option<String>, ImportError> {
        match self {
            Self::Gguf(gguf) => {
                let name = gguf.metadata().text(LICENCE_KEY);
                Ok(name
                    .map_err(ImportError::Source)?
                    .and_then(licence::identifier))
            }
            Self::Folder(folder) => {
                let path = folder.weights.path().join(CARD_FILE);
                let card = read_start(&path, limits::CARD_BYTES_MAX)?;
                Ok(card.and_then(|card| licence::of_card(&String::from_utf8_lossy(&card))))
            }
        }
    }

    /// llama.cpp's number of how vectors are pooled, where a GGUF file has one.
    pub fn pooling(&self) -> Result<Option<u64>, ImportError> {
        let Self::Gguf(gguf) = self else {
            return Ok(None);
        };
        let metadata = gguf.metadata();
        let architecture = metadata.text("general.architecture");
        let Some(architecture) = architecture.map_err(ImportError::Source)? else {
            return Ok(None);
        };
        Ok(
            match metadata.get(&format!("{architecture}.pooling_type")) {
                None => None,
                Some(gguf::Value::Unsigned(number)) => Some(*number),
                // No number of a pooling.
                Some(_) => Some(u64::MAX),
            },
        )
    }

    /// The folder, where it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Gguf(_) => None,
            Self::Folder(folder) => Some(folder.weights.path()),
        }
    }

    /// The licence that lies beside the weights.
    pub fn licence(&self) -> Result<Option<Vec<u8>>, SafetensorsError> {
        let Self::Folder(folder) = self else {
            return Ok(None);
        };
        for name in LICENCE_FILES {
            let path = folder.weights.path().join(name);
            if let Some(text) = read_optional(&path, limits::TEXT_BYTES_MAX)? {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }
}

impl Folder {
    /// The content of `config.json`.
    pub fn config_json(&self) -> Result<Vec<u8>, SafetensorsError> {
        let path = self.weights.path().join(checkpoint::CONFIG_FILE);
        read_required(&path, limits::CONFIG_BYTES_MAX)
    }
}
