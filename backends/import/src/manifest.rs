//! `mote.toml`: what a model folder says about itself.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    ImportError, checkpoint::ModelConfig, embedding::EmbeddingParts, emit::Precision,
    folder::FileReport, recipe::MoeShape, tokenizer::TokenizerFiles,
};

pub(crate) const MANIFEST_FILE: &str = "mote.toml";
pub(crate) const MODEL_FILE: &str = "model.onnx";
pub(crate) const DATA_FILE: &str = "model.onnx.data";
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
pub(crate) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
pub(crate) const TEMPLATE_FILE: &str = "chat_template.jinja";
pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const LICENCE_FILE: &str = "LICENSE";

const MANIFEST_FORMAT: u32 = 1;

#[derive(Serialize)]
struct Manifest<'a> {
    format: u32,
    name: &'a str,
    task: &'static str,
    licence: &'a str,
    source: &'a str,
    description: &'a str,
    variant: [Variant; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<Embedding<'a>>,
    files: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
struct Variant {
    name: String,
    backend: &'static str,
    file: &'static str,
    precision: &'static str,
    weights_bytes: u64,
}

#[derive(Serialize)]
struct Text<'a> {
    tokenizer: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template: Option<&'static str>,
    context_tokens: usize,
    vocab: usize,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    bos_token_id: Option<u32>,
    eos_token_ids: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    moe: Option<Moe>,
}

#[derive(Serialize)]
struct Embedding<'a> {
    tokenizer: &'static str,
    context_tokens: usize,
    vocab: usize,
    dimensions: usize,
    pooling: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    query_prefix: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    document_prefix: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    moe: Option<Moe>,
}

#[derive(Serialize)]
struct Moe {
    experts: usize,
    experts_per_token: usize,
    shared_neurons: usize,
    expert_neurons: usize,
}

/// What the manifest is made from.
pub(crate) struct ManifestParts<'a> {
    pub name: &'a str,
    pub licence: &'a str,
    pub source: &'a str,
    pub description: &'a str,
    pub precision: Precision,
    pub context_tokens: usize,
    pub config: &'a ModelConfig,
    pub moe: Option<MoeShape>,
    pub tokenizer: &'a TokenizerFiles,
    /// For a model that gives vectors.
    pub embedding: Option<&'a EmbeddingParts>,
    pub weights_bytes: u64,
    pub files: &'a [FileReport],
}

/// Serialises the manifest.
pub(crate) fn toml(parts: &ManifestParts<'_>) -> Result<String, ImportError> {
    let precision = parts.precision.weights.name();
    let suffix = if parts.precision.is_uniform() {
        ""
    } else {
        "-mixed"
    };
    let manifest = Manifest {
        format: MANIFEST_FORMAT,
        name: parts.name,
        task: match parts.embedding {
            None => "text-generation",
            Some(_) => "embedding",
        },
        licence: parts.licence,
        source: parts.source,
        description: parts.description,
        variant: [Variant {
            name: format!("onnxruntime-{precision}{suffix}"),
            backend: "onnxruntime",
            file: MODEL_FILE,
            precision,
            weights_bytes: parts.weights_bytes,
        }],
        text: parts.embedding.is_none().then(|| text(parts)),
        embedding: parts.embedding.map(|how| embedding(parts, how)),
        files: parts
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.digest.to_string()))
            .collect(),
    };
    toml::to_string(&manifest).map_err(|source| ImportError::Serialise {
        file: MANIFEST_FILE,
        source: source.into(),
    })
}

fn text<'a>(parts: &ManifestParts<'a>) -> Text<'a> {
    let template = parts.tokenizer.chat_template.as_ref();
    Text {
        tokenizer: TOKENIZER_FILE,
        chat_template: template.map(|_| TEMPLATE_FILE),
        context_tokens: parts.context_tokens,
        vocab: parts.config.vocab,
        layers: parts.config.layers,
        kv_heads: parts.config.kv_heads,
        head_dim: parts.config.head_dim,
        bos_token_id: parts.tokenizer.special.bos,
        eos_token_ids: &parts.tokenizer.special.eos,
        moe: moe(parts),
    }
}

fn embedding<'a>(parts: &ManifestParts<'a>, how: &'a EmbeddingParts) -> Embedding<'a> {
    Embedding {
        tokenizer: TOKENIZER_FILE,
        context_tokens: parts.context_tokens,
        vocab: parts.config.vocab,
        dimensions: parts.config.hidden,
        pooling: how.pooling.name(),
        query_prefix: &how.query_prefix,
        document_prefix: &how.document_prefix,
        moe: moe(parts),
    }
}

fn moe(parts: &ManifestParts<'_>) -> Option<Moe> {
    parts.moe.map(|moe| Moe {
        experts: moe.experts,
        experts_per_token: moe.experts_per_token,
        shared_neurons: moe.shared_neurons,
        expert_neurons: moe.expert_neurons,
    })
}
