//! What a text job is asked for.

use crate::PipelineError;
use std::collections::HashSet;

/// Bytes of a plain prompt, or of all messages together, at most.
pub const PROMPT_BYTES_MAX: usize = 2 << 20;
/// Messages of one prompt at most.
pub const MESSAGES_MAX: usize = 1024;
/// Stop strings of one request at most.
pub const STOP_STRINGS_MAX: usize = 16;
/// Bytes of one stop string at most.
pub const STOP_BYTES_MAX: usize = 256;
/// Likeliest tokens told with each token of an answer at most.
pub const LOGPROBS_MAX: usize = 20;
/// Tokens of one request with a bias at most.
pub const LOGIT_BIAS_MAX: usize = 1024;
/// A bias is at most this, up or down: enough to force a token or to rule it out.
pub const BIAS_MAX: f32 = 100.0;
/// Bytes of a constraint at most.
pub const CONSTRAINT_BYTES_MAX: usize = 64 << 10;
/// Levels of lists and objects in a JSON schema at most.
pub const SCHEMA_DEPTH_MAX: usize = 64;
/// Bytes of the description of tools at most.
pub const TOOLS_BYTES_MAX: usize = 256 << 10;
/// Tokens drafted for one run at most.
pub const DRAFT_TOKENS_MAX: usize = 16;
/// Tokens of an answer when the request does not say; fewer when the context leaves fewer.
pub const TOKENS_DEFAULT: usize = 1024;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTurn {
    /// `system`, `user`, `assistant`, …: what the template knows.
    pub role: String,
    /// Text.
    pub content: String,
    /// A JSON object whose fields the template sees beside these: `tool_calls`, `tool_call_id`, `name`,
    /// `reasoning_content`, …
    pub fields: Option<String>,
}

impl ChatTurn {
    /// A message that is text alone.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            fields: None,
        }
    }

    fn bytes(&self) -> usize {
        self.role.len() + self.content.len() + self.fields.as_ref().map_or(0, String::len)
    }
}

/// What comes before the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextPrompt {
    /// Messages, rendered by the model's chat template with its opening of an answer at the end.
    Messages(Vec<ChatTurn>),
    /// Text as it is; the tokenizer adds the special tokens it always adds.
    Plain(String),
}

/// How tokens are chosen; all absent is greedy.
///
/// Steps in the order of Hugging Face transformers, after the request's constraint
/// and bias: repetition penalty (on every token of prompt
/// and answer so far), temperature, top-k, top-p, min-p, draw. Without temperature, top-k, top-p
/// and min-p, or with temperature 0, the likeliest token is taken after the penalty.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; finite, at least 0. 1 when it is absent and others are there.
    pub temperature: Option<f32>,
    /// Keep this many of the likeliest; 0 keeps all.
    pub top_k: Option<u32>,
    /// Keep the fewest of the likeliest whose probabilities add up to this; in 0..=1, not 0.
    pub top_p: Option<f32>,
    /// Keep those at least this times as likely as the likeliest; in 0..=1.
    pub min_p: Option<f32>,
    /// Divides positive logits of seen tokens and multiplies negative ones; finite, above 0.
    pub repetition_penalty: Option<f32>,
}

/// How much likelier a token is made, or how much less likely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenBias {
    /// Token; below the model's vocabulary.
    pub id: u32,
    /// What is added to its logit; from −[`BIAS_MAX`] to [`BIAS_MAX`].
    pub bias: f32,
}

/// What form the answer must have. Stop strings and limits may still end it early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// JSON that this JSON schema describes.
    JsonSchema(String),
    /// A text that this regular expression, in Rust's syntax, matches as a whole.
    Regex(String),
}

/// What is to be done with reasoning that the model writes between its tags, ahead of its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// Tokens between the tags at most; then the closing one is forced. 0 forces it at once.
    pub tokens_max: Option<usize>,
}

/// A request for text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextRequest {
    /// What comes before the answer.
    pub prompt: TextPrompt,
    /// A JSON list of the tools that the answer may call, each an object, as the chat template wants it;
    /// at most [`TOOLS_BYTES_MAX`]. Calls come as text of the answer, written as the model was taught.
    pub tools: Option<String>,
    /// Tokens of the answer at most; [`TOKENS_DEFAULT`] when absent.
    pub tokens_max: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The same seed gives the same draws.
    pub seed: u64,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// Only tokens that keep to this are taken, and the answer ends when it is complete; at most
    /// [`CONSTRAINT_BYTES_MAX`].
    pub constraint: Option<Constraint>,
    /// Give reasoning apart from the answer. Stop strings and the constraint are then those of the
    /// answer alone. When absent, reasoning and tags are text like any other.
    pub reasoning: Option<Reasoning>,
    /// Added to logits before anything else shapes the draw; each token once, at most
    /// [`LOGIT_BIAS_MAX`] of them.
    pub logit_bias: Vec<TokenBias>,
    /// Tell the logarithm of each token's probability, and those of so many of the likeliest tokens, at
    /// most [`LOGPROBS_MAX`]; nothing is computed for it when absent.
    pub logprobs: Option<usize>,
    /// Compute this answer in runs of its own, and take over from caches only what was computed in just
    /// the same runs: whatever other answers there are, tokens are the same on as many threads. It costs throughput when
    /// several answers go on at once.
    pub deterministic: bool,
    /// When prompt and answer outgrow the context, leave out the oldest part but the beginning, instead of
    /// refusing the prompt or ending the answer.
    pub slide_context: bool,
    /// Draft so many tokens at most from prompt and answer and verify them in one run; at most
    /// [`DRAFT_TOKENS_MAX`]. None are drafted by models that give the logits of one token alone.
    pub draft_tokens_max: usize,
    /// First tokens of the answer, already given to the client before the job began anew: they
    /// are not given again, and the answer goes on as if it had never been interrupted.
    pub resume_token_ids: Vec<u32>,
}

