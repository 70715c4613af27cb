//! The tokenizer of a Hugging Face folder, whose files are kept as they are.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use crate::{
    manifest::{TEMPLATE_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE},
    safetensors::{SafetensorsError, limits, read_optional, read_required},
    tokenizer::{SpecialTokens, TokenizerError, TokenizerFiles},
};

const GENERATION_FILE: &str = "generation_config.json";

/// Reads the tokenizer of `folder`, whose `config.json` is `config`, for `vocab` embeddings.
///
/// # Errors
/// Refuses a `tokenizer.json` that is missing, no tokenizer, or makes tokens outside the
/// vocabulary.
pub(crate) fn read(
    folder: &Path,
    config: &Map<String, Value>,
    vocab: usize,
) -> Result<TokenizerFiles, TokenizerError> {
    let tokenizer = read_required(&folder.join(TOKENIZER_FILE), limits::TOKENIZER_BYTES_MAX)?;
    let parsed = Tokenizer::from_bytes(&tokenizer).map_err(TokenizerError::Parse)?;
    let largest = parsed.get_vocab(true).into_values().max();
    if let Some(id) = largest.filter(|&id| id as usize >= vocab) {
        return Err(TokenizerError::OutsideVocabulary { id, vocab });
    }
    let tokenizer_config = json(folder, TOKENIZER_CONFIG_FILE)?;
    let generation = json(folder, GENERATION_FILE)?.unwrap_or_default();
    let template = match text(folder, TEMPLATE_FILE)? {
        Some(template) => Some(template),
        None => tokenizer_config.as_ref().and_then(template),
    };
    let tokenizer_config = match text(folder, TOKENIZER_CONFIG_FILE)? {
        Some(text) => text,
        None => r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#.to_owned(),
    };
    Ok(TokenizerFiles {
        tokenizer_json: utf8(&folder.join(TOKENIZER_FILE), tokenizer)?,
        tokenizer_config_json: tokenizer_config,
        chat_template: template,
        special: special(&generation, config, vocab)?,
    })
}

fn text(folder: &Path, name: &str) -> Result<Option<String>, SafetensorsError> {
    let path = folder.join(name);
    match read_optional(&path, limits::CONFIG_BYTES_MAX)? {
        Some(bytes) => utf8(&path, bytes).map(Some),
        None => Ok(None),
    }
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, SafetensorsError> {
    String::from_utf8(bytes).map_err(|error| SafetensorsError::Read {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    })
}

fn json(folder: &Path, name: &str) -> Result<Option<Map<String, Value>>, SafetensorsError> {
    let Some(text) = text(folder, name)? else {
        return Ok(None);
    };
    let parsed = serde_json::from_str(&text).map_err(|source| SafetensorsError::Json {
        path: folder.join(name),
        source,
    })?;
    Ok(Some(parsed))
}

/// The template within `tokenizer_config.json`: the only one, or the one called `default`.
fn template(config: &Map<String, Value>) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(template) => Some(template.clone()),
        Value::Array(several) => several
            .iter()
            .find(|one| one["name"] == "default")
            .and_then(|one| one["template"].as_str())
            .map(ToOwned::to_owned),
        _ => None,
    }
}

/// Tokens with a role, from the settings for generation first: those know of tokens that end
/// an answer but not a text.
fn special(
    generation: &Map<String, Value>,
    config: &Map<String, Value>,
    vocab: usize,
) -> Result<SpecialTokens, TokenizerError> {
    let ids = |key: &str| -> Result<Vec<u32>, TokenizerError> {
        let is_set = |map: &&Map<String, Value>| map.get(key).is_some_and(|id| !id.is_null());
        let Some(map) = [generation, config].into_iter().find(is_set) else {
            return Ok(Vec::new());
        };
        let listed = match &map[key] {
            Value::Array(ids) => ids.as_slice(),
            one => std::slice::from_ref(one),
        };
        // Negative ones stand for none.
        let ids = listed.iter().filter_map(Value::as_u64);
        ids.map(|id| match u32::try_from(id) {
            Ok(small) if (small as usize) < vocab => Ok(small),
            _ => Err(TokenizerError::TokenId {
                key: key.to_owned(),
                id,
            }),
        })
        .collect()
    };
    let one = |key| ids(key).map(|ids| ids.first().copied());
    Ok(SpecialTokens {
        bos: one("bos_token_id")?,
        eos: ids("eos_token_id")?,
        padding: one("pad_token_id")?,
        unknown: None,
    })
}
