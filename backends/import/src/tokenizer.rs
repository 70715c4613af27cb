//! Rebuilds a Hugging Face tokenizer from the vocabulary in GGUF metadata.

use serde::Serialize;
use thiserror::Error;
use tokenizers::{
    AddedToken, Tokenizer,
    decoders::byte_level::ByteLevel as ByteLevelDecoder,
    models::bpe::{BPE, Vocab},
    processors::template::TemplateProcessing,
};

use crate::{
    gguf::{GgufError, Metadata, required},
    pre_tokenizer::Cut,
    safetensors::SafetensorsError,
    sentence_piece::{self, JOINED_BYTES_MAX},
};

const EOS_KEYS: [&str; 2] = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"];
const ADD_BOS_KEY: &str = "tokenizer.ggml.add_bos_token";
const TYPE_NORMAL: i64 = 1;
const TYPE_UNKNOWN: i64 = 2;
const TYPE_CONTROL: i64 = 3;
const TYPE_USER_DEFINED: i64 = 4;

/// A tokenizer in the files that Hugging Face libraries read.
#[derive(Debug)]
pub struct TokenizerFiles {
    /// Content of `tokenizer.json`.
    pub tokenizer_json: String,
    /// Content of `tokenizer_config.json`.
    pub tokenizer_config_json: String,
    /// Content of `chat_template.jinja`, when the checkpoint has a template.
    pub chat_template: Option<String>,
    /// Tokens with a role of their own.
    pub special: SpecialTokens,
}

/// Tokens with a role of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<u32>,
    /// Any of these ends a sequence.
    pub eos: Vec<u32>,
    /// Fills unused positions.
    pub padding: Option<u32>,
    /// Stands for what the vocabulary lacks.
    pub unknown: Option<u32>,
}

