//! The section of an embedding model.

use super::{MoeSpec, stays_inside};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Elements of a vector that a text becomes.
const DIMENSIONS_MAX: usize = 16_384;
/// Tokens of a context, or of a vocabulary.
const SIZE_MAX: usize = 1 << 24;
/// Texts that are computed together.
const TEXTS_PER_RUN_MAX: usize = 1024;
/// Bytes of a prefix before texts.
const PREFIX_BYTES_MAX: usize = 4 << 10;

/// What an embedding model needs said.
///
/// Its graph takes `input_ids` and may take `attention_mask`, `token_type_ids` and `position_ids`, all
/// `[batch, sequence]`, or what the importer makes of a decoder: `seqlens_k` and
/// `total_sequence_length`. It gives `last_hidden_state` (or `token_embeddings`)
/// `[batch, sequence, dimensions]`, or `sentence_embedding` `[batch, dimensions]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingSpec {
    /// Hugging Face `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Tokens of one text at most, special ones included.
    pub context_tokens: usize,
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Elements of a vector.
    pub dimensions: usize,
    /// How a text's vector is made of those of its tokens.
    pub pooling: Pooling,
    /// Whether vectors are given the length 1.
    #[serde(default = "yes")]
    pub normalise: bool,
    /// Put before a text that is a query.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub query_prefix: String,
    /// Put before a text that is a document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub document_prefix: String,
    /// Fills up the shorter texts of a batch; 0 when absent.
    #[serde(default)]
    pub pad_token_id: u32,
    /// Texts that are computed together at most; 16 when absent. Where the graph quantises activations
    /// over the whole batch, only 1 keeps a text's vector from depending on those beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts_per_run: Option<usize>,
    /// For a Mixture of Experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe: Option<MoeSpec>,
}

/// How a text's vector is made of those of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over all tokens.
    Mean,
    /// The last token's.
    Last,
    /// The first token's.
    Cls,
    /// The graph does it: it gives `sentence_embedding`.
    Graph,
}

fn yes() -> bool {
    true
}

impl EmbeddingSpec {
    /// Checks sizes, prefixes and the path; else the field and why.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let refuse = |field: &str, why: String| Err((format!("embedding.{field}"), why));
        if !stays_inside(&self.tokenizer) {
            return refuse("tokenizer", "leaves the folder".into());
        }
        for (field, size, size_max) in [
            ("context_tokens", self.context_tokens, SIZE_MAX),
            ("vocab", self.vocab, SIZE_MAX),
            ("dimensions", self.dimensions, DIMENSIONS_MAX),
        ] {
            if !(1..=size_max).contains(&size) {
                return refuse(field, format!("{size} is not in 1..={size_max}"));
            }
        }
        if self
            .texts_per_run
            .is_some_and(|texts| !(1..=TEXTS_PER_RUN_MAX).contains(&texts))
        {
            return refuse(
                "texts_per_run",
                format!("is not in 1..={TEXTS_PER_RUN_MAX}"),
            );
        }
        if self.pad_token_id as usize >= self.vocab {
            return refuse("pad_token_id", "is not in the vocabulary".into());
        }
        for (field, prefix) in [
            ("query_prefix", &self.query_prefix),
            ("document_prefix", &self.document_prefix),
        ] {
            if prefix.len() > PREFIX_BYTES_MAX || prefix.contains('\0') {
                let why = format!("is over {PREFIX_BYTES_MAX} bytes or holds a NUL");
                return refuse(field, why);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;
    use std::path::Path;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(text, Path::new("mote.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_embedding_model_says_how_its_vectors_are_made() {
        const HEAD: &str = "format = 1\nname = \"m\"\n";
        const SECTION: &str = "task = \"embedding\"\n[embedding]\ntokenizer = \"t.json\"\n\
            context_tokens = 8\nvocab = 8\ndimensions = 4\npooling = \"mean\"\n\
            [[variant]]\nname = \"a\"\nbackend = \"onnxruntime\"\nfile = \"m.onnx\"\n\
            precision = \"f32\"\n";
        let with = |from: &str, to: &str| {
            let section = SECTION.replace(from, to);
            parse(&format!("{HEAD}{section}"))
        };
        let spec = with("", "").expect("good").embedding.expect("a section");
        assert_eq!((spec.pooling, spec.normalise), (Pooling::Mean, true));
        let long = format!(
            "mean\"\nquery_prefix = \"{}",
            "q".repeat(PREFIX_BYTES_MAX + 1)
        );
        for (from, to, field) in [
            ("dimensions = 4", "dimensions = 0", "embedding.dimensions"),
            (
                "dimensions = 4",
                "dimensions = 99999",
                "embedding.dimensions",
            ),
            ("vocab = 8", "vocab = 0", "embedding.vocab"),
            (
                "context_tokens = 8",
                "context_tokens = 0",
                "embedding.context_tokens",
            ),
            ("t.json", "../t.json", "embedding.tokenizer"),
            (
                "vocab = 8",
                "vocab = 8\ntexts_per_run = 0",
                "embedding.texts_per_run",
            ),
            (
                "vocab = 8",
                "vocab = 8\npad_token_id = 8",
                "embedding.pad_token_id",
            ),
            ("mean", long.as_str(), "embedding.query_prefix"),
            ("[embedding]", "[other]", "not a model manifest"),
            ("\"mean\"", "\"median\"", "not a model manifest"),
        ] {
            let message = with(from, to).expect_err("must be refused");
            assert!(message.contains(field), "{message}");
        }
    }
}
