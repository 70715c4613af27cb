//! What makes an embedding model of a decoder: how its vectors are pooled, and what goes before texts.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    ImportError, Obstacle,
    safetensors::{SafetensorsError, limits, read_optional},
};

/// What sentence-transformers writes beside a checkpoint.
const POOLING_FILE: &str = "1_Pooling/config.json";
const PROMPTS_FILE: &str = "config_sentence_transformers.json";
const MODULES_FILE: &str = "modules.json";
/// Modules that the emitted graph and the pooling stand for.
const MODULES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];
/// Keys of the pooling file that mean something else than the pooling.
const MODE: &str = "pooling_mode_";
const LAST: &str = "pooling_mode_lasttoken";
const MEAN: &str = "pooling_mode_mean_tokens";

/// An entry of the file of modules.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
}

/// How a text's vector is made of those of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The last token's.
    Last,
    /// The mean over all tokens.
    Mean,
}

impl Pooling {
    /// As manifests have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Mean => "mean",
        }
    }
}

/// What the manifest says of an embedding model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EmbeddingParts {
    pub pooling: Pooling,
    pub query_prefix: String,
    pub document_prefix: String,
}

impl EmbeddingParts {
    /// What the caller wants, else what sentence-transformers left in `folder` or the file's metadata say
    /// (`stored`, llama.cpp's number of the pooling), else the last token and no prefixes.
    ///
    /// # Errors
    /// When a file there is too large, or is not what it should be, and when vectors are made otherwise
    /// than by the last token or the mean.
    pub fn read(
        folder: Option<&Path>,
        stored: Option<u64>,
        wanted: Option<Pooling>,
    ) -> Result<Self, ImportError> {
        if let Some(folder) = folder {
            check_modules(&folder.join(MODULES_FILE))?;
        }
        let object = |name: &str| match folder {
            None => Ok(Map::new()),
            Some(folder) => read_object(&folder.join(name)),
        };
        let pooling = object(POOLING_FILE)?;
        let prompts = object(PROMPTS_FILE)?;
        let said = match (pooling.is_empty(), stored) {
            (false, _) => Some(pooling_of(&pooling)),
            (true, Some(number)) => Some(match number {
                1 => Some(Pooling::Mean),
                3 => Some(Pooling::Last),
                _ => None,
            }),
            (true, None) => None,
        };
        let pooling = match (wanted, said) {
            (Some(wanted), _) => wanted,
            (None, None) => Pooling::Last,
            (None, Some(said)) => said.ok_or(ImportError::Inexpressible {
                obstacle: Obstacle::Pooling,
            })?,
        };
        let prompt = |name: &str| {
            let text = prompts.get("prompts").and_then(|all| all.get(name));
            text.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Ok(Self {
            pooling,
            query_prefix: prompt("query"),
            document_prefix: prompt("document"),
        })
    }
}

/// Refuses what would change vectors behind the pooling.
fn check_modules(path: &Path) -> Result<(), ImportError> {
    let Some(text) = read_optional(path, limits::CONFIG_BYTES_MAX)? else {
        return Ok(());
    };
    let modules: Vec<Module> =
        serde_json::from_slice(&text).map_err(|source| SafetensorsError::Json {
            path: path.to_owned(),
            source,
        })?;
    let is_known = |module: &Module| {
        let name = module.kind.rsplit('.').next();
        name.is_some_and(|name| MODULES.contains(&name))
    };
    match modules.iter().all(is_known) {
        true => Ok(()),
        false => Err(ImportError::Inexpressible {
            obstacle: Obstacle::Modules,
        }),
    }
}

/// The one mode that is set, if it is one of ours.
fn pooling_of(file: &Map<String, Value>) -> Option<Pooling> {
    let set = file
        .iter()
        .filter(|(key, value)| key.starts_with(MODE) && value.as_bool() == Some(true));
    match set.map(|(key, _)| key.as_str()).collect::<Vec<_>>()[..] {
        [LAST] => Some(Pooling::Last),
        [MEAN] => Some(Pooling::Mean),
        _ => None,
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>, SafetensorsError> {
    match read_optional(path, limits::CONFIG_BYTES_MAX)? {
        None => Ok(Map::new()),
        Some(text) => serde_json::from_slice(&text).map_err(|source| SafetensorsError::Json {
            path: path.to_owned(),
            source,
        }),
    }
}
