//! Text generation: a prompt is rendered and tokenized, computed in chunks into a key and value
//! cache that is bound once and never copied, and answered token by token.
//!
//! As in Hugging Face transformers, the whole rendered template is tokenized with its special
//! tokens. So text of a user that spells a special token (`<|im_start|>`) becomes that token; a
//! client that must keep roles apart has to strip such text from what it passes on.

mod detokenizer;
mod files;
mod graph;
mod job;
mod lane;
mod model;
mod philox;
mod pool;
mod request;
mod sampler;
mod stop;
mod strftime;
mod template;

pub use job::{Finish, TextJob, TextStats, TextStep};
pub use lane::PREFILL_CHUNK_TOKENS;
pub use model::TextModel;
pub use pool::{KvPool, POOL_ENTRIES_MAX};
pub use request::{
    ChatTurn, MESSAGES_MAX, PROMPT_BYTES_MAX, STOP_BYTES_MAX, STOP_STRINGS_MAX, Sampling,
    TOKENS_DEFAULT, TextPrompt, TextRequest,
};
