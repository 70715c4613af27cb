//! A clip file in, what is seen in it out, one run of the model a step.

use super::clip_files::{Input, remaining_ms};
use super::{Job, Pools, Progressed, micros};
use crate::load::LoadedModel;
use crate::status::{self, Failure};
use mote_api::Canceller;
use mote_media::Rational;
use mote_pipeline::{LabelStep, Labelled, LabelledBox, Labeller};
use mote_wire::types::{
    Done, FrameLabels, JobReply, Label, LabelBox, LabelClip, Progress, Receipt, Stage, Status,
};
use std::time::Instant;

/// One clip on its way.
pub struct LabelJob {
    input: Input,
    labeller: Labeller,
    /// Only every n-th frame is looked at.
    every: u64,
    labelled: u64,
    started: Instant,
}

impl LabelJob {
    /// Opens the clip.
    pub fn new(clip: LabelClip, loaded: &LoadedModel) -> Result<Self, Status> {
        let Some(spec) = &loaded.manifest.labelling else {
            let why = format!("{:?} does not label clips", loaded.manifest.name);
            return Err(Status::invalid("model", why));
        };
        let mut manifest = loaded.manifest.clone();
        let mut spec = spec.clone();
        spec.limit(clip.labels_max.map(|max| max as usize), clip.score_min);
        manifest.labelling = Some(spec);
        let names = loaded.labels.clone();
        let labeller = Labeller::open(&loaded.model, &manifest, names)
            .map_err(|error| status::of_pipeline(&error))?;
        Ok(Self {
            input: Input::open(clip.input, clip.frames_max, clip.frame_rate)?,
            labeller,
            every: u64::from(clip.every.unwrap_or(1)),
            labelled: 0,
            started: Instant::now(),
        })
    }

    /// Gives the model the next frame if it is to be looked at, or tells it that there is none.
    fn feed(&mut self) -> Result<(), Status> {
        let index = self.input.read;
        match self.input.next()? {
            None => {
                self.labeller.end();
                Ok(())
            }
            Some(frame) if index.is_multiple_of(self.every) => {
                let pushed = self.labeller.push(frame);
                pushed.map_err(|error| status::of_pipeline(&error))
            }
            Some(_) => Ok(()),
        }
    }

    fn tell(&mut self, seen: Labelled, said: &mut Vec<JobReply>) {
        self.labelled += seen.frame_count;
        let frame_index = seen.frame_index * self.every;
        let labels = seen.labels.into_iter();
        let labels = labels.map(|one| label(one.class, one.label, one.score));
        said.push(JobReply::Labels(FrameLabels {
            frame_index,
            frame_count: seen.frame_count,
            time_us: time_us(frame_index, self.input.frame_rate),
            labels: labels.collect(),
            boxes: seen.boxes.into_iter().map(label_box).collect(),
        }));
        said.push(JobReply::Progress(self.progress()));
    }

    fn progress(&self) -> Progress {
        let total = self.input.frames.map(|frames| frames.div_ceil(self.every));
        let done = self.labelled;
        let left = total.map(|total| total.saturating_sub(done));
        Progress {
            stage: Stage::Label,
            done,
            total,
            remaining_ms: left.map(|left| remaining_ms(self.started, done, left)),
        }
    }

    fn finish(&mut self) -> Progressed {
        let report = self.labeller.report();
        let receipt = Receipt {
            compute_us: report.compute_us,
            bytes_copied: report.bytes_copied,
            steps: self.labeller.steps(),
            frames_in: self.input.read,
            media_decode_us: micros(self.input.took),
            ..Receipt::default()
        };
        Progressed::Done(Box::new(Done {
            receipt,
            ..Done::default()
        }))
    }
}

/// When a frame is shown.
fn time_us(frame_index: u64, rate: Rational) -> u64 {
    let scaled = u128::from(frame_index) * u128::from(rate.den()) * 1_000_000;
    u64::try_from(scaled / u128::from(rate.num())).unwrap_or(u64::MAX)
}

fn label(class: u32, label: String, score: f32) -> Label {
    Label {
        class,
        label,
        score,
    }
}

fn label_box(seen: LabelledBox) -> LabelBox {
    LabelBox {
        label: label(seen.class, seen.label, seen.score),
        x0: seen.x0,
        y0: seen.y0,
        x1: seen.x1,
        y1: seen.y1,
    }
}

impl Job for LabelJob {
    fn step(&mut self, said: &mut Vec<JobReply>) -> Result<Progressed, Failure> {
        let step = self.labeller.step();
        match step.map_err(|error| status::of_step(&error))? {
            LabelStep::NeedsFrame => self.feed()?,
            LabelStep::Labelled(seen) => self.tell(seen, said),
            LabelStep::Ended => return Ok(self.finish()),
        }
        Ok(Progressed::More)
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(self.labeller.canceller())
    }

    fn give_back(self: Box<Self>, _: &mut Pools<'_>) {}
}
