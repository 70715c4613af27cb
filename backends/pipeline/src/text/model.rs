//! [`TextModel`].

use super::bank::Bank;
use super::constraint::Grammars;
use super::files;
use super::graph::TextGraph;
use super::request::TextPrompt;
use super::template::ChatTemplate;
use crate::PipelineError;
use mote_api::{Model, TextSpec};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokenizers::Tokenizer;

/// Bytes at the end of a prompt that say whether it opens the reasoning.
const TAIL_BYTES: usize = 256;

/// A text model with its tokenizer and chat template.
pub struct TextModel {
    model: Arc<dyn Model>,
    spec: TextSpec,
    graph: Arc<TextGraph>,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    /// Made for the first request with a constraint.
    grammars: OnceLock<Grammars>,
}

impl TextModel {
    /// Reads tokenizer and template from `folder` and checks that `model` is what `spec` says.
    ///
    /// Special tokens that templates use come from the `tokenizer_config.json` beside the
    /// tokenizer, or else from `spec`.
    ///
    /// # Errors
    /// Names the file or the tensor that does not fit.
    pub fn open(
        folder: &Path,
        spec: &TextSpec,
        model: Arc<dyn Model>,
    ) -> Result<Self, PipelineError> {
        let graph = Arc::new(TextGraph::new(model.signature(), spec)?);
        let file = folder.join(&spec.tokenizer);
        let tokenizer = files::tokenizer(&file)?;
        let mut special = files::special_tokens(&file)?;
        let text_of = |id: Option<u32>| id.and_then(|id| tokenizer.id_to_token(id));
        special.bos = special.bos.or_else(|| text_of(spec.bos_token_id));
        let eos = spec.eos_token_ids.first().copied();
        special.eos = special.eos.or_else(|| text_of(eos));
        let mut template = None;
        if let Some(file) = &spec.chat_template {
            let file = folder.join(file);
            let source = files::template(&file)?;
            template = Some(ChatTemplate::compile(source, special, &file)?);
        }
        Ok(Self {
            model,
            spec: spec.clone(),
            graph,
            tokenizer,
            template,
            grammars: OnceLock::new(),
        })
    }

    /// What the manifest says.
    pub fn spec(&self) -> &TextSpec {
        &self.spec
    }

    /// Bytes of the key and value cache of one conversation that fills the context. In host memory a
    /// shorter one takes its share of that, since pages appear as tokens fill them; a device's is taken
    /// whole.
    pub fn kv_bytes(&self) -> u64 {
        self.graph.cache_bytes()
    }

    /// Whether one run can serve several answers.
    pub fn takes_rows(&self) -> bool {
        self.graph.takes_rows
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What makes grammars over this model's tokens.
    pub(crate) fn grammars(&self) -> Result<&Grammars, PipelineError> {
        if let Some(grammars) = self.grammars.get() {
            return Ok(grammars);
        }
        let made = Grammars::new(&self.tokenizer, &self.spec)?;
        Ok(self.grammars.get_or_init(|| made))
    }

    pub(crate) fn graph(&self) -> &Arc<TextGraph> {
        &self.graph
    }

    pub(crate) fn bank(&self, rows_max: usize) -> Result<Bank, PipelineError> {
        Bank::new(self.model.as_ref(), &self.graph, self.spec.vocab, rows_max)
    }

    /// The tokens of a prompt, at least one and fewer than the context holds unless it may be cut; and how
    /// its text ends.
    pub(crate) fn encode(
        &self,
        prompt: &TextPrompt,
        tools: Option<&str>,
        may_be_cut: bool,
    ) -> Result<(Vec<u32>, String), PipelineError> {
        let tail;
        let (field, encoding) = match prompt {
            TextPrompt::Plain(_) if tools.is_some() => {
                let why = "are given to the chat template; send messages";
                return Err(PipelineError::invalid("tools", why));
            }
            TextPrompt::Plain(text) => {
                tail = tail_of(text);
                ("prompt", self.tokenizer.encode_fast(text.as_str(), true))
            }
            TextPrompt::Messages(turns) => {
                let Some(template) = &self.template else {
                    let why = "the model has no chat template; send a plain prompt";
                    return Err(PipelineError::invalid("messages", why));
                };
                let text = template.render(turns, tools)?;
                tail = tail_of(&text);
                // The template writes the special tokens itself.
                ("messages", self.tokenizer.encode_fast(text, false))
            }
        };
        let mut ids = encoding
            .map_err(PipelineError::Tokenize)?
            .get_ids()
            .to_vec();
        if ids.is_empty() {
            ids.extend(self.spec.bos_token_id);
        }
        if ids.is_empty() {
            return Err(PipelineError::invalid(field, "has no tokens"));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.spec.vocab) {
            let why = format!("takes no token {id}, which the tokenizer gave");
            return Err(PipelineError::graph("input_ids", why));
        }
        if ids.len() >= self.spec.context_tokens && !may_be_cut {
            return Err(PipelineError::ContextOverflow {
                prompt_tokens: ids.len() as u64,
                context_tokens: self.spec.context_tokens as u64,
            });
        }
        Ok((ids, tail))
    }
}

fn tail_of(text: &str) -> String {
    let start = text.len().saturating_sub(TAIL_BYTES);
    text[text.ceil_char_boundary(start)..].to_owned()
}
