//! What bytes each token of a vocabulary stands for.

use crate::PipelineError;
use llguidance::toktrie::{TokRxInfo, TokTrie};
use serde_json::Value;
use std::collections::HashMap;
use tokenizers::Tokenizer;

/// Begins the entry of a token that is no text: a grammar never allows it.
const NO_TEXT: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// How a tokenizer writes bytes into the names of its tokens.
#[derive(Debug, PartialEq)]
enum Spelling {
    /// Each byte as a character of its own (GPT-2 and what came after it).
    ByteLevel,
    /// As text, with this for a space, and `<0xNN>` for single bytes (SentencePiece).
    Plain { space: Option<char> },
}

/// The tree of all tokens by their bytes. Special tokens, end tokens, and entries of the embedding
/// that the tokenizer does not have, are no text.
pub(crate) fn trie(
    tokenizer: &Tokenizer,
    vocab: usize,
    eos_token_ids: &[u32],
) -> Result<TokTrie, PipelineError> {
    let spelling = spelling(tokenizer)?;
    let added = tokenizer.get_added_tokens_decoder();
    let byte_of = bytes_by_char();
    let ids = 0..u32::try_from(vocab).unwrap_or(u32::MAX);
    let mut words: Vec<Vec<u8>> = ids
        .map(|id| {
            let no_text = || [&[NO_TEXT], id.to_string().as_bytes()].concat();
            if eos_token_ids.contains(&id) {
                return no_text();
            }
            match (added.get(&id), tokenizer.id_to_token(id)) {
                (Some(token), _) if token.special => no_text(),
                (Some(token), _) => token.content.clone().into_bytes(),
                (None, Some(name)) => spelling.bytes(&name, &byte_of).unwrap_or_else(no_text),
                (None, None) => no_text(),
            }
        })
        .collect();
    // Grammars end with an end token; a model without one gets one that never comes.
    let eos = eos_token_ids.first().copied().unwrap_or_else(|| {
        words.push(vec![NO_TEXT, b'e']);
        words.len() as u32 - 1
    });
    let info = TokRxInfo::new(words.len() as u32, eos);
    let trie = TokTrie::from(&info, &words);
    Ok(match eos_token_ids {
        [_, _, ..] => trie.with_eos_tokens(eos_token_ids),
        _ => trie,
    })
}

impl Spelling {
    /// The bytes of the token of this name; `None` where it is not spelled as it should be.
    fn bytes(&self, name: &str, byte_of: &HashMap<char, u8>) -> Option<Vec<u8>> {
        match self {
            Self::ByteLevel => name.chars().map(|c| byte_of.get(&c).copied()).collect(),
            Self::Plain { space } => {
                let hex = name.strip_prefix("<0x").and_then(|n| n.strip_suffix('>'));
                if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    return Some(vec![byte]);
                }
                Some(match space {
                    Some(space) => name.replace(*space, " ").into_bytes(),
                    None => name.as_bytes().to_vec(),
                })
            }
        }
    }
}

/// Read off the decoder, whose parts are told in its JSON only.
fn spelling(tokenizer: &Tokenizer) -> Result<Spelling, PipelineError> {
    let decoder = serde_json::to_value(tokenizer.get_decoder());
    let decoder = decoder.map_err(|cause| PipelineError::Detokenize(cause.into()))?;
    let parts = match decoder["decoders"].as_array() {
        Some(parts) => parts.as_slice(),
        None => std::slice::from_ref(&decoder),
    };
    let is = |part: &Value, kind: &str| part["type"] == kind;
    if parts.iter().any(|part| is(part, "ByteLevel")) {
        return Ok(Spelling::ByteLevel);
    }
    let space = parts.iter().find_map(|part| {
        let written = match part["type"].as_str()? {
            "Metaspace" => part["replacement"].as_str(),
            "Replace" if part["content"] == " " => part["pattern"]["String"].as_str(),
            _ => None,
        };
        written.and_then(|text| text.chars().next())
    });
    if space.is_some() || parts.iter().any(|part| is(part, "ByteFallback")) {
        return Ok(Spelling::Plain { space });
    }
    let why = "the model's tokenizer does not say which bytes its tokens are";
    Err(PipelineError::invalid("constraint", why))
}

/// The characters that stand for bytes in byte-level vocabularies: printable ones for themselves, and
/// the others by those from U+0100 on, in their order.
fn bytes_by_char() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..=255u8).filter(|&byte| !printable(byte));
    let others = ('\u{100}'..).zip(others);
    let own = (0..=255u8).filter(|&byte| printable(byte));
    own.map(|byte| (char::from(byte), byte))
        .chain(others)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_decoder(decoder: &str) -> Tokenizer {
        let json = format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
                {{"id": 3, "content": "<think>", "single_word": false, "lstrip": false,
                  "rstrip": false, "normalized": false, "special": false}},
                {{"id": 4, "content": "</s>", "single_word": false, "lstrip": false,
                  "rstrip": false, "normalized": false, "special": true}}],
              "normalizer": null, "pre_tokenizer": null, "post_processor": null,
              "decoder": {decoder},
              "model": {{"type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": false,
                "vocab": {{"\u2581a": 0, "<0xE2>": 1, "\u0120x\u00e9": 2}}, "merges": []}}}}"#
        );
        json.parse().expect("a tokenizer")
    }

    #[test]
    fn tokens_are_the_bytes_that_their_decoder_makes_of_them() {
        let plain = r#"{"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]}"#;
        let trie_of = |decoder: &str| trie(&with_decoder(decoder), 6, &[4]).expect("known");
        let words = trie_of(plain);
        assert_eq!(words.token(0), b" a");
        assert_eq!(words.token(1), [0xE2]);
        assert_eq!(words.token(3), b"<think>");
        for none in [4, 5] {
            assert!(words.is_special_token(none), "{none}");
        }
        let metaspace = r#"{"type": "Metaspace", "replacement": "\u2581", "prepend_scheme":
            "always", "split": true}"#;
        assert_eq!(trie_of(metaspace).token(0), b" a");
        let byte_level = r#"{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true}"#;
        let words = trie_of(byte_level);
        assert_eq!(words.token(2), [b' ', b'x', 0xE9]);
        assert!(words.is_special_token(0), "no byte is written ▁");
        let unknown = trie(&with_decoder("null"), 6, &[4]).err();
        assert!(matches!(unknown, Some(PipelineError::Invalid { .. })));
    }
}
