//! Prompts: tokens, and what the text encoder makes of them.

use super::layout::Class;
use super::parts::{ConnectorsGraph, TextGraph};
use super::runner::{Flag, Runner, floats};
use crate::PipelineError;
use crate::text::read_bounded;
use mote_api::{RunReport, Tensor};
use serde::Deserialize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokenizers::Tokenizer;

/// Bytes of a prompt.
pub const CLIP_PROMPT_BYTES_MAX: usize = 16 << 10;
/// Encodings that are kept, and their bytes.
const KEPT_MAX: usize = 16;
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Bytes of a `tokenizer_config.json`.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
const CONFIG_FILE_NAME: &str = "tokenizer_config.json";
/// Tokens that fill prompts up, where the config names none.
const PADDING: [&str; 3] = ["<pad>", "[PAD]", "</s>"];

/// A prompt as the denoiser takes it.
#[derive(Debug)]
pub(super) struct Encoded {
    /// `[s, width]`.
    pub vectors: Vec<f32>,
    pub width: usize,
    /// `[s]`: 1 for tokens, 0 for padding.
    pub mask: Vec<i64>,
    /// What the branch that makes sound takes, `[s, width]`, and its width.
    pub audio: Option<(Vec<f32>, usize)>,
}

impl Encoded {
    fn bytes(&self) -> usize {
        let audio = self.audio.as_ref().map_or(0, |(vectors, _)| vectors.len());
        (self.vectors.len() + audio) * size_of::<f32>()
    }
}

/// The sessions that encode prompts.
pub(super) struct PromptRunners {
    pub text: Runner,
    /// Of LTX-2.
    pub connectors: Option<Runner>,
}

/// Turns prompts into tokens.
pub(super) struct Prompts {
    tokenizer: Tokenizer,
    pad: u32,
    class: Class,
    /// Tokens that each prompt is padded to.
    pub tokens: usize,
    kept: Mutex<Vec<(String, Arc<Encoded>)>>,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    pad_token: Option<PadToken>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PadToken {
    Text(String),
    Object { content: String },
}

impl Prompts {
    /// `tokens`: what each prompt is padded to.
    ///
    /// # Errors
    /// When the config beside the tokenizer cannot be read.
    pub fn open(
        tokenizer: Tokenizer,
        folder: &Path,
        class: Class,
        tokens: usize,
    ) -> Result<Self, PipelineError> {
        let file = folder.join(CONFIG_FILE_NAME);
        let config: TokenizerConfig = if file.exists() {
            let bytes = read_bounded(&file, CONFIG_BYTES_MAX)?;
            serde_json::from_slice(&bytes)
                .map_err(|cause| super::layout::malformed(&file, cause))?
        } else {
            TokenizerConfig::default()
        };
        let named = config.pad_token.map(|token| match token {
            PadToken::Text(text) | PadToken::Object { content: text } => text,
        });
        let names = named.iter().map(String::as_str).chain(PADDING);
        let pad = names.filter_map(|name| tokenizer.token_to_id(name)).next();
        Ok(Self {
            tokenizer,
            pad: pad.unwrap_or(0),
            class,
            tokens,
            kept: Mutex::default(),
        })
    }

    /// The prompt's tokens, special ones included, without padding.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] for `field` when it is too long.
    pub fn tokenize(&self, field: &str, prompt: &str) -> Result<Vec<u32>, PipelineError> {
        if prompt.len() > CLIP_PROMPT_BYTES_MAX {
            let why = format!("is more than {CLIP_PROMPT_BYTES_MAX} bytes");
            return Err(PipelineError::invalid(field, why));
        }
        // Wan's pipelines clean prompts of what is no text; of that, space is what people write.
        let cleaned;
        let text = if self.class.is_ltx2() {
            prompt.trim()
        } else if self.class.is_ltx() {
            prompt
        } else {
            cleaned = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
            &cleaned
        };
        let encoding = self.tokenizer.encode_fast(text, true);
        let ids = encoding
            .map_err(PipelineError::Tokenize)?
            .get_ids()
            .to_vec();
        if ids.len() > self.tokens {
            let why = format!("has {} tokens, the model takes {}", ids.len(), self.tokens);
            return Err(PipelineError::invalid(field, why));
        }
        Ok(ids)
    }

