//! Tensors in, tensors out, once.

use super::{Job, Pools, Progressed};
use crate::buffers::Buffers;
use crate::convert;
use crate::load::LoadedModel;
use crate::status::{self, Failure};
use mote_api::Canceller;
use mote_pipeline::{SessionPool, TensorJob};
use mote_wire::types::{BufferRange, Done, Infer, JobReply, Receipt, Status};
use std::collections::HashMap;

/// One run of a model.
pub struct InferJob {
    job: TensorJob,
    ranges: HashMap<String, BufferRange>,
    bytes_copied: u64,
}

impl InferJob {
    /// Checks and binds inputs and outputs.
    pub fn new(
        infer: Infer,
        loaded: &LoadedModel,
        buffers: &Buffers,
        sessions: &mut SessionPool,
    ) -> Result<Self, Status> {
        let ranges = infer
            .outputs
            .iter()
            .map(|t| (t.name.clone(), t.range))
            .collect();
        let signature = loaded.model.signature();
        let mut targets = Vec::with_capacity(infer.outputs.len());
        for target in &infer.outputs {
            targets.push(convert::target(target, signature, buffers)?);
        }
        let mut inputs = Vec::with_capacity(infer.inputs.len());
        let mut bytes_copied = 0;
        for tensor in infer.inputs {
            let input = convert::input(tensor, buffers)?;
            if input.tensor.buffer().origin() == mote_api::BufferOrigin::Private {
                bytes_copied += input.tensor.bytes() as u64;
            }
            inputs.push(input);
        }
        let job = TensorJob::new(&loaded.model, sessions, inputs, targets)
            .map_err(|error| status::of_pipeline(&error))?;
        Ok(Self {
            job,
            ranges,
            bytes_copied,
        })
    }
}

impl Job for InferJob {
    fn step(&mut self, said: &mut Vec<JobReply>) -> Result<Progressed, Failure> {
        let result = self.job.run().map_err(|error| status::of_step(&error))?;
        let mut bytes_copied = self.bytes_copied + result.report.bytes_copied;
        for output in &result.outputs {
            let range = self.ranges.get(&output.name).copied();
            let (tensor, copied) = convert::output(output, range)?;
            bytes_copied += copied;
            said.push(JobReply::Tensor(tensor));
        }
        let receipt = Receipt {
            compute_us: result.report.compute_us,
            bytes_copied,
            steps: 1,
            ..Receipt::default()
        };
        Ok(Progressed::Done(Box::new(Done {
            receipt,
            ..Done::default()
        })))
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(self.job.canceller())
    }

    fn give_back(self: Box<Self>, pools: &mut Pools<'_>) {
        self.job.finish(pools.sessions);
    }
}
