//! Work that goes through the broker, cut into steps.

mod checkpoint;
mod clip;
mod clip_files;
mod embed;
mod generate;
mod generate_clip;
mod infer;
mod label_clip;

use self::generate::TextWork;
use crate::buffers::Buffers;
use crate::load::LoadedModel;
use crate::status::Failure;
use mote_api::Canceller;
use mote_pipeline::{KvPool, SessionPool, TextJob};
use mote_wire::types::{Done, JobReply, StartJob, Steered, Work};
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

/// What one step gave: what it said, and whether the job goes on.
pub type Stepped = (Vec<JobReply>, Result<Progressed, Failure>);

/// Work in steps. A step is a prefill chunk, a token, a frame, some texts, or one run.
pub trait Job {
    /// Takes one step and says what came of it.
    fn step(&mut self, said: &mut Vec<JobReply>) -> Result<Progressed, Failure>;

    /// Whether its next step can be one run with those of other jobs that say so.
    fn may_join(&self) -> bool {
        false
    }

    /// As text; `None` for other work.
    fn text(&mut self) -> Option<&mut TextWork> {
        None
    }

    /// Sets the prompt for what has not begun yet, or for what begins with the segment that an earlier worker
    /// named, and says which segment is the first of it, or why it is not taken.
    fn steer(&mut self, _: String, _: Option<u32>) -> Steered {
        Steered::not_taken("the work makes no clip of words")
    }

    /// How the run in progress can be stopped; `None` when a step never lasts.
    fn canceller(&self) -> Option<Canceller>;

    /// After a good end: sessions and caches go back for the next job.
    fn give_back(self: Box<Self>, pools: &mut Pools<'_>);
}

/// A step of each of several jobs that [may join](Job::may_join), as one run.
pub fn step_together(jobs: &mut [&mut Box<dyn Job>]) -> Vec<Stepped> {
    let mut works: Vec<&mut TextWork> = jobs.iter_mut().filter_map(|job| job.text()).collect();
    let mut texts: Vec<&mut TextJob> = works.iter_mut().map(|work| &mut work.job).collect();
    let steps = TextJob::step_together(&mut texts);
    let tell = |(work, step): (&&mut TextWork, _)| {
        let mut said = Vec::new();
        let progressed = work.tell(step, &mut said);
        (said, progressed)
    };
    works.iter().zip(steps).map(tell).collect()
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
            let job = TextWork::new(generate, loaded, seed, resume, pools.kv)?;
            Ok(Box::new(job))
        }
        Work::TransformClip(clip) => Ok(Box::new(clip::ClipJob::new(clip, loaded)?)),
        Work::GenerateClip(clip) => Ok(Box::new(generate_clip::GenerateClipJob::new(
            *clip, loaded, start.seed,
        )?)),
        Work::LabelClip(clip) => Ok(Box::new(label_clip::LabelJob::new(clip, loaded)?)),
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
