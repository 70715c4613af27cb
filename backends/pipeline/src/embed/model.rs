//! [`EmbeddingModel`].

use super::graph::EmbeddingGraph;
use crate::PipelineError;
use crate::text::read_tokenizer;
use mote_api::{EmbeddingSpec, Model};
use std::path::Path;
use std::sync::Arc;
use tokenizers::{Encoding, Tokenizer, TruncationDirection};

/// What is to be embedded. The wire limits how many texts there are and how long each is.
#[derive(Clone)]
pub struct EmbeddingRequest {
    /// The texts.
    pub texts: Vec<String>,
    /// What they are.
    pub kind: EmbeddingKind,
    /// Keep so many of the first dimensions; all when absent.
    pub dimensions: Option<usize>,
    /// Cut texts that do not fit the context; otherwise they are refused.
    pub truncate: bool,
}

impl EmbeddingRequest {
    /// Whole vectors of texts as they are.
    pub fn new(texts: Vec<String>) -> Self {
        Self {
            texts,
            kind: EmbeddingKind::default(),
            dimensions: None,
            truncate: false,
        }
    }
}

impl std::fmt::Debug for EmbeddingRequest {
    /// Texts never reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddingRequest")
            .field("texts", &self.texts.len())
            .finish_non_exhaustive()
    }
}

/// What texts are embedded as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmbeddingKind {
    /// As they are.
    #[default]
    Plain,
    /// Behind the manifest's query prefix.
    Query,
    /// Behind its document prefix.
    Document,
}

/// An embedding model with its tokenizer.
pub struct EmbeddingModel {
    model: Arc<dyn Model>,
    spec: EmbeddingSpec,
    graph: EmbeddingGraph,
    tokenizer: Tokenizer,
    /// Tokens that the tokenizer adds to each text.
    added: usize,
}

/// A text as the model reads it.
pub(super) struct Tokens {
    pub ids: Vec<u32>,
    pub is_cut: bool,
}

impl EmbeddingModel {
    /// Reads the tokenizer from `folder` and checks that `model` is what `spec` says.
    ///
    /// # Errors
    /// Names the file or the tensor that does not fit.
    pub fn open(
        folder: &Path,
        spec: &EmbeddingSpec,
        model: Arc<dyn Model>,
    ) -> Result<Self, PipelineError> {
        let graph = EmbeddingGraph::new(model.signature(), spec)?;
        let file = folder.join(&spec.tokenizer);
        let tokenizer = read_tokenizer(&file)?;
        let processor = tokenizer.get_post_processor();
        let added = processor.map_or(0, |it| tokenizers::PostProcessor::added_tokens(it, false));
        if added >= spec.context_tokens {
            let why = format!(
                "it adds {added} tokens to each text, and the context is {}",
                spec.context_tokens
            );
            return Err(PipelineError::MalformedFile {
                file,
                cause: why.into(),
            });
        }
        Ok(Self {
            model,
            spec: spec.clone(),
            graph,
            tokenizer,
            added,
        })
    }

    /// What the manifest says.
    pub fn spec(&self) -> &EmbeddingSpec {
        &self.spec
    }

    pub(super) fn model(&self) -> &Arc<dyn Model> {
        &self.model
    }

    pub(super) fn graph(&self) -> &EmbeddingGraph {
        &self.graph
    }

    /// The tokens of each text, at least one and no more than the context holds.
    pub(super) fn encode(&self, request: &EmbeddingRequest) -> Result<Vec<Tokens>, PipelineError> {
        let prefix = match request.kind {
            EmbeddingKind::Plain => "",
            EmbeddingKind::Query => &self.spec.query_prefix,
            EmbeddingKind::Document => &self.spec.document_prefix,
        };
        let texts = request.texts.iter().enumerate();
        let encode = |(index, text): (usize, &String)| {
            let field = || format!("texts[{index}]");
            if text.is_empty() {
                return Err(PipelineError::invalid(field(), "is empty"));
            }
            let whole = self.tokenizer.encode_fast(format!("{prefix}{text}"), false);
            let mut encoding = whole.map_err(PipelineError::Tokenize)?;
            let tokens = encoding.len() + self.added;
            let is_cut = tokens > self.spec.context_tokens;
            if is_cut && !request.truncate {
                return Err(PipelineError::TextTooLong {
                    index,
                    tokens: tokens as u64,
                    context_tokens: self.spec.context_tokens as u64,
                });
            }
            if is_cut {
                let kept = self.spec.context_tokens - self.added;
                encoding.truncate(kept, 0, TruncationDirection::Right);
            }
            let ids = self.complete(encoding)?;
            if ids.is_empty() {
                return Err(PipelineError::invalid(field(), "has no tokens"));
            }
            Ok(Tokens { ids, is_cut })
        };
        texts.map(encode).collect()
    }

    /// Adds the special tokens, which are kept where a text is cut.
    fn complete(&self, encoding: Encoding) -> Result<Vec<u32>, PipelineError> {
        let encoding = self.tokenizer.post_process(encoding, None, true);
        let ids = encoding.map_err(PipelineError::Tokenize)?;
        let ids = ids.get_ids().to_vec();
        match ids.iter().find(|&&id| id as usize >= self.spec.vocab) {
            Some(id) => {
                let why = format!("takes no token {id}, which the tokenizer gave");
                Err(PipelineError::graph("input_ids", why))
            }
            None => Ok(ids),
        }
    }
}
