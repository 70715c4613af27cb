//! Bounds on what a Hugging Face folder may claim.
//!
//! Each is far above what published checkpoints use and low enough that a hostile file cannot
//! make the reader allocate more than a few hundred mebibytes.

/// Largest header of one safetensors file, in bytes.
pub const HEADER_BYTES_MAX: u64 = 32 << 20;
/// Largest `model.safetensors.index.json`, in bytes.
pub const INDEX_BYTES_MAX: u64 = 64 << 20;
/// Largest `config.json`, `generation_config.json` or `tokenizer_config.json`, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Largest `tokenizer.json`, in bytes.
pub const TOKENIZER_BYTES_MAX: u64 = 128 << 20;
/// Largest chat template or licence, in bytes.
pub const TEXT_BYTES_MAX: u64 = 1 << 20;
/// What is read of a model card, in bytes; its settings come first.
pub const CARD_BYTES_MAX: u64 = 64 << 10;
/// Most files of one checkpoint, all of which are open at once.
pub const SHARD_COUNT_MAX: usize = 512;
/// Most tensors of one checkpoint.
pub const TENSOR_COUNT_MAX: usize = 1 << 19;
/// Longest tensor name, in bytes.
pub const TENSOR_NAME_BYTES_MAX: usize = 512;
/// Most dimensions of a tensor.
pub const DIMENSION_COUNT_MAX: usize = 4;
/// Most elements in one tensor.
pub const TENSOR_ELEMENTS_MAX: u64 = 1 << 40;
