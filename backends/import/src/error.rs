//! Why an import fails.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

use crate::{
    NAME_BYTES_MAX, checkpoint::CheckpointError, gguf::GgufError, onnx::CheckError,
    recipe::RecipeError, safetensors::SafetensorsError, tokenizer::TokenizerError,
};

/// Why an import fails. Nothing is left behind in any case.
#[derive(Debug, Error)]
pub enum ImportError {
    /// An option is out of range or does not fit the checkpoint.
    #[error("{option}")]
    Option {
        /// Which option.
        option: ImportOption,
    },
    /// The target has no parent folder or no name.
    #[error("{path} cannot be a model folder", path = .path.display())]
    TargetPath {
        /// The target.
        path: PathBuf,
    },
    /// The target exists already.
    #[error("{path} exists already", path = .path.display())]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// The source is no usable GGUF file.
    #[error("cannot open the checkpoint")]
    Source(#[source] GgufError),
    /// The source is no usable Hugging Face folder.
    #[error("cannot open the checkpoint")]
    SourceFolder(#[from] SafetensorsError),
    /// The checkpoint cannot be converted.
    #[error("cannot convert the checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// The carving recipe is refused.
    #[error("cannot use the carving recipe")]
    Recipe(#[from] RecipeError),
    /// The tokenizer cannot be rebuilt.
    #[error("cannot make the tokenizer")]
    Tokenizer(#[from] TokenizerError),
    /// A matrix cannot be quantised because its rows are no whole number of blocks.
    #[error("rows of {tensor:?} have {columns} elements, not a multiple of 32")]
    RowNotBlocks {
        /// The tensor written.
        tensor: String,
        /// Its row length in elements.
        columns: usize,
    },
    /// A weight is too large for the scale of its block.
    #[error("weights of {tensor:?} are too large to be quantised")]
    ScaleOverflow {
        /// The tensor written.
        tensor: String,
    },
    /// Among the weights is an infinity or what is no number.
    #[error("weights of {tensor:?} are no numbers")]
    NoNumbers {
        /// The tensor written.
        tensor: String,
    },
    /// A matrix has sizes that kernels do not take.
    #[error("{tensor:?} cannot be laid out")]
    Layout {
        /// The tensor written.
        tensor: String,
        /// Why not.
        source: mote_kernels::LayoutError,
    },
    /// A weight is larger than the largest half.
    #[error("weights of {tensor:?} are too large for 16 bits")]
    HalfOverflow {
        /// The tensor written.
        tensor: String,
    },
    /// The target format cannot express the model.
    #[error("the target format cannot express {obstacle}")]
    Inexpressible {
        /// What it cannot express.
        obstacle: Obstacle,
    },
    /// Writing failed.
    #[error("cannot write {path}", path = .path.display())]
    Write {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read {path}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A written file does not read back as it was written.
    #[error("{path} does not read back as it was written", path = .path.display())]
    Verify {
        /// The file.
        path: PathBuf,
    },
    /// The written model is inconsistent.
    #[error("the written {file} is inconsistent")]
    Model {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        source: CheckError,
    },
    /// The finished folder cannot be moved to its place.
    #[error("cannot move the finished folder to {path}", path = .path.display())]
    Publish {
        /// The target.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A description file cannot be serialised.
    #[error("cannot serialise {file}")]
    Serialise {
        /// The file.
        file: &'static str,
        /// The serialiser's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The caller cancelled.
    #[error("the import was cancelled")]
    Cancelled,
}

/// An option of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportOption {
    /// [`ImportOptions::name`](crate::ImportOptions::name)
    Name,
    /// [`ImportOptions::embedding`](crate::ImportOptions::embedding)
    Embedding,
    /// [`ImportOptions::context_tokens`](crate::ImportOptions::context_tokens)
    ContextTokens {
        /// What the checkpoint allows.
        tokens_max: usize,
    },
}

impl fmt::Display for ImportOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => write!(
                f,
                "a model's name is 1 to {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`, and \
                 does not begin with `.`"
            ),
            Self::Embedding => f.write_str("other formats hold no embedding models"),
            Self::ContextTokens { tokens_max } => write!(
                f,
                "the checkpoint allows a context of 1 to {tokens_max} tokens"
            ),
        }
    }
}

/// What a target format cannot express.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Heads whose width is not `hidden / heads`.
    HeadDim,
    /// Heads, or rotated parts of them, whose width is no multiple of 16, which ONNX Runtime's
    /// attention asks for.
    HeadWidth,
    /// An output head apart from the embedding.
    UntiedHead,
    /// Vectors that are pooled otherwise.
    Pooling,
    /// Modules of sentence-transformers behind the pooling.
    Modules,
    /// Anything but a plain Llama, as it is or carved.
    Architecture,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeadDim => "heads of another width than the hidden size over their number",
            Self::HeadWidth => "heads, or rotated parts of them, whose width is no multiple of 16",
            Self::UntiedHead => "an output head apart from the embedding",
            Self::Pooling => {
                "another pooling than the last token's or the mean: --pooling chooses one"
            }
            Self::Modules => "modules.json with more than a transformer, pooling and norm",
            Self::Architecture => "other architectures than plain Llama",
        })
    }
}
