//! Tensors in, tensors out.

use crate::PipelineError;
use crate::binding::{Binding, own_memory, stand_in, target, unbind};
use crate::cancel::CancelFlag;
use mote_api::{Canceller, Model, RunReport, Session, Signature, Tensor};
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

/// Idle sessions, for [`TensorJob`]s and [`EmbeddingJob`](crate::EmbeddingJob)s on the same model to use again.
#[derive(Default)]
pub struct SessionPool {
    /// Least recently used first.
    idle: Vec<IdleSession>,
}

/// A session that a job takes from the pool and gives back to it.
pub(crate) struct IdleSession {
    model: Arc<dyn Model>,
    pub session: Box<dyn Session>,
    memory: OwnMemory,
}

/// Private memory that stays with a session, so that a small job maps none.
#[derive(Default)]
struct OwnMemory {
    /// What inputs are bound to between jobs; one for each, or none yet.
    stand_ins: Vec<Tensor>,
    /// For outputs that a job gives no memory for, where one needed it.
    outputs: Vec<Option<Tensor>>,
}

impl OwnMemory {
    /// Memory for output `index`: what an earlier job used, if nobody reads that any more.
    fn output(
        &mut self,
        index: usize,
        signature: &Signature,
    ) -> Result<Option<Tensor>, PipelineError> {
        self.outputs.resize(signature.outputs.len(), None);
        let kept = self.outputs[index].take();
        let kept = kept.filter(|tensor| tensor.buffer().is_only_handle());
        let memory = match kept {
            Some(tensor) => Some(tensor),
            None => own_memory(&signature.outputs[index])?,
        };
        self.outputs[index].clone_from(&memory);
        Ok(memory)
    }

    fn stand_ins(&mut self, signature: &Signature) -> Result<&[Tensor], PipelineError> {
        if self.stand_ins.is_empty() {
            let made: Result<_, PipelineError> = signature.inputs.iter().map(stand_in).collect();
            self.stand_ins = made?;
        }
        Ok(&self.stand_ins)
    }
}

impl SessionPool {
    /// An empty pool; it keeps [`SESSIONS_MAX`] sessions.
    pub fn new() -> Self {
        Self::default()
    }

    /// A session of `model`: an idle one, or a new one.
    pub(crate) fn take(&mut self, model: &Arc<dyn Model>) -> Result<IdleSession, PipelineError> {
        let usable = |idle: &IdleSession| Arc::ptr_eq(&idle.model, model);
        match self.idle.iter().rposition(usable) {
            Some(position) => Ok(self.idle.remove(position)),
            None => Ok(IdleSession {
                session: model.session()?,
                model: Arc::clone(model),
                memory: OwnMemory::default(),
            }),
        }
    }

    /// Keeps a session, without the memory that its last job bound. One that does not let go of it
    /// is dropped.
    pub(crate) fn put(&mut self, mut used: IdleSession) {
        let signature = used.model.signature();
        let outputs = 0..signature.outputs.len();
        let unbound = used.memory.stand_ins(signature).and_then(|stand_ins| {
            unbind(used.session.as_mut(), stand_ins.iter().enumerate(), outputs)
        });
        if let Err(error) = unbound {
            log::debug!("a session keeps its memory bound: {error}");
            return;
        }
        if self.idle.len() >= SESSIONS_MAX {
            self.idle.remove(0);
        }
        self.idle.push(used);
    }
}

/// One run of a stateless model.
pub struct TensorJob {
    used: IdleSession,
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
        let mut used = pool.take(model)?;
        for (index, tensor) in &binding.inputs {
            used.session.bind_input(*index, tensor)?;
        }
        for (index, given) in binding.outputs {
            let memory = match given {
                Some(tensor) => Some(tensor),
                None => used.memory.output(index, model.signature())?,
            };
            used.session.bind_output(index, target(memory))?;
        }
        Ok(Self {
            used,
            cancel: CancelFlag::default(),
        })
    }

    /// Computes.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`], or what failed.
    pub fn run(&mut self) -> Result<TensorResult, PipelineError> {
        let report = self.cancel.run(self.used.session.as_mut())?;
        let outputs = self.used.model.signature().outputs.iter().enumerate();
        let outputs = outputs.map(|(index, spec)| {
            Ok(NamedTensor {
                name: spec.name.clone(),
                tensor: self.used.session.output(index)?,
            })
        });
        Ok(TensorResult {
            outputs: outputs.collect::<Result<_, PipelineError>>()?,
            report,
        })
    }

    /// Stops the job from another thread. Without effect on later jobs that use the same session.
    pub fn canceller(&self) -> Canceller {
        self.cancel.canceller(self.used.session.as_ref())
    }

    /// Gives the session back; right also after an error.
    pub fn finish(self, pool: &mut SessionPool) {
        pool.put(self.used);
    }
}
