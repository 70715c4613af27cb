//! Reads the files of a text model's folder, each with a limit.

use crate::PipelineError;
use serde::Deserialize;
use std::io::Read;
use std::path::Path;
use tokenizers::Tokenizer;

/// Bytes of a `tokenizer.json` at most.
const TOKENIZER_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a `tokenizer_config.json` at most.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a chat template at most.
const TEMPLATE_BYTES_MAX: u64 = 1 << 20;
const CONFIG_FILE_NAME: &str = "tokenizer_config.json";

/// Special tokens by text, as chat templates want them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpecialTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
}

/// A special token in `tokenizer_config.json`: its text, or an object that holds it.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenEntry {
    Text(String),
    Object { content: String },
}

impl TokenEntry {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<TokenEntry>,
    eos_token: Option<TokenEntry>,
}

/// The tokenizer in `file`, without the padding and truncation it may have been saved with.
pub(crate) fn tokenizer(file: &Path) -> Result<Tokenizer, PipelineError> {
    let bytes = read(file, TOKENIZER_BYTES_MAX)?;
    let malformed = |cause| PipelineError::MalformedFile {
        file: file.to_owned(),
        cause,
    };
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(malformed)?;
    tokenizer.with_truncation(None).map_err(malformed)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The special tokens that the `tokenizer_config.json` beside `tokenizer` names, if there is one.
pub(crate) fn special_tokens(tokenizer: &Path) -> Result<SpecialTokens, PipelineError> {
    let file = tokenizer.with_file_name(CONFIG_FILE_NAME);
    let bytes = match read(&file, CONFIG_BYTES_MAX) {
        Err(PipelineError::ModelFile { cause, .. })
            if cause.kind() == std::io::ErrorKind::NotFound =>
        {
            return Ok(SpecialTokens::default());
        }
        other => other?,
    };
    let config: TokenizerConfig =
        serde_json::from_slice(&bytes).map_err(|cause| PipelineError::MalformedFile {
            file,
            cause: cause.into(),
        })?;
    Ok(SpecialTokens {
        bos: config.bos_token.map(TokenEntry::text),
        eos: config.eos_token.map(TokenEntry::text),
    })
}

/// The text of the chat template in `file`.
pub(crate) fn template(file: &Path) -> Result<String, PipelineError> {
    let bytes = read(file, TEMPLATE_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|cause| PipelineError::MalformedFile {
        file: file.to_owned(),
        cause: cause.into(),
    })
}

/// The bytes of a file.
///
/// # Errors
/// When it cannot be read or has more than `bytes_max`.
pub(crate) fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>, PipelineError> {
    let failed = |cause| PipelineError::ModelFile {
        file: file.to_owned(),
        cause,
    };
    let opened = std::fs::File::open(file).map_err(failed)?;
    let mut bytes = Vec::new();
    let limited = &mut opened.take(bytes_max + 1);
    limited.read_to_end(&mut bytes).map_err(failed)?;
    let have = bytes.len() as u64;
    if have > bytes_max {
        return Err(PipelineError::FileTooLarge {
            file: file.to_owned(),
            bytes_max,
        });
    }
    Ok(bytes)
}
