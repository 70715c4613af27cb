//! Work that goes through the broker, cut into steps.

mod clip;
mod embed;
mod generate;
mod infer;

use crate::buffers::Buffers;
use crate::load::LoadedModel;
use crate::status::Failure;
use mote_api::Canceller;
use mote_pipeline::{KvPool, SessionPool};
use mote_wire::types::{Done, JobReply, StartJob, Work};
use std::time::Duration;

/// What is kept between jobs.
pub struct Pools<'a> {
    /// Key and value caches of text.
    pub kv: &'a mut KvPool,
    /// Sessions of tensor jobs and of embedding.
    pub sessions: &'a mut SessionPool,
}

/// Whether a job goes on.
pub enum Progressed {
    /// There is another step.
    More,
    /// It went well; the broker completes the receipt.
    Done(Box<Done>),
}

/// Work in steps. A step is a prefill chunk, a token, a frame, some texts, or one run.
pub trait Job {
    /// Takes one step and says what came of it.
    fn step(&mut self, said: &mut Vec<JobReply>) -> Result<Progressed, Failure>;

    /// How the run in progress can be stopped; `None` when a step never lasts.
    fn canceller(&self) -> Option<Canceller>;

    /// After a good end: sessions and caches go back for the next job.
    fn give_back(self: Box<Self>, pools: &mut Pools<'_>);
}

/// Makes a job of a request. Everything about the request is checked here, before any compute.
pub fn start(
    start: StartJob,
    loaded: &LoadedModel,
    buffers: &Buffers,
    pools: &mut Pools<'_>,
) -> Result<Box<dyn Job>, Failure> {
    let resume = start.resume_token_ids;
    match start.work {
        Work::Infer(infer) => Ok(Box::new(infer::InferJob::new(
            infer,
            loaded,
            buffers,
            pools.sessions,
        )?)),
        Work::Generate(generate) => {
            let seed = start.seed;
            let job = generate::GenerateJob::new(generate, loaded, seed, resume, pools.kv)?;
            Ok(Box::new(job))
        }
        Work::TransformClip(clip) => Ok(Box::new(clip::ClipJob::new(clip, loaded)?)),
        Work::Embed(embed) => Ok(Box::new(embed::EmbedJob::new(
            embed,
            loaded,
            pools.sessions,
        )?)),
    }
}

/// Microseconds of a duration.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
