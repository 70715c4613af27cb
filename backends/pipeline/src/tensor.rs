//! Tensors in, tensors out.

use crate::PipelineError;
use crate::binding::{Binding, unbind};
use crate::cancel::CancelFlag;
use mote_api::{Canceller, Model, RunReport, Session, Tensor};
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

/// Idle sessions, for [`TensorJob`]s on the same model to use again.
#[derive(Default)]
pub struct SessionPool {
    /// Least recently used first.
    idle: Vec<IdleSession>,
}

struct IdleSession {
    model: Arc<dyn Model>,
    session: Box<dyn Session>,
}

impl SessionPool {
    /// An empty pool; it keeps [`SESSIONS_MAX`] sessions.
    pub fn new() -> Self {
        Self::default()
    }

    fn take(&mut self, model: &Arc<dyn Model>) -> Result<Box<dyn Session>, PipelineError> {
        let usable = |idle: &IdleSession| Arc::ptr_eq(&idle.model, model);
        match self.idle.iter().rposition(usable) {
            Some(position) => Ok(self.idle.remove(position).session),
            None => Ok(model.session()?),
        }
    }

    /// Keeps a session, without the memory that its last job bound.
    fn put(&mut self, model: Arc<dyn Model>, mut session: Box<dyn Session>) {
        let signature = model.signature();
        let inputs = signature.inputs.iter().enumerate();
        let unbound = unbind(session.as_mut(), inputs, 0..signature.outputs.len());
        if unbound.is_err() {
            return;
        }
        if self.idle.len() >= SESSIONS_MAX {
            self.idle.remove(0);
        }
        self.idle.push(IdleSession { model, session });
    }
}

/// One run of a stateless model.
pub struct TensorJob {
    model: Arc<dyn Model>,
    session: Box<dyn Session>,
    cancel: CancelFlag,
}

impl TensorJob {
    /// Checks names, types and shapes and binds everything.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the path of the field (`inputs[NAME].shape`, …).
    pub fn new(
        model: &Arc<dyn Model>,
        pool: &mut SessionPool,
        inputs: Vec<NamedTensor>,
        outputs: Vec<NamedTarget>,
    ) -> Result<Self, PipelineError> {
        let binding = Binding::new(model.signature(), &inputs, &outputs)?;
        let mut session = pool.take(model)?;
        for (index, tensor) in &binding.inputs {
            session.bind_input(*index, tensor)?;
        }
        for (index, target) in binding.outputs {
            session.bind_output(index, target)?;
        }
        Ok(Self {
            model: Arc::clone(model),
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
        let outputs = self.model.signature().outputs.iter().enumerate();
        let outputs = outputs.map(|(index, spec)| {
            Ok(NamedTensor {
                name: spec.name.clone(),
                tensor: self.session.output(index)?,
            })
        });
        Ok(TensorResult {
            outputs: outputs.collect::<Result<_, PipelineError>>()?,
            report,
        })
    }

    /// Stops the job from another thread. Without effect on later jobs that use the same session.
    pub fn canceller(&self) -> Canceller {
        self.cancel.canceller(self.session.as_ref())
    }

    /// Gives the session back; right also after an error.
    pub fn finish(self, pool: &mut SessionPool) {
        pool.put(self.model, self.session);
    }
}
