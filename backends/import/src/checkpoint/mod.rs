//! Checkpoints by role: what a decoder-only transformer is made of, whatever file format
//! and naming it comes in.

mod config;
mod gguf;
mod hugging_face;
mod keys;
mod place;
mod rope;
mod rows;

use thiserror::Error;

use crate::{gguf::GgufError, safetensors::SafetensorsError};
pub use config::{
    Attention, Experts, Latent, ModelConfig, Multipliers, QueryKeyNorm, Routing, SlidingWindow,
};
pub use gguf::open_gguf;
pub use hugging_face::{
    CONFIG_FILE, open_hugging_face, open_hugging_face_without_head, read_config,
};
pub use mote_kernels::{Groups, Score};
pub(crate) use place::stored_row;
pub use place::{Checkpoint, TensorStore};
pub use rope::{Rope, RopeScaling};
pub use rows::{
    Alternating, Cached, Gathered, Mapped, Matrix, Rows, Scaled, SourceRows, Stacked, read_all,
};

/// Most decoder layers.
pub const LAYER_COUNT_MAX: usize = 1024;
/// Largest hidden or feed-forward width, in elements.
pub const WIDTH_MAX: usize = 1 << 17;
/// Largest vocabulary, in tokens.
pub const VOCAB_MAX: usize = 1 << 20;
/// Longest context, in tokens.
pub const CONTEXT_TOKENS_MAX: usize = 1 << 20;

/// What a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// `[vocab, hidden]`
    Embedding,
    /// `[vocab, hidden]`; absent when the head is tied.
    Head,
    /// `[1, hidden]`
    FinalNorm,
    /// A tensor of decoder layer `.0`.
    Layer(usize, LayerRole),
}

/// What a tensor of a decoder layer is for. Unless the configuration says otherwise, rotary
/// projections have their halves apart (element `i` pairs with `i + head_dim / 2`), as in
/// Hugging Face checkpoints. Matrices of all experts lie one below the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerRole {
    /// `[1, hidden]`
    AttentionNorm,
    /// `[heads × head_dim, hidden]`, or over the latent of queries.
    Query,
    /// `[kv_heads × head_dim, hidden]`
    Key,
    /// `[kv_heads × head_dim, hidden]`
    Value,
    /// `[1, heads × head_dim]`
    QueryBias,
    /// `[1, kv_heads × head_dim]`
    KeyBias,
    /// `[1, kv_heads × head_dim]`
    ValueBias,
    /// `[1, head_dim]` or `[1, heads × head_dim]`
    QueryNorm,
    /// `[1, head_dim]` or `[1, kv_heads × head_dim]`
    KeyNorm,
    /// The latent of queries, `[query_rank, hidden]`
    QueryDown,
    /// `[1, query_rank]`
    QueryDownNorm,
    /// The latent of keys and values, then the rotated part of keys,
    /// `[kv_rank + rope_dim, hidden]`
    KvDown,
    /// `[1, kv_rank]`
    KvDownNorm,
    /// For each head the unrotated part of its keys, then its values,
    /// `[heads × (nope_dim + value_dim), kv_rank]`
    KvUp,
    /// `[hidden, heads × value_dim]`
    AttentionOutput,
    /// `[1, hidden]`
    OutputBias,
    /// `[1, hidden]`
    FeedForwardNorm,
    /// `[neurons, hidden]`
    Gate,
    /// `[neurons, hidden]`
    Up,
    /// `[hidden, neurons]`
    Down,
    /// `[experts, hidden]`
    Router,
    /// `[1, experts]`
    RouterBias,
    /// `[experts × expert_neurons, hidden]`
    ExpertGate,
    /// `[experts × expert_neurons, hidden]`
    ExpertUp,
    /// `[experts × hidden, expert_neurons]`
    ExpertDown,
    /// `[shared_neurons, hidden]`
    SharedGate,
    /// `[shared_neurons, hidden]`
    SharedUp,
    /// `[hidden, shared_neurons]`
    SharedDown,
    /// `[1, hidden]`
    SharedSwitch,
}

/// A checkpoint whose tensors are asked for by role and come as f32.
pub trait LayerSource {
    /// Dimensions and constants.
    fn config(&self) -> &ModelConfig;
    /// Rows and columns of the tensor in `role`.
    fn shape(&self, role: Role) -> Result<(usize, usize), CheckpointError>;
    /// Fills `out`, a whole number of rows, from row `first` of the tensor in `role`.
    fn read_rows(&self, role: Role, first: usize, out: &mut [f32]) -> Result<(), CheckpointError>;
}

/// Why a checkpoint cannot be used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file itself is malformed or lacks something.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The same of a Hugging Face folder.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// No reader for this architecture.
    #[error("architecture {name:?} is not supported")]
    UnsupportedArchitecture {
        /// The architecture's name.
        name: String,
    },
    /// The metadata asks for something that would change the computation.
    #[error("metadata key {key:?} asks for something that is not supported")]
    UnsupportedFeature {
        /// The key.
        key: String,
    },
    /// The metadata names something by a word that is not known here.
    #[error("metadata key {key:?} has the value {value:?}, which is not supported")]
    UnsupportedValue {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// A metadata key is required and absent.
    #[error("metadata key {key:?} is missing")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A metadata value has another type than its key needs.
    #[error("metadata key {key:?} is not a {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// The type needed.
        expected: &'static str,
    },
    /// A tensor without a place in the architecture: ignoring it would change results.
    #[error("tensor {tensor:?} has no place in architecture {architecture:?}")]
    UnknownTensor {
        /// The tensor.
        tensor: String,
        /// The architecture's name.
        architecture: &'static str,
    },
    /// A dimension or constant is zero, too large, or does not fit the others.
    #[error("metadata key {key:?} has the impossible value {value}")]
    OutOfRange {
        /// The key.
        key: String,
        /// Its value.
        value: f64,
    },
    /// A tensor's shape contradicts the metadata.
    #[error("tensor {tensor:?} is {found:?}, not {expected:?} (rows, columns)")]
    WrongShape {
        /// The tensor.
        tensor: String,
        /// Rows and columns that the metadata imply.
        expected: (usize, usize),
        /// Rows and columns found.
        found: (usize, usize),
    },
}