/// Why a tokenizer cannot be rebuilt.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The metadata lack something or have it in another type.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// Another model than byte-level BPE (`gpt2`) and SentencePiece's BPE (`llama`).
    #[error("tokenizer model {name:?} is not supported")]
    UnsupportedModel {
        /// The model's name.
        name: String,
    },
    /// There are more ways to make tokens of others than a vocabulary has any use for.
    #[error("tokens can be made of others in more than {limit} ways")]
    Merges {
        /// How many there may be.
        limit: usize,
    },
    /// A pre-tokenizer whose rules are not known here.
    #[error("pre-tokenizer {name:?} is not supported")]
    UnsupportedPreTokenizer {
        /// The pre-tokenizer's name.
        name: String,
    },
    /// The metadata ask for something that would change token sequences.
    #[error("metadata key {key:?} asks for something that is not supported")]
    UnsupportedFeature {
        /// The key.
        key: &'static str,
    },
    /// Vocabulary and embedding, or vocabulary and token types, differ in length.
    #[error("{key:?} has {found} entries, not {expected}")]
    Count {
        /// The key.
        key: &'static str,
        /// Its length.
        found: usize,
        /// The length needed.
        expected: usize,
    },
    /// A token occurs twice.
    #[error("token {id} occurs twice in the vocabulary")]
    DuplicateToken {
        /// Its second id.
        id: usize,
    },
    /// A token has a type that no known vocabulary uses.
    #[error("token {id} has the unknown type {kind}")]
    TokenType {
        /// The token.
        id: usize,
        /// Its type.
        kind: i64,
    },
    /// A token's score is no number.
    #[error("the score of token {id} is no number")]
    Score {
        /// The token.
        id: usize,
    },
    /// A token is longer than any that joins others.
    #[error("token {id} has {bytes} bytes, more than {JOINED_BYTES_MAX}")]
    TokenBytes {
        /// The token.
        id: usize,
        /// Its length.
        bytes: usize,
    },
    /// A merge is not two tokens apart by one space.
    #[error("merge {index} is not a pair of tokens")]
    Merge {
        /// Position in the list of merges.
        index: usize,
    },
    /// A special token is outside the vocabulary.
    #[error("{key:?} names token {id}, which is outside the vocabulary")]
    TokenId {
        /// The key.
        key: String,
        /// The token named.
        id: u64,
    },
    /// The tokenizer library refuses the parts.
    #[error("cannot assemble the tokenizer")]
    Build(#[source] tokenizers::Error),
    /// A file of the folder cannot be read.
    #[error(transparent)]
    Folder(#[from] SafetensorsError),
    /// The folder's `tokenizer.json` is none.
    #[error("cannot parse tokenizer.json")]
    Parse(#[source] tokenizers::Error),
    /// The folder's tokenizer makes tokens that the model does not have.
    #[error("tokenizer.json has token {id}, the model has {vocab}")]
    OutsideVocabulary {
        /// The largest token.
        id: u32,
        /// Tokens that the model has.
        vocab: usize,
    },
    /// The configuration file cannot be serialised.
    #[error("cannot serialise tokenizer_config.json")]
    Serialise(#[source] serde_json::Error),
}

impl TokenizerFiles {
    /// Rebuilds the tokenizer of a checkpoint with `vocab` embeddings that was trained for
    /// `context_tokens`.
    pub fn from_metadata(
        metadata: &Metadata,
        vocab: usize,
        context_tokens: usize,
    ) -> Result<Self, TokenizerError> {
        let scheme = scheme(metadata)?;
        let tokens = listed(metadata, "tokenizer.ggml.tokens")?;
        if tokens.len() != vocab {
            return Err(TokenizerError::Count {
                key: "tokenizer.ggml.tokens",
                found: tokens.len(),
                expected: vocab,
            });
        }
        let kinds = kinds(metadata, tokens.len())?;
        let special = special_tokens(metadata, vocab, scheme)?;
        let mut tokenizer = match scheme {
            Scheme::ByteLevel(cut) => byte_level(metadata, tokens, cut)?,
            Scheme::SentencePiece { begins_with_space } => {
                let parts = (vocabulary(tokens)?, special.unknown);
                let bpe = sentence_piece::bpe(metadata, (tokens, kinds), parts)?;
                let mut tokenizer = Tokenizer::new(bpe);
                tokenizer
                    .with_normalizer(Some(sentence_piece::normalizer(begins_with_space)?))
                    .map_err(TokenizerError::Build)?;
                tokenizer.with_decoder(Some(sentence_piece::decoder(begins_with_space)?));
                tokenizer
            }
        };
        for added in added_tokens((tokens, kinds), scheme)? {
            let added = [added];
            if added[0].special {
                tokenizer.add_special_tokens(added)
            } else {
                tokenizer.add_tokens(added)
            }
            .map_err(TokenizerError::Build)?;
        }
        let begins = metadata.bool(ADD_BOS_KEY)?.unwrap_or(scheme.begins());
        if begins {
            tokenizer.with_post_processor(Some(beginning(tokens, special.bos)?));
        }
        Ok(Self {
            tokenizer_json: tokenizer.to_string(false).map_err(TokenizerError::Build)?,
            tokenizer_config_json: config_json(tokens, &special, (context_tokens, begins))?,
            chat_template: metadata
                .text("tokenizer.chat_template")?
                .map(ToOwned::to_owned),
            special,
        })
    }
}

/// How a vocabulary makes tokens of text.
#[derive(Clone, Copy)]
enum Scheme {
    ByteLevel(Cut),
    SentencePiece { begins_with_space: bool },
}

impl Scheme {
    /// Whether sequences begin with a token of their own unless the metadata say otherwise.
    fn begins(self) -> bool {
        match self {
            Self::ByteLevel(cut) => cut.begins,
            Self::SentencePiece { .. } => true,
        }
    }
}

fn scheme(metadata: &Metadata) -> Result<Scheme, TokenizerError> {
    let text = |key| -> Result<&str, GgufError> { required(key, metadata.text(key)?) };
    let refuse = |key: &'static str| match metadata.bool(key)? {
        Some(true) => Err(TokenizerError::UnsupportedFeature { key }),
        _ => Ok(()),
    };
    refuse("tokenizer.ggml.add_eos_token")?;
    match text("tokenizer.ggml.model")? {
        "gpt2" => {
            refuse("tokenizer.ggml.add_space_prefix")?;
            let name = text("tokenizer.ggml.pre")?;
            let cut = Cut::named(name).ok_or_else(|| TokenizerError::UnsupportedPreTokenizer {
                name: name.to_owned(),
            })?;
            Ok(Scheme::ByteLevel(cut))
        }
        "llama" => Ok(Scheme::SentencePiece {
            begins_with_space: sentence_piece::begins_with_space(metadata)?,
        }),
        name => Err(TokenizerError::UnsupportedModel {
            name: name.to_owned(),
        }),
    }
}

fn byte_level(
    metadata: &Metadata,
    tokens: &[String],
    cut: Cut,
) -> Result<Tokenizer, TokenizerError> {
    let mut tokenizer = Tokenizer::new(bpe(metadata, tokens, cut)?);
    tokenizer
        .with_normalizer(cut.normalizer())
        .map_err(TokenizerError::Build)?;
    tokenizer.with_pre_tokenizer(Some(cut.pre_tokenizer().map_err(TokenizerError::Build)?));
    tokenizer.with_decoder(Some(ByteLevelDecoder::new(true, true, true)));
    Ok(tokenizer)
}

/// Puts the token that begins a sequence before it.
fn beginning(tokens: &[String], bos: Option<u32>) -> Result<TemplateProcessing, TokenizerError> {
    let missing = || GgufError::MissingKey {
        key: "tokenizer.ggml.bos_token_id".to_owned(),
    };
    let id = bos.ok_or_else(missing)?;
    let token = tokens[id as usize].clone();
    let build = |error: String| TokenizerError::Build(error.into());
    TemplateProcessing::builder()
        .try_single(vec![token.clone(), "$A".to_owned()])
        .map_err(build)?
        .special_tokens(vec![(token, id)])
        .build()
        .map_err(|error| build(error.to_string()))
}

fn listed<'a>(metadata: &'a Metadata, key: &str) -> Result<&'a [String], GgufError> {
    required(key, metadata.texts(key)?)
}

