//! Turns language-model checkpoints into model folders that Mote serves.
//!
//! [`import`] reads a Hugging Face folder (safetensors) or a GGUF checkpoint, optionally
//! carves a dense Llama's feed-forward blocks into a Mixture of Experts by a small
//! [`Recipe`], and writes ONNX for ONNX Runtime, quantised or not, with tokenizer and
//! manifest, or the same weights for other engines. Weights stream from source to target, so
//! memory stays near one layer.

#![forbid(unsafe_code)]

mod as_gguf;
pub mod checkpoint;
mod config;
mod correction;
mod digest;
mod embedding;
mod emit;
mod error;
mod feed_forward;
mod folder;
pub mod gguf;
mod hugging_face;
mod import;
mod licence;
mod manifest;
pub mod onnx;
mod options;
mod pre_tokenizer;
mod progress;
mod quantise;
mod recipe;
pub mod safetensors;
mod sentence_piece;
mod source;
mod tokenizer;
mod tokenizer_folder;

pub use correction::CORRECTION_RANK_MAX;
pub use digest::{Digest, DigestParseError};
pub use embedding::Pooling;
pub use emit::{CacheStorage, Layout, Precision};
pub use error::{ImportError, ImportOption, Obstacle};
pub use folder::FileReport;
pub use hugging_face::Element;
pub use import::import;
pub use options::{
    CONTEXT_TOKENS_DEFAULT, Carve, Embedding, ImportOptions, ImportReport, Licence, NAME_BYTES_MAX,
    Target,
};
pub use progress::{Progress, Stage};
pub use quantise::{BLOCK, Bits, Storage};
pub use recipe::{
    EXPERT_COUNT_MAX, LayerRecipe, MoeShape, RECIPE_BYTES_MAX, RECIPE_FORMAT,
    ROUTER_TEMPERATURE_MAX, Recipe, RecipeDimension, RecipeError,
};
pub use tokenizer::{SpecialTokens, TokenizerError, TokenizerFiles};

/// The recipe that carves SmolLM2-135M-Instruct (Q4_1 GGUF) into 8 routed experts of 128
/// neurons and a shared one of 512 per layer.
pub static SMOLLM2_135M_MOE_RECIPE: &[u8] =
    include_bytes!("../recipes/smollm2-135m-moe.safetensors");
