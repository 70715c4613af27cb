//! Tensors in, tensors out.

use crate::PipelineError;
use crate::cancel::CancelFlag;
use mote_api::{Canceller, Model, OutputTarget, RunReport, Session, Signature, Tensor};
use std::sync::Arc;

/// Idle sessions a [`SessionPool`] keeps at most.
pub const SESSIONS_MAX: usize = 4;

/// A tensor and the model input or output it belongs to.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    /// Name in the model.
    pub name: String,
    /// Values.
    pub tensor: Tensor,
}

/// Memory that an output is to be written to; its shape is the shape expected.
#[derive(Clone, Debug)]
pub struct NamedTarget {
    /// Name of the output in the model.
    pub name: String,
    /// Memory.
    pub tensor: Tensor,
}

/// Outputs of one run, in the model's order: all of them, also those that no target was given for.
#[derive(Clone, Debug)]
pub struct TensorResult {
    /// Outputs; one with a target is that target's memory.
    pub outputs: Vec<NamedTensor>,
    /// Times and copies.
    pub report: RunReport,
}

/// Idle sessions of one model, for [`TensorJob`]s to use again.
#[derive(Default)]
pub struct SessionPool {
    idle: Vec<Box<dyn Session>>,
}

impl SessionPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }
}

/// One run of a stateless model.
pub struct TensorJob {
    session: Box<dyn Session>,
    cancel: CancelFlag,
}

impl TensorJob {
    /// Checks names, types and shapes and binds everything.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the path of the field (`inputs[2].name`, …).
    pub fn new(
        model: &Arc<dyn Model>,
        pool: &mut SessionPool,
        inputs: Vec<NamedTensor>,
        outputs: Vec<NamedTarget>,
    ) -> Result<Self, PipelineError> {
        let _ = (inputs, outputs);
        let session = match pool.idle.pop() {
            Some(session) => session,
            None => model.session()?,
        };
        Ok(Self {
            session,
            cancel: CancelFlag::default(),
        })
    }

    /// Computes.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`], or what failed.
    pub fn run(&mut self) -> Result<TensorResult, PipelineError> {
        let report = self.cancel.run(self.session.as_mut())?;
        Ok(TensorResult {
            outputs: Vec::new(),
            report,
        })
    }

    /// Stops the job from another thread.
    pub fn canceller(&self) -> Canceller {
        self.cancel.canceller(self.session.as_ref())
    }

    /// Gives the session back.
    pub fn finish(self, pool: &mut SessionPool) {
        let _ = (OutputTarget::Allocate, Signature::default());
        pool.idle.push(self.session);
    }
}
