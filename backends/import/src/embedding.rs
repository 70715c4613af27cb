//! What makes an embedding model of a decoder: how its vectors are pooled, and what goes before texts.

use std::path::Path;

use serde_json::{Map, Value};

use crate::safetensors::{SafetensorsError, limits, read_optional};

/// What sentence-transformers writes beside a checkpoint.
const POOLING_FILE: &str = "1_Pooling/config.json";
const PROMPTS_FILE: &str = "config_sentence_transformers.json";
/// Keys of the pooling file that mean something else than the pooling.
const MODE: &str = "pooling_mode_";
const LAST: &str = "pooling_mode_lasttoken";
const MEAN: &str = "pooling_mode_mean_tokens";

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
    /// What the caller wants, else what sentence-transformers left in `folder`, else the last token and
    /// no prefixes.
    ///
    /// # Errors
    /// When a file there is too large, or is no JSON object.
    pub fn read(folder: Option<&Path>, wanted: Option<Pooling>) -> Result<Self, SafetensorsError> {
        let object = |name: &str| match folder {
            None => Ok(Map::new()),
            Some(folder) => read_object(&folder.join(name)),
        };
        let pooling = object(POOLING_FILE)?;
        let prompts = object(PROMPTS_FILE)?;
        let prompt = |name: &str| {
            let text = prompts.get("prompts").and_then(|all| all.get(name));
            text.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        Ok(Self {
            pooling: wanted.or(pooling_of(&pooling)).unwrap_or(Pooling::Last),
            query_prefix: prompt("query"),
            document_prefix: prompt("document"),
        })
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
