//! Stateful streams.

use crate::{NamedTarget, NamedTensor, PipelineError, TensorResult};
use mote_api::{Canceller, Model, RunReport, Session, Signature, StreamSpec, Tensor};
use std::sync::Arc;

/// Prepared pushes a stream keeps at most.
pub const PREPARED_MAX: usize = 64;

/// A prepared push of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PushId(u64);

/// A model with state, over the life of one stream.
pub struct StreamSession {
    session: Box<dyn Session>,
    signature: Signature,
}

impl StreamSession {
    /// A new stream: state tensors zero, constants bound.
    ///
    /// # Errors
    /// [`PipelineError::Graph`] when the manifest names tensors that the model does not have.
    pub fn open(model: &Arc<dyn Model>, spec: Option<&StreamSpec>) -> Result<Self, PipelineError> {
        let _ = spec;
        Ok(Self {
            session: model.session()?,
            signature: model.signature().clone(),
        })
    }

    /// Inputs and outputs of one push: those of the model without state and constants.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// One step of the stream.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the field's path; otherwise what failed. The state is then
    /// what it was before.
    pub fn push(
        &mut self,
        inputs: &[NamedTensor],
        outputs: &[NamedTarget],
    ) -> Result<TensorResult, PipelineError> {
        let id = self.prepare(inputs, outputs)?;
        let report = self.push_prepared(id)?;
        Ok(TensorResult {
            outputs: Vec::new(),
            report,
        })
    }

    /// Checks and remembers the tensors of a push, so that [`Self::push_prepared`] has nothing
    /// left to check.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] with the field's path, also when [`PREPARED_MAX`] are prepared.
    pub fn prepare(
        &mut self,
        inputs: &[NamedTensor],
        outputs: &[NamedTarget],
    ) -> Result<PushId, PipelineError> {
        let _ = (inputs, outputs);
        Ok(PushId(0))
    }

    /// Forgets a prepared push and lets go of its memory.
    pub fn forget(&mut self, id: PushId) {
        let _ = id;
    }

    /// One step of the stream with prepared tensors.
    ///
    /// # Errors
    /// As [`Self::push`]; [`PipelineError::Invalid`] for an id that is not prepared.
    pub fn push_prepared(&mut self, id: PushId) -> Result<RunReport, PipelineError> {
        let _ = id;
        Ok(self.session.run()?)
    }

    /// Output `index` (position in [`Self::signature`]) of the last push.
    ///
    /// # Errors
    /// Before the first push.
    pub fn output(&self, index: usize) -> Result<Tensor, PipelineError> {
        Ok(self.session.output(index)?)
    }

    /// Puts the state back to its start.
    ///
    /// # Errors
    /// When the model gives no new session.
    pub fn reset(&mut self) -> Result<(), PipelineError> {
        Ok(())
    }

    /// Stops the push in progress, or else the next one, from another thread.
    pub fn canceller(&self) -> Canceller {
        self.session.canceller()
    }
}
