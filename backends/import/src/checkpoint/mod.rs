//! Checkpoints by role: what a decoder-only transformer is made of, whatever file format
//! and naming it comes in.

mod llama;
mod rows;

use thiserror::Error;

use crate::gguf::GgufError;
pub use llama::LlamaGguf;
pub(crate) use llama::stored_row;
pub use rows::{Alternating, Cached, Gathered, Matrix, Rows, SourceRows, Stacked, read_all};

/// Most decoder layers.
pub const LAYER_COUNT_MAX: usize = 1024;
/// Largest hidden or feed-forward width, in elements.
pub const WIDTH_MAX: usize = 1 << 17;
/// Largest vocabulary, in tokens.
pub const VOCAB_MAX: usize = 1 << 20;
/// Longest context, in tokens.
pub const CONTEXT_TOKENS_MAX: usize = 1 << 20;

/// The dimensions and constants of a decoder with rotary attention, RMS norms and a
/// SwiGLU feed-forward block.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Neurons of the dense feed-forward block.
    pub neurons: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Longest context the model was trained for, in tokens.
    pub context_tokens: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
    /// Added to the mean square in RMS norms.
    pub norm_epsilon: f32,
    /// Whether the output head is the embedding matrix.
    pub tied_head: bool,
}

impl ModelConfig {
    /// Rows of the query projection.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Rows of the key projection, and of the value projection.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

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

/// What a tensor of a decoder layer is for. Rotary projections have their halves apart
/// (element `i` pairs with `i + head_dim / 2`), as in Hugging Face checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerRole {
    /// `[1, hidden]`
    AttentionNorm,
    /// `[heads × head_dim, hidden]`
    Query,
    /// `[kv_heads × head_dim, hidden]`
    Key,
    /// `[kv_heads × head_dim, hidden]`
    Value,
    /// `[hidden, heads × head_dim]`
    AttentionOutput,
    /// `[1, hidden]`
    FeedForwardNorm,
    /// `[neurons, hidden]`
    Gate,
    /// `[neurons, hidden]`
    Up,
    /// `[hidden, neurons]`
    Down,
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
