//! One piece of work and its journal: everything needed to begin it anew on another worker.

use super::steers::Steers;
use super::work;
use crate::ids::{BufferId, RequestKey, WantId, WorkerId};
use crate::policy::history::Key;
use crate::policy::power::Throttle;
use mote_api::{Candidate, Rejected, Rejection};
use mote_wire::types::{JobReply, Priority, Status, Work};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its model is being looked for or loaded.
    Seeking(WantId),
    /// It waits for its turn on the device of this worker.
    Queued(WorkerId),
    /// This worker computes it.
    Running(WorkerId),
}

/// A job.
#[derive(Debug)]
pub struct Job {
    /// The request it answers.
    pub key: RequestKey,
    /// What is to be done; buffers carry the broker's numbers.
    pub work: Work,
    /// Buffers it uses.
    pub buffers: BTreeSet<BufferId>,
    /// Seed for the sampler, the same in every run.
    pub seed: u64,
    /// Where it is.
    pub phase: Phase,
    /// Content frames the client can still take.
    pub credit: u32,
    /// Set once it is to end early: what the client will be told.
    pub ending: Option<Status>,
    /// What was sent to the client.
    pub sent: Sent,
    /// Tensors, previews, frames and vectors of the present run.
    frames_of_run: usize,
    /// How often it began anew.
    pub retries: u32,
    /// How often a worker died under it on its own.
    pub deaths: u32,
    /// How often it was paused for more urgent work.
    pub preemptions: u32,
    /// Whether its client halted it.
    pub halted: bool,
    /// The prompts that its client set for the shots of a clip that had not begun.
    pub steers: Steers,
    /// A way to run it that is not to be taken again if there is another.
    pub avoid: Option<Candidate>,
    /// Ways to run it that failed under it, with the reasons.
    pub set_backs: Vec<Rejected>,
    /// The one that is on record only if another does better: the work itself may be at fault.
    pub suspect: Option<(Key, Rejection)>,
    /// The worst that slowed it down, as far as was seen while it ran.
    pub throttle: Throttle,
    /// Times for the receipt.
    pub times: Times,
}

/// What the client has of a job's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Tokens, all of them.
    pub token_ids: Vec<u32>,
    /// Number of tensors, previews, frames, sounds, labels and answers of vectors. A new run says the same ones in
    /// the same order.
    pub frames: usize,
    /// Of a generated clip, whose new runs go on from a checkpoint: steps that previews were sent of, and
    /// frames.
    pub steps_seen: u64,
    /// Frames of it.
    pub clip_frames: u64,
    /// Samples of each channel of its sound.
    pub clip_samples: u64,
}

/// Times of a job.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When it was accepted.
    pub accepted: Instant,
    /// When it entered its present phase.
    pub phase_began: Instant,
    /// Waiting for a model to load, in all.
    pub loading: Duration,
    /// Waiting for its turn, in all.
    pub queued: Duration,
}

impl Job {
    /// A job that has just been accepted.
    pub fn new(key: RequestKey, work: Work, now: Instant) -> Self {
        let credit = work::options(&work).credit;
        let times = Times {
            accepted: now,
            phase_began: now,
            loading: Duration::ZERO,
            queued: Duration::ZERO,
        };
        Self {
            key,
            work,
            buffers: BTreeSet::new(),
            seed: 0,
            phase: Phase::Seeking(WantId(0)),
            credit,
            ending: None,
            sent: Sent::default(),
            frames_of_run: 0,
            retries: 0,
            deaths: 0,
            preemptions: 0,
            halted: false,
            steers: Steers::default(),
            avoid: None,
            set_backs: Vec::new(),
            suspect: None,
            throttle: Throttle::Unknown,
            times,
        }
    }

    /// The model it is for.
    pub fn model(&self) -> &str {
        work::model(&self.work)
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        work::options(&self.work).priority
    }

    /// A run begins; answers the credit it begins with: what the client can take, and what will be
    /// said once more and not be passed on.
    pub fn begin_run(&mut self) -> u32 {
        self.frames_of_run = 0;
        if self.is_resumable() {
            return self.credit;
        }
        self.credit
            .saturating_add(u32::try_from(self.sent.frames).unwrap_or(u32::MAX))
    }

    /// Whether a new run goes on where the last one was, and says only what came after that.
    pub fn is_resumable(&self) -> bool {
        matches!(self.work, Work::GenerateClip(_))
    }

    /// Notes why it is not done in a way that was begun.
    pub fn note_set_back(&mut self, candidate: &Candidate, rejection: Rejection) {
        self.set_backs.push(Rejected {
            flavour: candidate.flavour.clone(),
            provider: candidate.provider.clone(),
            variant: candidate.variant.clone(),
            rejection,
        });
    }

    /// Records what a worker says. Answers whether it is to be passed on: the client does not have
    /// it yet.
    pub fn record(&mut self, reply: &JobReply) -> bool {
        let is_new = match reply {
            JobReply::Token(token) => {
                let is_new = token.index as usize == self.sent.token_ids.len();
                if is_new {
                    self.sent.token_ids.push(token.id);
                }
                is_new
            }
            JobReply::Preview(preview) if self.is_resumable() => {
                let is_new = preview.frame_index > self.sent.steps_seen;
                self.sent.steps_seen = self.sent.steps_seen.max(preview.frame_index);
                is_new
            }
            JobReply::Frame(frame) if self.is_resumable() => {
                let is_new = frame.frame_index >= self.sent.clip_frames;
                self.sent.clip_frames = self.sent.clip_frames.max(frame.frame_index + 1);
                is_new
            }
            // What a new run has cut elsewhere is passed on where any of it is new: better twice than a gap.
            JobReply::Audio(sound) if self.is_resumable() => {
                let end = sound.sample_index.saturating_add(sound.samples());
                let is_new = end > self.sent.clip_samples;
                self.sent.clip_samples = self.sent.clip_samples.max(end);
                is_new
            }
            JobReply::Tensor(_)
            | JobReply::Preview(_)
            | JobReply::Frame(_)
            | JobReply::Audio(_)
            | JobReply::Labels(_)
            | JobReply::Embeddings(_) => {
                self.frames_of_run += 1;
                let is_new = self.frames_of_run > self.sent.frames;
                self.sent.frames = self.sent.frames.max(self.frames_of_run);
                is_new
            }
            // The broker keeps these itself, and tells of each once.
            JobReply::Steered(_) => return false,
            JobReply::Progress(_) | JobReply::Done(_) | JobReply::Failed(_) => return true,
        };
        if is_new {
            self.credit = self.credit.saturating_sub(1);
        }
        is_new
    }
}