impl TextRequest {
    /// A greedy request with nothing else said.
    pub fn new(prompt: TextPrompt) -> Self {
        Self {
            prompt,
            tools: None,
            tokens_max: None,
            sampling: Sampling::default(),
            seed: 0,
            stop: Vec::new(),
            constraint: None,
            reasoning: None,
            logit_bias: Vec::new(),
            logprobs: None,
            deterministic: false,
            slide_context: false,
            draft_tokens_max: 0,
            resume_token_ids: Vec::new(),
        }
    }

    /// Checks everything that needs no model.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] names the field.
    pub fn check(&self) -> Result<(), PipelineError> {
        self.check_prompt()?;
        if let Some(tools) = self.tools.as_ref().filter(|t| t.len() > TOOLS_BYTES_MAX) {
            let why = format!("{} bytes, more than {TOOLS_BYTES_MAX}", tools.len());
            return Err(PipelineError::invalid("tools", why));
        }
        self.sampling.check()?;
        if self.tokens_max == Some(0) {
            return Err(PipelineError::invalid("tokens_max", "is 0"));
        }
        self.check_bias()?;
        if let Some(constraint) = &self.constraint {
            constraint.check()?;
        }
        let why = match self.draft_tokens_max {
            0 => None,
            count if count > DRAFT_TOKENS_MAX => {
                Some(format!("{count} is more than {DRAFT_TOKENS_MAX}"))
            }
            _ if self.deterministic => {
                Some("what is drafted decides which runs there are, and the answer is to be deterministic".into())
            }
            _ => None,
        };
        if let Some(why) = why {
            return Err(PipelineError::invalid("draft_tokens_max", why));
        }
        if let Some(count) = self.logprobs.filter(|&count| count > LOGPROBS_MAX) {
            let why = format!("{count} is more than {LOGPROBS_MAX}");
            return Err(PipelineError::invalid("logprobs", why));
        }
        if self.stop.len() > STOP_STRINGS_MAX {
            let why = format!("{} strings, more than {STOP_STRINGS_MAX}", self.stop.len());
            return Err(PipelineError::invalid("stop", why));
        }
        for (index, stop) in self.stop.iter().enumerate() {
            if stop.is_empty() || stop.len() > STOP_BYTES_MAX {
                let why = format!("{} bytes are not 1 to {STOP_BYTES_MAX}", stop.len());
                return Err(PipelineError::invalid(format!("stop[{index}]"), why));
            }
        }
        Ok(())
    }

    fn check_bias(&self) -> Result<(), PipelineError> {
        let count = self.logit_bias.len();
        if count > LOGIT_BIAS_MAX {
            let why = format!("{count} tokens, more than {LOGIT_BIAS_MAX}");
            return Err(PipelineError::invalid("logit_bias", why));
        }
        let mut seen = HashSet::with_capacity(count);
        for (index, &TokenBias { id, bias }) in self.logit_bias.iter().enumerate() {
            let in_range = (-BIAS_MAX..=BIAS_MAX).contains(&bias);
            let why = match seen.insert(id) {
                false => format!("token {id} is there twice"),
                true if !in_range => format!("{bias} is not in −{BIAS_MAX} to {BIAS_MAX}"),
                true => continue,
            };
            return Err(PipelineError::invalid(format!("logit_bias[{index}]"), why));
        }
        Ok(())
    }

    fn check_prompt(&self) -> Result<(), PipelineError> {
        let (field, bytes) = match &self.prompt {
            TextPrompt::Plain(text) => ("prompt", text.len()),
            TextPrompt::Messages(turns) => {
                if turns.is_empty() || turns.len() > MESSAGES_MAX {
                    let why = format!("{} messages are not 1 to {MESSAGES_MAX}", turns.len());
                    return Err(PipelineError::invalid("messages", why));
                }
                let bytes = turns.iter().map(ChatTurn::bytes).sum();
                ("messages", bytes)
            }
        };
        if bytes > PROMPT_BYTES_MAX {
            let why = format!("{bytes} bytes, more than {PROMPT_BYTES_MAX}");
            return Err(PipelineError::invalid(field, why));
        }
        Ok(())
    }
}

impl Sampling {
    /// Whether tokens are drawn, so that the seed matters.
    pub fn draws(&self) -> bool {
        self.drawing_temperature().is_some()
    }

    /// The temperature to draw with, or `None` for the likeliest token.
    pub(crate) fn drawing_temperature(&self) -> Option<f32> {
        let others = self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        let temperature = self.temperature.or(others.then_some(1.0));
        temperature.filter(|&temperature| temperature > 0.0)
    }

    fn check(&self) -> Result<(), PipelineError> {
        let at_least_0 = |t: f32| t.is_finite() && t >= 0.0;
        let above_0 = |p: f32| p.is_finite() && p > 0.0;
        let rules = [
            (
                "temperature",
                self.temperature.is_none_or(at_least_0),
                "is not a number of at least 0",
            ),
            (
                "top_p",
                self.top_p.is_none_or(|p| p > 0.0 && p <= 1.0),
                "is not above 0 and at most 1",
            ),
            (
                "min_p",
                self.min_p.is_none_or(|p| (0.0..=1.0).contains(&p)),
                "is not in 0 to 1",
            ),
            (
                "repetition_penalty",
                self.repetition_penalty.is_none_or(above_0),
                "is not a number above 0",
            ),
        ];
        for (field, holds, why) in rules {
            if !holds {
                return Err(PipelineError::invalid(format!("sampling.{field}"), why));
            }
        }
        Ok(())
    }
}
