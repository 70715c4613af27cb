//! Texts in, vectors out, some texts a step.

use super::{Job, Pools, Progressed};
use crate::convert;
use crate::load::LoadedModel;
use crate::status::{self, Failure};
use mote_api::{Canceller, MoeSpec};
use mote_pipeline::{
    EmbeddingJob, EmbeddingKind, EmbeddingRequest, EmbeddingStep, Embeddings, NamedTensor,
    SessionPool,
};
use mote_wire::types::{
    Done, Embed, EmbedKind, Embeddings as WireEmbeddings, JobReply, Progress, Receipt, Stage,
    Status,
};

/// Name of the tensor that holds the vectors.
const VECTORS: &str = "embeddings";

/// The texts of one request.
pub struct EmbedJob {
    job: EmbeddingJob,
    moe: Option<MoeSpec>,
}

impl EmbedJob {
    /// Tokenises the texts and takes a session.
    pub fn new(
        embed: Embed,
        loaded: &LoadedModel,
        sessions: &mut SessionPool,
    ) -> Result<Self, Failure> {
        let Some(model) = &loaded.embedding else {
            let why = format!("{:?} is no embedding model", loaded.manifest.name);
            return Err(Status::invalid("model", why).into());
        };
        let request = EmbeddingRequest {
            texts: embed.texts,
            kind: match embed.kind {
                EmbedKind::Plain => EmbeddingKind::Plain,
                EmbedKind::Query => EmbeddingKind::Query,
                EmbedKind::Document => EmbeddingKind::Document,
            },
            dimensions: embed.dimensions.map(|n| n as usize),
            truncate: embed.truncate,
        };
        let job = EmbeddingJob::start(model, sessions, &request);
        Ok(Self {
            job: job.map_err(|error| status::of_step(&error))?,
            moe: model.spec().moe.clone(),
        })
    }

    fn finish(&self, made: Embeddings) -> Result<(WireEmbeddings, Receipt), Failure> {
        let named = NamedTensor {
            name: VECTORS.into(),
            tensor: made.vectors,
        };
        let (vectors, copied) = convert::output(&named, None)?;
        let stats = self.job.stats();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let receipt = Receipt {
            texts: stats.texts,
            prompt_tokens: stats.tokens,
            steps: stats.steps,
            compute_us: stats.compute_us,
            bytes_copied: stats.bytes_copied + copied,
            experts: self.moe.as_ref().map(|moe| count(moe.experts)),
            experts_per_token: self.moe.as_ref().map(|moe| count(moe.experts_per_token)),
            ..Receipt::default()
        };
        let embeddings = WireEmbeddings {
            vectors,
            tokens: made.tokens,
            truncated: made.truncated,
        };
        Ok((embeddings, receipt))
    }
}

impl Job for EmbedJob {
    fn step(&mut self, said: &mut Vec<JobReply>) -> Result<Progressed, Failure> {
        match self.job.step().map_err(|error| status::of_step(&error))? {
            EmbeddingStep::Computed { done, total } => {
                said.push(JobReply::Progress(Progress {
                    stage: Stage::Embed,
                    done: done as u64,
                    total: Some(total as u64),
                    remaining_ms: None,
                }));
                Ok(Progressed::More)
            }
            EmbeddingStep::Finished(made) => {
                let (embeddings, receipt) = self.finish(made)?;
                said.push(JobReply::Embeddings(embeddings));
                Ok(Progressed::Done(Box::new(Done {
                    receipt,
                    ..Done::default()
                })))
            }
        }
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(self.job.canceller())
    }

    fn give_back(self: Box<Self>, pools: &mut Pools<'_>) {
        self.job.finish(pools.sessions);
    }
}
