//! SentencePiece vocabularies (`llama` in GGUF) as byte-pair encodings with bytes to fall back on.
//!
//! Neighbours whose join is in the vocabulary are joined, those of the best score first; what is
//! in no token is spelled in bytes. Each piece of text between tokens of their own begins with a
//! space, as in llama.cpp.

use tokenizers::{
    DecoderWrapper, NormalizerWrapper,
    decoders::{
        byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip,
    },
    models::bpe::{BPE, Vocab},
    normalizers::{Prepend, Replace, Sequence as Normalizers},
};

use crate::{
    gguf::{Metadata, required},
    tokenizer::TokenizerError,
};

/// What a space is in tokens.
const SPACE: &str = "\u{2581}";
/// Ways to make tokens of two others, over all tokens, at most.
const MERGES_MAX: usize = 1 << 22;
/// Longest token that joins others, in bytes: what follows from a token grows with its square.
pub(crate) const JOINED_BYTES_MAX: usize = 256;
const SCORES_KEY: &str = "tokenizer.ggml.scores";
const PREFIX_KEY: &str = "tokenizer.ggml.add_space_prefix";
/// Rules for text before it is cut, which are not known here.
const RULES_KEY: &str = "tokenizer.ggml.precompiled_charsmap";
const TRIM_KEY: &str = "tokenizer.ggml.remove_extra_whitespaces";
/// Types of tokens that joins make: normal ones, and unused ones, as llama.cpp does.
const JOINED_TYPES: [i64; 2] = [1, 5];
/// Tokens that llama.cpp takes where the metadata name none.
pub(crate) const UNKNOWN_DEFAULT: u32 = 0;
pub(crate) const BOS_DEFAULT: u32 = 1;
pub(crate) const EOS_DEFAULT: u32 = 2;

/// Whether text begins with a space of its own, by `metadata`.
///
/// # Errors
/// Refuses settings that would change token sequences in ways that are not expressed here.
pub(crate) fn begins_with_space(metadata: &Metadata) -> Result<bool, TokenizerError> {
    if metadata.bool(TRIM_KEY)? == Some(true) {
        return Err(TokenizerError::UnsupportedFeature { key: TRIM_KEY });
    }
    if metadata.get(RULES_KEY).is_some() {
        return Err(TokenizerError::UnsupportedFeature { key: RULES_KEY });
    }
    Ok(metadata.bool(PREFIX_KEY)?.unwrap_or(true))
}

/// The encoding of `tokens` with their types `kinds`.
pub(crate) fn bpe(
    metadata: &Metadata,
    (tokens, kinds): (&[String], &[i64]),
    (vocab, unknown): (Vocab, Option<u32>),
) -> Result<BPE, TokenizerError> {
    let scores = scores(metadata, tokens.len())?;
    let merges = merges(&vocab, (tokens, kinds), scores)?;
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(true)
        .byte_fallback(true);
    if let Some(id) = unknown {
        builder = builder.unk_token(tokens[id as usize].clone());
    }
    builder.build().map_err(TokenizerError::Build)
}

fn scores(metadata: &Metadata, count: usize) -> Result<&[f64], TokenizerError> {
    let scores = required(SCORES_KEY, metadata.float_array(SCORES_KEY)?)?;
    if scores.len() != count {
        return Err(TokenizerError::Count {
            key: SCORES_KEY,
            found: scores.len(),
            expected: count,
        });
    }
    match scores.iter().position(|score| score.is_nan()) {
        None => Ok(scores),
        Some(id) => Err(TokenizerError::Score { id }),
    }
}

/// Every way to make a token of two others, those that make tokens of better scores first.
fn merges(
    vocab: &Vocab,
    (tokens, kinds): (&[String], &[i64]),
    scores: &[f64],
) -> Result<Vec<(String, String)>, TokenizerError> {
    let joined = |id: &usize| JOINED_TYPES.contains(&kinds[*id]);
    let mut order: Vec<usize> = (0..tokens.len()).filter(joined).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut merges = Vec::new();
    for id in order {
        let token = tokens[id].as_str();
        if token.len() > JOINED_BYTES_MAX {
            return Err(TokenizerError::TokenBytes {
                id,
                bytes: token.len(),
            });
        }
        let mut ways: Vec<(u32, u32)> = token
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| Some((*vocab.get(&token[..at])?, *vocab.get(&token[at..])?)))
            .collect();
        ways.sort_unstable();
        if merges.len() + ways.len() > MERGES_MAX {
            return Err(TokenizerError::Merges { limit: MERGES_MAX });
        }
        merges.extend(ways.into_iter().map(|(left, right)| {
            let text = |id: u32| tokens[id as usize].clone();
            (text(left), text(right))
        }));
    }
    Ok(merges)
}

/// What makes text of spaces that tokens have.
pub(crate) fn normalizer(begins_with_space: bool) -> Result<NormalizerWrapper, TokenizerError> {
    let replace = Replace::new(" ", SPACE).map_err(TokenizerError::Build)?;
    let mut parts = Vec::new();
    if begins_with_space {
        parts.push(NormalizerWrapper::Prepend(Prepend::new(SPACE.to_owned())));
    }
    parts.push(NormalizerWrapper::Replace(replace));
    Ok(NormalizerWrapper::Sequence(Normalizers::new(parts)))
}

/// What makes text of tokens; the space that a text begins with is not the text's.
pub(crate) fn decoder(begins_with_space: bool) -> Result<DecoderWrapper, TokenizerError> {
    let replace = Replace::new(SPACE, " ").map_err(TokenizerError::Build)?;
    let mut parts = vec![
        DecoderWrapper::Replace(replace),
        DecoderWrapper::ByteFallback(ByteFallback::new()),
        DecoderWrapper::Fuse(Fuse::new()),
    ];
    if begins_with_space {
        parts.push(DecoderWrapper::Strip(Strip::new(' ', 1, 0)));
    }
    Ok(DecoderWrapper::Sequence(Decoders::new(parts)))
}
