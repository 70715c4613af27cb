//! A clip file in, a clip file with more or better frames out, at most one run of the model a step.

use super::clip_files::{Input, ResultSound, Results, output_of, preview, remaining_ms};
use super::{Job, Pools, Progressed, micros};
use crate::load::LoadedModel;
use crate::status::{self, Failure};
use mote_api::{Canceller, Task};
use mote_media::{Rational, SoundTrack};
use mote_pipeline::{
    FilterStep, FrameFilter, FrameWindow, Interpolator, RestorationOptions, Restorer, Rgb,
};
use mote_wire::types::{Done, JobReply, Progress, Receipt, Stage, Status, TransformClip};
use std::time::Instant;

/// One clip on its way.
pub struct ClipJob {
    input: Input,
    filter: Box<dyn FrameFilter>,
    results: Results,
    /// That of the frames that are read, whether or not the result takes it.
    sound: Option<SoundTrack>,
    frames_out_expected: Option<u64>,
    preview_every: Option<u32>,
    started: Instant,
}

impl ClipJob {
    /// Opens the clip and its result.
    pub fn new(clip: TransformClip, loaded: &LoadedModel) -> Result<Self, Status> {
        let filter = filter(&clip, loaded)?;
        let mut input = Input::open(clip.input, clip.frames_max, clip.frame_rate)?;
        input.fit(clip.width_max, clip.height_max);
        let mut out = input.spec();
        let (width, height) = filter.size_out(out.width as usize, out.height as usize);
        let side = |side: usize, field: &str| {
            u32::try_from(side).map_err(|_| Status::invalid(field, "the result is too large"))
        };
        (out.width, out.height) = (side(width, "width")?, side(height, "height")?);
        let rate = out.frame_rate;
        let factor = u64::from(clip.factor.max(1));
        let faster = Rational::new(u64::from(rate.num()) * factor, u64::from(rate.den()));
        out.frame_rate = faster.ok_or_else(|| Status::invalid("factor", "the rate overflows"))?;
        let frames_out_expected = input.frames.map(|frames| filter.frames_out(frames));
        let output = output_of(clip.output_format, clip.encoder_speed, loaded);
        let sound = input.sound();
        let result_sound = sound.as_ref().map_or(ResultSound::None, ResultSound::Kept);
        let results = Results::create(
            clip.output,
            (&out, result_sound),
            &output,
            clip.contact_sheet,
            frames_out_expected,
        )?;
        Ok(Self {
            input,
            filter,
            results,
            sound,
            frames_out_expected,
            preview_every: clip.preview_every,
            started: Instant::now(),
        })
    }

    /// Gives the filter its next frame, or tells it that there is none.
    fn feed(&mut self) -> Result<(), Status> {
        match self.input.next()? {
            Some(frame) => self
                .filter
                .push(frame)
                .map_err(|error| status::of_pipeline(&error)),
            None => {
                self.filter.end();
                Ok(())
            }
        }
    }

    fn write(&mut self, rgb: Rgb, said: &mut Vec<JobReply>) -> Result<(), Status> {
        let index = self.results.written;
        let frame = self.results.push(rgb)?;
        if let Some(every) = self.preview_every
            && index.is_multiple_of(u64::from(every))
        {
            let started = Instant::now();
            said.push(JobReply::Preview(preview(&frame, index)?));
            self.results.took += started.elapsed();
        }
        said.push(JobReply::Progress(self.progress()));
        Ok(())
    }

    fn progress(&self) -> Progress {
        let (done, total) = (self.results.written, self.frames_out_expected);
        let left = total.map(|total| total.saturating_sub(done));
        Progress {
            stage: Stage::Transform,
            done,
            total,
            remaining_ms: left.map(|left| remaining_ms(self.started, done, left)),
        }
    }

    fn finish(&mut self) -> Result<Progressed, Status> {
        self.results.finish()?;
        let report = self.filter.report();
        let sound = self.sound.as_ref();
        let receipt = Receipt {
            compute_us: report.compute_us,
            bytes_copied: report.bytes_copied,
            steps: self.filter.steps(),
            frames_in: self.input.read,
            frames_out: self.results.written,
            media_decode_us: micros(self.input.took),
            media_encode_us: micros(self.results.took),
            audio_samples_out: sound.map_or(0, SoundTrack::samples),
            audio_sample_rate: sound.map_or(0, SoundTrack::sample_rate),
            audio_channels: sound.map_or(0, |sound| sound.channels().into()),
            audio_codec: self.results.audio_codec(),
            ..Receipt::default()
        };
        Ok(Progressed::Done(Box::new(Done {
            receipt,
            ..Done::default()
        })))
    }
}

/// What the model makes of frames.
fn filter(clip: &TransformClip, loaded: &LoadedModel) -> Result<Box<dyn FrameFilter>, Status> {
    let manifest = &loaded.manifest;
    let failed = |error| status::of_pipeline(&error);
    match (manifest.task, &manifest.clip, &manifest.restoration) {
        (Task::FrameInterpolation, Some(spec), _) => {
            if clip.factor == 0 {
                let why = "it is 2 or 4 with a model that gives frames between frames";
                return Err(Status::invalid("factor", why));
            }
            let interpolator = Interpolator::open(&loaded.model, spec).map_err(failed)?;
            let window = FrameWindow::new(interpolator, clip.factor).map_err(failed)?;
            Ok(Box::new(window))
        }
        (Task::FrameRestoration, _, Some(spec)) => {
            if clip.factor != 0 {
                let why = "it is 0 with a model that restores frames, which gives one for each";
                return Err(Status::invalid("factor", why));
            }
            let options = RestorationOptions {
                tile_side_max: clip.tile_side_max.map(|side| side as usize),
                memory_bytes_max: loaded.work_bytes_max,
            };
            let restorer = Restorer::open(&loaded.model, spec, &options).map_err(failed)?;
            Ok(Box::new(restorer))
        }
        _ => {
            let why = format!("{:?} does not transform clips", manifest.name);
            Err(Status::invalid("model", why))
        }
    }
}

impl Job for ClipJob {
    fn step(&mut self, said: &mut Vec<JobReply>) -> Result<Progressed, Failure> {
        let step = self.filter.step();
        match step.map_err(|error| status::of_step(&error))? {
            FilterStep::NeedsFrame => self.feed()?,
            FilterStep::Working { .. } => {}
            FilterStep::Frame(rgb) => self.write(rgb, said)?,
            FilterStep::Ended => return Ok(self.finish()?),
        }
        Ok(Progressed::More)
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(self.filter.canceller())
    }

    fn give_back(self: Box<Self>, _: &mut Pools<'_>) {}
}
