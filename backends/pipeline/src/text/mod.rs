//! Text generation: a prompt is rendered and tokenized, computed in chunks into a key and value
//! cache that is bound once and never copied, and answered token by token.
//!
//! As in Hugging Face transformers, the whole rendered template is tokenized with its special
//! tokens. So text of a user that spells a special token (`<|im_start|>`) becomes that token; a
//! client that must keep roles apart has to strip such text from what it passes on.
//!
//! **Repeatability.** A draw depends on seed and position alone, ties go to the lowest token, and a
//! resumed answer is computed in the same steps as the first time; so equal logits give equal
//! tokens. Whether logits are equal is up to the kernels, which may round a token differently with
//! those that it is computed with: on ONNX Runtime's CPU provider, a Mixture of Experts does with every
//! other grouping, a dense model when a token is computed singly. So prompts are computed in chunks with
//! fixed borders and taken over from caches in whole chunks: an answer after a cached prompt is the
//! one that a cold start gives, bit by bit. Two things give that up for speed, unless a request asks to
//! be deterministic: answers are computed in one run with those of other jobs, and a conversation that
//! goes on takes over its answers as they were computed, token by token.

mod answer;
mod bank;
mod batch;
mod constraint;
mod detokenizer;
mod draft;
mod files;
mod graph;
mod job;
mod lane;
mod logprobs;
mod model;
mod pool;
mod reasoning;
mod request;
mod sampler;
mod stop;
mod strftime;
mod template;
mod vocabulary;
mod window;

pub use answer::Finish;
pub(crate) use bank::Bank;
pub use bank::{PREFILL_CHUNK_TOKENS, ROWS_MAX};
pub(crate) use files::{read as read_bounded, tokenizer as read_tokenizer};
pub(crate) use graph::TextGraph;
pub use job::{TextJob, TextStats, TextStep};
pub use logprobs::{Logprobs, TopToken};
pub use model::TextModel;
pub use pool::{KvPool, POOL_ENTRIES_MAX};
pub use request::{
    BIAS_MAX, CONSTRAINT_BYTES_MAX, ChatTurn, Constraint, DRAFT_TOKENS_MAX, LOGIT_BIAS_MAX,
    LOGPROBS_MAX, MESSAGES_MAX, PROMPT_BYTES_MAX, Reasoning, SCHEMA_DEPTH_MAX, STOP_BYTES_MAX,
    STOP_STRINGS_MAX, Sampling, TOKENS_DEFAULT, TOOLS_BYTES_MAX, TextPrompt, TextRequest,
    TokenBias,
};
