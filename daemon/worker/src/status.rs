//! Errors of the backends and pipelines as statuses of the wire.

use mote_api::{LoadError, Rejection, RunError};
use mote_pipeline::PipelineError;
use mote_wire::types::Status;
use std::error::Error;

/// An error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// Why something failed, and whether another candidate may do better.
pub struct Failure {
    /// For the client.
    pub status: Status,
    /// For the planner; `None` when the model or the request is at fault.
    pub rejection: Option<Box<Rejection>>,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self {
            status,
            rejection: None,
        }
    }
}

/// A failed step of a job or a stream: what a library fails at, another may be able to do.
pub fn of_step(error: &PipelineError) -> Failure {
    let rejection = match error {
        PipelineError::Run(RunError::DeviceLost { .. }) => {
            Some(Rejection::DeviceLost { why: chain(error) })
        }
        PipelineError::Run(RunError::Compute(_) | RunError::DeviceMemory { .. }) => {
            Some(Rejection::RunFailed { why: chain(error) })
        }
        _ => None,
    };
    Failure {
        status: of_pipeline(error),
        rejection: rejection.map(Box::new),
    }
}

/// A failed run.
pub fn of_run(error: &RunError) -> Status {
    match error {
        RunError::Cancelled => Status::Cancelled,
        RunError::Input { name, .. } => Status::invalid(format!("inputs[{name}]"), error),
        RunError::InputMissing { name } => Status::invalid(format!("inputs[{name}]"), "is missing"),
        RunError::Output { name, why } => Status::invalid(format!("outputs[{name}]"), why),
        RunError::Tensor(cause) => Status::invalid("tensor", chain(cause)),
        _ => Status::ComputeFailed {
            operation: "run".into(),
            cause: chain(error),
        },
    }
}

/// A failed load.
pub fn of_load(error: &LoadError) -> Status {
    match error {
        LoadError::Read { file, .. } | LoadError::Malformed { file, .. } => {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Status::ModelCorrupt {
                file: name,
                why: chain(error),
            }
        }
        _ => Status::ComputeFailed {
            operation: "load".into(),
            cause: chain(error),
        },
    }
}

/// When to come again while other answers fill the caches.
const CACHE_RETRY_MS: u64 = 1_000;

/// A failed pipeline.
pub fn of_pipeline(error: &PipelineError) -> Status {
    match error {
        PipelineError::Run(cause) => of_run(cause),
        PipelineError::Load(cause) => of_load(cause),
        PipelineError::Invalid { field, why } => Status::invalid(field.as_str(), why),
        PipelineError::ContextOverflow {
            prompt_tokens,
            context_tokens,
        } => Status::ContextOverflow {
            prompt_tokens: *prompt_tokens,
            context_tokens: *context_tokens,
            text: None,
        },
        PipelineError::TextTooLong {
            index,
            tokens,
            context_tokens,
        } => Status::ContextOverflow {
            prompt_tokens: *tokens,
            context_tokens: *context_tokens,
            text: u32::try_from(*index).ok(),
        },
        PipelineError::CacheFull {
            need_bytes,
            bytes_max,
            ..
        } if need_bytes > bytes_max => Status::OverBudget {
            what: "key and value caches of the model".into(),
            need_bytes: *need_bytes,
            have_bytes: *bytes_max,
        },
        PipelineError::MemoryFull {
            need_bytes,
            bytes_max,
            ..
        } if need_bytes > bytes_max => Status::OverBudget {
            what: "frames and latents of the clip".into(),
            need_bytes: *need_bytes,
            have_bytes: *bytes_max,
        },
        // Others will end.
        PipelineError::CacheFull { .. } | PipelineError::MemoryFull { .. } => Status::Busy {
            retry_after_ms: CACHE_RETRY_MS,
        },
        PipelineError::Cancelled => Status::Cancelled,
        PipelineError::TemplateRefused { message } => Status::invalid("messages", message),
        PipelineError::ModelFile { file, .. }
        | PipelineError::MalformedFile { file, .. }
        | PipelineError::FileTooLarge { file, .. } => {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Status::ModelCorrupt {
                file: name,
                why: chain(error),
            }
        }
        PipelineError::Graph { tensor, why } => Status::ModelCorrupt {
            file: "mote.toml".into(),
            why: format!("tensor {tensor}: {why}"),
        },
        PipelineError::PipelineClass { .. } | PipelineError::Part { .. } => Status::ModelCorrupt {
            file: "model_index.json".into(),
            why: chain(error),
        },
        _ => Status::ComputeFailed {
            operation: "pipeline".into(),
            cause: chain(error),
        },
    }
}

/// Something in this process that should not fail.
pub fn internal(operation: &str, error: &dyn Error) -> Status {
    Status::Internal {
        operation: operation.into(),
        cause: chain(error),
    }
}
