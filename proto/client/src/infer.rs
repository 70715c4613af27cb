//! Tensors in, tensors out.

use crate::call::{Call, credit_of};
use crate::client::Client;
use crate::error::ClientError;
use crate::tensor::{Input, Output, OwnedTensor, Staging, lower_outputs};
use mote_wire::types::{Done, Infer, Reply, Request, WorkOptions};

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InferResult {
    /// Outputs; those with a target are in the caller's buffers, and may be left out here.
    pub outputs: Vec<OwnedTensor>,
    /// What computed them.
    pub done: Box<Done>,
}

impl Client {
    /// Runs `model` once. Inputs given as bytes travel in the request when they are small, and are
    /// copied to a pooled buffer otherwise; outputs without a target come back as bytes.
    pub fn infer(
        &self,
        model: &str,
        inputs: &[Input<'_>],
        outputs: &[Output<'_>],
        options: &WorkOptions,
    ) -> Result<InferResult, ClientError> {
        let staging = Staging::of(inputs);
        let mut staged = match staging.bytes {
            0 => None,
            bytes => Some(self.link.pool.take(&self.link, bytes)?),
        };
        let credit = credit_of(options);
        let request = Request::Infer(Infer {
            model: model.into(),
            inputs: staging.lower(inputs, staged.as_mut())?,
            outputs: lower_outputs(outputs),
            options: WorkOptions {
                credit,
                ..options.clone()
            },
        });
        let mut call = Call::open(&self.link, request, credit)?;
        let result = collect(&mut call);
        // After an error the daemon may still read the buffer, so it must not be used again.
        if let (Ok(_), Some(staged)) = (&result, staged) {
            self.link.pool.put(staged);
        }
        result
    }
}

fn collect(call: &mut Call) -> Result<InferResult, ClientError> {
    let mut outputs = Vec::new();
    while let Some(answer) = call.next() {
        match answer? {
            Reply::Accepted { .. } | Reply::Progress(_) => {}
            Reply::Tensor(tensor) => outputs.push(OwnedTensor::read(tensor)?),
            Reply::Done(done) => return Ok(InferResult { outputs, done }),
            _ => break,
        }
    }
    Err(ClientError::other_answer("infer"))
}
