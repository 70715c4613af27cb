//! Why a pipeline did not give a result.

use crate::diffusion::SchedulerError;
use mote_api::{LoadError, RunError, TensorError};
use std::path::PathBuf;

/// An error of a pipeline; a variant names the operation that failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum PipelineError {
    /// The request is at fault.
    #[error("{field}: {why}")]
    Invalid { field: String, why: String },
    /// The prompt leaves no room for an answer.
    #[error("{prompt_tokens} prompt tokens leave no room in a context of {context_tokens}")]
    ContextOverflow {
        prompt_tokens: u64,
        context_tokens: u64,
    },
    /// Key and value caches may not take so much memory beside those of other jobs.
    #[error(
        "prompt and answer may need {need_bytes} bytes of key and value cache; \
         {have_bytes} of {bytes_max} are free"
    )]
    CacheFull {
        need_bytes: u64,
        have_bytes: u64,
        bytes_max: u64,
    },
    /// A clip may not take so much memory beside others of the same model.
    #[error(
        "frames and latents of the clip may need {need_bytes} bytes; \
         {have_bytes} of the {bytes_max} for clips of this model are free"
    )]
    MemoryFull {
        need_bytes: u64,
        have_bytes: u64,
        bytes_max: u64,
    },
    /// A text to be embedded is longer than the context.
    #[error("text {index} has {tokens} tokens, the model's context holds {context_tokens}")]
    TextTooLong {
        index: usize,
        tokens: u64,
        context_tokens: u64,
    },
    /// A file of the model's folder cannot be read.
    #[error("cannot read {}", file.display())]
    ModelFile {
        file: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    /// A file of the model's folder is larger than such a file may be.
    #[error("{} is more than {bytes_max} bytes", file.display())]
    FileTooLarge { file: PathBuf, bytes_max: u64 },
    /// A file of the model's folder is not what it should be.
    #[error("{} is malformed", file.display())]
    MalformedFile {
        file: PathBuf,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The model's inputs and outputs are not those its manifest and task call for.
    #[error("model tensor {tensor:?} {why}")]
    Graph { tensor: String, why: String },
    /// The folder's kind of pipeline is not served.
    #[error("pipelines of class {class:?} are not served; served are {served}")]
    PipelineClass { class: String, served: String },
    /// A part of the model is missing, or does not belong to the others.
    #[error("the model's part {part:?} {why}")]
    Part { part: String, why: String },
    /// There is no schedule of noise, or no next step of it.
    #[error("cannot follow the schedule of noise")]
    Schedule(#[source] SchedulerError),
    /// The bytes of a checkpoint cannot be gone on from.
    #[error("the checkpoint {why}")]
    Checkpoint { why: &'static str },
    /// The chat template refused these messages (`raise_exception`).
    #[error("the chat template refuses the messages: {message}")]
    TemplateRefused { message: String },
    /// The chat template failed on these messages.
    #[error("cannot render the chat template")]
    Template(#[source] minijinja::Error),
    /// The tokenizer failed on the prompt.
    #[error("cannot tokenize the prompt")]
    Tokenize(#[source] tokenizers::Error),
    /// The tokenizer failed on tokens that the model gave.
    #[error("cannot turn tokens into text")]
    Detokenize(#[source] tokenizers::Error),
    /// The constraint's grammar failed on the answer, or could not be made.
    #[error("cannot follow the constraint")]
    Grammar(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No token can be chosen from what the model computed.
    #[error("the model's logits {why}")]
    Logits { why: &'static str },
    /// What the model computed for a text is no vector.
    #[error("the vector of a text {why}")]
    Vector { why: &'static str },
    /// What the model computed for a frame are no scores.
    #[error("the scores of frame {frame_index} {why}")]
    Scores { frame_index: u64, why: &'static str },
    /// The run in progress was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
    /// The model failed.
    #[error("cannot run the model")]
    Run(#[source] RunError),
    /// The model gave no session.
    #[error("cannot start on the model")]
    Load(#[source] LoadError),
}

impl PipelineError {
    pub(crate) fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            why: why.into(),
        }
    }

    pub(crate) fn part(part: &str, why: impl Into<String>) -> Self {
        Self::Part {
            part: part.to_owned(),
            why: why.into(),
        }
    }

    pub(crate) fn checkpoint(why: &'static str) -> Self {
        Self::Checkpoint { why }
    }

    pub(crate) fn graph(tensor: &str, why: impl Into<String>) -> Self {
        Self::Graph {
            tensor: tensor.to_owned(),
            why: why.into(),
        }
    }
}

impl From<RunError> for PipelineError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Cancelled => Self::Cancelled,
            other => Self::Run(other),
        }
    }
}

impl From<TensorError> for PipelineError {
    fn from(error: TensorError) -> Self {
        Self::Run(error.into())
    }
}

impl From<LoadError> for PipelineError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}