    /// What was made of this prompt before.
    pub fn kept(&self, prompt: &str) -> Option<Arc<Encoded>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(text, _)| text == prompt);
        found.map(|(_, encoded)| Arc::clone(encoded))
    }

    fn keep(&self, prompt: &str, encoded: &Arc<Encoded>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push((prompt.to_owned(), Arc::clone(encoded)));
        let bytes = |kept: &[(String, Arc<Encoded>)]| -> usize {
            kept.iter().map(|(_, it)| it.bytes()).sum()
        };
        while kept.len() > KEPT_MAX || (kept.len() > 1 && bytes(&kept) > KEPT_BYTES_MAX) {
            kept.remove(0);
        }
    }

    /// Encodes a prompt: one run of the text encoder and, where there are any, of the connectors.
    ///
    /// LTX's first pipelines do not tell the text encoder which tokens are padding; Wan's put zeros in
    /// the place of what it makes of padding; LTX-2 pads in front.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`], or what failed.
    pub fn encode(
        &self,
        (graph, connectors): (&TextGraph, Option<&ConnectorsGraph>),
        runners: &mut PromptRunners,
        flag: &Flag,
        prompt: &str,
    ) -> Result<(Arc<Encoded>, RunReport), PipelineError> {
        let ids = self.tokenize("prompt", prompt)?;
        let used = ids.len();
        let padding = vec![self.pad; self.tokens - used];
        let (ids, at) = match self.class.is_ltx2() {
            true => ([padding, ids].concat(), self.tokens - used..self.tokens),
            false => ([ids, padding].concat(), 0..used),
        };
        let mask: Vec<i64> = (0..self.tokens)
            .map(|it| i64::from(at.contains(&it)))
            .collect();
        let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
        let shape = [1, self.tokens];
        let runner = &mut runners.text;
        runner.set_integers(graph.ids, &shape, &ids)?;
        if let Some(index) = graph.mask {
            let is_told = !matches!(self.class, Class::Ltx | Class::LtxImageToVideo);
            let all = vec![1; self.tokens];
            runner.set_integers(index, &shape, if is_told { &mask } else { &all })?;
        }
        let mut report = runner.run(flag)?;
        let want = [Some(1), Some(self.tokens), graph.width()];
        let made = runner.output_tensor(graph.output, &want)?;
        let encoded = match (connectors, &mut runners.connectors) {
            (Some(graph), Some(runner)) => {
                let (encoded, of_connectors) = connect((graph, runner), flag, &made, &mask)?;
                report.compute_us += of_connectors.compute_us;
                report.bytes_copied += of_connectors.bytes_copied;
                encoded
            }
            _ => {
                let mut vectors = floats(&made)?;
                let width = made.shape()[2];
                if !self.class.is_ltx() {
                    vectors[used * width..].fill(0.0);
                }
                Encoded {
                    vectors,
                    width,
                    mask,
                    audio: None,
                }
            }
        };
        let encoded = Arc::new(encoded);
        self.keep(prompt, &encoded);
        Ok((encoded, report))
    }
}

/// Makes of the text encoder's vectors those for the clip and for its sound: one run of the connectors.
fn connect(
    (graph, runner): (&ConnectorsGraph, &mut Runner),
    flag: &Flag,
    text: &Tensor,
    mask: &[i64],
) -> Result<(Encoded, RunReport), PipelineError> {
    let tokens = mask.len();
    runner.pass(graph.text, text)?;
    runner.set_integers(graph.mask, &[1, tokens], mask)?;
    let report = runner.run(flag)?;
    let want = [Some(1), Some(tokens), None];
    let (vectors, shape) = runner.output(graph.video, &want)?;
    let (of_audio, audio_shape) = runner.output(graph.audio, &want)?;
    let mask = match graph.out_mask {
        None => vec![1; tokens],
        Some(index) => {
            let (mask, _) = runner.output(index, &want[..2])?;
            let counts = mask.into_iter().map(|counts| i64::from(counts != 0.0));
            counts.collect()
        }
    };
    let encoded = Encoded {
        vectors,
        width: shape[2],
        mask,
        audio: Some((of_audio, audio_shape[2])),
    };
    Ok((encoded, report))
}
