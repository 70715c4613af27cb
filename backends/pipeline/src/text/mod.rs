//! Text generation: a prompt is rendered and tokenized, computed in chunks into a key and value
//! cache that is bound once and never copied, and answered token by token.
//!
//! As in Hugging Face transformers, the whole rendered template is tokenized with its special
//! tokens. So text of a user that spells a special token (`<|im_start|>`) becomes that token; a
//! client that must keep roles apart has to strip such text from what it passes on.
//!
//! **Repeatability.** A draw depends on seed and position alone, ties go to the lowest token, and a
//! resumed answer is computed in the same steps as the first time; so equal logits give equal
//! tokens. Whether logits are equal is up to the kernels. On ONNX Runtime's CPU provider, measured
//! with 8-bit weights, the tokens of a dense model get the same bits in whatever chunks they are
//! computed, as long as no chunk has a single token; so an answer after a cached prompt equals the
//! cold one. Tokens of a cached *answer* were computed singly and differ in rounding from the same
//! tokens in a prompt. Those of a Mixture of Experts differ with every other grouping, since the
//! kernels depend on how many tokens an expert gets. Its answers repeat exactly when the prompt is
//! the one that is cached, or when nothing is.

mod answer;
mod constraint;
mod detokenizer;
mod files;
mod graph;
mod job;
mod lane;
mod logprobs;
mod model;
mod philox;
mod pool;
mod reasoning;
mod request;
mod sampler;
mod stop;
mod strftime;
mod template;
mod vocabulary;

pub use answer::Finish;
pub(crate) use files::tokenizer as read_tokenizer;
pub(crate) use graph::TextGraph;
pub use job::{TextJob, TextStats, TextStep};
pub(crate) use lane::Lane;
pub use lane::PREFILL_CHUNK_TOKENS;
pub use logprobs::{Logprobs, TopToken};
pub use model::TextModel;
pub use pool::{KvPool, POOL_ENTRIES_MAX};
pub use request::{
    BIAS_MAX, CONSTRAINT_BYTES_MAX, ChatTurn, Constraint, LOGIT_BIAS_MAX, LOGPROBS_MAX,
    MESSAGES_MAX, PROMPT_BYTES_MAX, Reasoning, SCHEMA_DEPTH_MAX, STOP_BYTES_MAX, STOP_STRINGS_MAX,
    Sampling, TOKENS_DEFAULT, TOOLS_BYTES_MAX, TextPrompt, TextRequest, TokenBias,
};