fn vocabulary(tokens: &[String]) -> Result<Vocab, TokenizerError> {
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        // The vocabulary is bounded far below u32.
        if vocab.insert(token.clone(), id as u32).is_some() {
            return Err(TokenizerError::DuplicateToken { id });
        }
    }
    Ok(vocab)
}

fn bpe(metadata: &Metadata, tokens: &[String], cut: Cut) -> Result<BPE, TokenizerError> {
    let merges = listed(metadata, "tokenizer.ggml.merges")?
        .iter()
        .enumerate()
        .map(|(index, merge)| match merge.split_once(' ') {
            Some((left, right))
                if !left.is_empty() && !right.is_empty() && !right.contains(' ') =>
            {
                Ok((left.to_owned(), right.to_owned()))
            }
            _ => Err(TokenizerError::Merge { index }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    BPE::builder()
        .vocab_and_merges(vocabulary(tokens)?, merges)
        .ignore_merges(cut.whole_tokens)
        .build()
        .map_err(TokenizerError::Build)
}

/// The type of each token.
fn kinds(metadata: &Metadata, count: usize) -> Result<&[i64], TokenizerError> {
    let key = "tokenizer.ggml.token_type";
    let kinds = required(key, metadata.signed_array(key)?)?;
    match kinds.len() == count {
        true => Ok(kinds),
        false => Err(TokenizerError::Count {
            key,
            found: kinds.len(),
            expected: count,
        }),
    }
}

/// Tokens that are matched before the text is split: control tokens (special) and
/// user-defined ones.
fn added_tokens(
    (tokens, kinds): (&[String], &[i64]),
    scheme: Scheme,
) -> Result<Vec<AddedToken>, TokenizerError> {
    let mut added = Vec::new();
    for (id, (token, &kind)) in tokens.iter().zip(kinds).enumerate() {
        let special = match (kind, scheme) {
            (TYPE_UNKNOWN, Scheme::SentencePiece { .. }) | (TYPE_CONTROL, _) => true,
            (TYPE_USER_DEFINED, _) => false,
            // 5 unused, 6 byte: no treatment of their own.
            (TYPE_NORMAL | TYPE_UNKNOWN | 5 | 6, _) => continue,
            _ => return Err(TokenizerError::TokenType { id, kind }),
        };
        added.push(AddedToken::from(token.clone(), special).normalized(false));
    }
    Ok(added)
}

fn special_tokens(
    metadata: &Metadata,
    vocab: usize,
    scheme: Scheme,
) -> Result<SpecialTokens, TokenizerError> {
    let id = |key: &str| -> Result<Option<u32>, TokenizerError> {
        match metadata.integer(key)? {
            None => Ok(None),
            Some(id) if id < vocab as u64 => Ok(Some(id as u32)),
            Some(id) => Err(TokenizerError::TokenId {
                key: key.to_owned(),
                id,
            }),
        }
    };
    let mut eos = Vec::new();
    for key in EOS_KEYS {
        eos.extend(id(key)?.filter(|id| !eos.contains(id)));
    }
    let or = |found: Option<u32>, default: u32| match scheme {
        Scheme::ByteLevel(_) => found,
        Scheme::SentencePiece { .. } => found.or(Some(default).filter(|&id| (id as usize) < vocab)),
    };
    if eos.is_empty() {
        eos.extend(or(None, sentence_piece::EOS_DEFAULT));
    }
    let (bos, unknown) = (
        id("tokenizer.ggml.bos_token_id")?,
        id("tokenizer.ggml.unknown_token_id")?,
    );
    Ok(SpecialTokens {
        bos: or(bos, sentence_piece::BOS_DEFAULT),
        eos,
        padding: id("tokenizer.ggml.padding_token_id")?,
        unknown: or(unknown, sentence_piece::UNKNOWN_DEFAULT),
    })
}

#[derive(Serialize)]
struct TokenizerConfig<'a> {
    tokenizer_class: &'static str,
    add_bos_token: bool,
    add_prefix_space: bool,
    clean_up_tokenization_spaces: bool,
    model_max_length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    bos_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eos_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pad_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unk_token: Option<&'a str>,
}

fn config_json(
    tokens: &[String],
    special: &SpecialTokens,
    (context_tokens, begins): (usize, bool),
) -> Result<String, TokenizerError> {
    let text = |id: Option<u32>| id.map(|id| tokens[id as usize].as_str());
    let config = TokenizerConfig {
        tokenizer_class: "PreTrainedTokenizerFast",
        add_bos_token: begins,
        add_prefix_space: false,
        clean_up_tokenization_spaces: false,
        model_max_length: context_tokens,
        bos_token: text(special.bos),
        eos_token: text(special.eos.first().copied()),
        pad_token: text(special.padding),
        unk_token: text(special.unknown),
    };
    serde_json::to_string_pretty(&config).map_err(TokenizerError::Serialise)
}
