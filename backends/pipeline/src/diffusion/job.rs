//! [`GenerationJob`]: a clip on its way.

use super::checkpoint::{Checkpoint, UnderWay};
use super::latents;
use super::memory::Taken;
use super::model::GenerationModel;
use super::noise::gaussian;
use super::plan::{GenerationPlan, Planned, SegmentPlan, Start};
use super::request::GenerationRequest;
use super::runner::{Flag, Runner, canceller};
use super::scheduler::SchedulerKind;
use super::segment::{DECODE, Denoisers, Pictures, Segment, stream};
use super::{layout::Geometry, pixels};
use crate::PipelineError;
use crate::clip::Rgb;
use mote_api::{Canceller, Digest, RunReport, Tensor};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What one step of a job gave.
#[derive(Debug)]
pub enum GenerationStep {
    /// A prompt or a picture was encoded: one run of an encoder.
    Encoded,
    /// The denoiser took a step.
    Denoised {
        /// Steps taken, over all segments.
        index: u32,
        /// Steps in all.
        total: u32,
    },
    /// The next frame of the clip. The first of a segment took a run of the decoder.
    Frame(Rgb),
    /// Sound, f32. No kind of pipeline that is served makes any.
    Audio(Vec<f32>),
    /// All frames are out.
    Ended,
}

/// Makes one clip. A step is one run of a graph (two of the denoiser, where guidance takes two), or
/// hands out a frame.
pub struct GenerationJob {
    model: Arc<GenerationModel>,
    request: GenerationRequest,
    planned: Planned,
    digest: Digest,
    text: Runner,
    denoisers: Denoisers,
    decoder: Runner,
    encoder: Option<Runner>,
    flag: Flag,
    stage: Stage,
    /// Prompts that were changed.
    changed: Vec<Option<String>>,
    /// Latents of the segments that are done.
    finished: Vec<Vec<f32>>,
    /// What a checkpoint had of a segment under way, until that segment is reached.
    resumed: Option<UnderWay>,
    /// The last frame that was decoded.
    last_frame: Option<Rgb>,
    /// Frames that nobody wants again.
    skip: u32,
    /// What the last step made of the clip, and of which segment.
    estimate: Option<(usize, Vec<f32>)>,
    report: RunReport,
    step_times_us: Vec<u64>,
    /// Of the model's memory for clips.
    _memory: Taken,
}

/// What the next step does.
enum Stage {
    /// Looks at this segment.
    Segment(usize),
    /// Encodes prompts and pictures of a segment that was not begun.
    Encode(Box<Segment>, Pictures, VecDeque<Encode>),
    Denoise(Box<Segment>),
    Decode(usize),
    /// Hands out frames of this segment.
    Frames(usize, Decoded),
}

/// What a decoder made of a segment.
struct Decoded {
    /// `[1, 3, frames, height, width]`, as the decoder wrote them.
    planes: Tensor,
    /// Frames that belong to the clip and are not handed out yet.
    left: std::ops::Range<usize>,
}

/// What is to be encoded.
#[derive(Clone, Copy)]
enum Encode {
    Prompt,
    Negative,
    First,
    Last,
    Clip,
    Condition,
}

impl GenerationJob {
    /// Checks everything, takes sessions, and computes nothing. With the bytes of a checkpoint of the
    /// same request and model the job goes on from there: frames of segments that are done are decoded
    /// and handed out again, but for those of [`Self::skip_frames`].
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] names what the model cannot do; [`PipelineError::MemoryFull`];
    /// [`PipelineError::Checkpoint`].
    pub fn start(
        model: &Arc<GenerationModel>,
        request: GenerationRequest,
        resume: Option<&[u8]>,
    ) -> Result<Self, PipelineError> {
        let mut planned = Planned::new(model, &request)?;
        let memory = model.memory.take(planned.bytes(model, &request))?;
        let both = format!("{} {}", model.fingerprint, request.digest());
        let digest = Digest::of(both.as_bytes());
        let resumed = resume.map(|bytes| Checkpoint::read(bytes, &digest, &planned));
        let mut resumed = resumed.transpose()?.unwrap_or_default();
        resumed.prompts.resize(planned.segments.len(), None);
        for (plan, changed) in planned.segments.iter_mut().zip(&resumed.prompts) {
            if let Some(prompt) = changed {
                let damaged = |_| PipelineError::checkpoint("is damaged");
                model.prompts.tokenize("prompt", prompt).map_err(damaged)?;
                plan.prompt.clone_from(prompt);
            }
        }
        if let (Some(under_way), Some(plan)) = (
            &resumed.under_way,
            planned.segments.get(resumed.finished.len()),
        ) {
            let mut scheduler = planned.schedule(model, &request, plan)?;
            let restored = scheduler.restore(under_way.step, under_way.history.clone());
            restored.map_err(|_| PipelineError::checkpoint("is damaged"))?;
        }
        let low_noise = model.low_noise.as_ref();
        let encoder = model.encoder.as_ref();
        Ok(Self {
            text: Runner::new(&model.text.model)?,
            denoisers: Denoisers {
                denoiser: Runner::new(&model.denoiser.model)?,
                low_noise: low_noise.map(|it| Runner::new(&it.model)).transpose()?,
            },
            decoder: Runner::new(&model.decoder.model)?,
            encoder: encoder.map(|it| Runner::new(&it.model)).transpose()?,
            model: Arc::clone(model),
            request,
            planned,
            digest,
            flag: Flag::default(),
            stage: Stage::Segment(0),
            changed: resumed.prompts,
            finished: resumed.finished,
            resumed: resumed.under_way,
            last_frame: None,
            skip: 0,
            estimate: None,
            report: RunReport::default(),
            step_times_us: Vec::new(),
            _memory: memory,
        })
    }

    /// What will be made.
    pub fn plan(&self) -> &GenerationPlan {
        &self.planned.public
    }

    /// Does not hand out the next `count` frames: whoever goes on from a checkpoint may have them.
    /// Segments of which none is wanted are not decoded.
    pub fn skip_frames(&mut self, count: u32) {
        self.skip = self.skip.saturating_add(count);
    }

    /// Changes the prompt of all segments that were not begun, and says which is the first of them; `from`
    /// is what another job for the same request said then. The first segment of all begins with the job.
    ///
    /// # Errors
    /// [`PipelineError::Invalid`] when there is none, or the prompt is too long.
    pub fn set_prompt(
        &mut self,
        prompt: String,
        from: Option<usize>,
    ) -> Result<usize, PipelineError> {
        self.model.prompts.tokenize("prompt", &prompt)?;
        let begun = match &self.stage {
            // What was under way at a checkpoint goes on as it was.
            Stage::Segment(index) => (*index).max(self.begun()),
            Stage::Encode(..) | Stage::Denoise(_) => self.finished.len() + 1,
            Stage::Decode(_) | Stage::Frames(..) => self.begun(),
        };
        let first = from.unwrap_or(begun).max(1);
        if first >= self.planned.segments.len() {
            return Err(PipelineError::invalid("prompt", "no segment follows"));
        }
        for index in first..self.planned.segments.len() {
            self.planned.segments[index].prompt.clone_from(&prompt);
            self.changed[index] = Some(prompt.clone());
        }
        Ok(first)
    }

    /// Segments that are done or were under way at the checkpoint.
    fn begun(&self) -> usize {
        self.finished.len() + usize::from(self.resumed.is_some())
    }

    /// Takes a step. After [`PipelineError::Cancelled`] the same step can be asked for again.
    ///
    /// # Errors
    /// What failed.
    pub fn step(&mut self) -> Result<GenerationStep, PipelineError> {
        if self.flag.take() {
            return Err(PipelineError::Cancelled);
        }
        loop {
            let stage = std::mem::replace(&mut self.stage, Stage::Segment(0));
            let (stage, step) = self.advance(stage);
            self.stage = stage;
            if let Some(step) = step.transpose() {
                return step;
            }
        }
    }

    /// Does the next thing that a stage does: the stage after it, and what there is to tell.
    fn advance(&mut self, stage: Stage) -> (Stage, Result<Option<GenerationStep>, PipelineError>) {
        match stage {
            Stage::Segment(index) if index == self.planned.segments.len() => {
                (Stage::Segment(index), Ok(Some(GenerationStep::Ended)))
            }
            Stage::Segment(index) if index < self.finished.len() => (self.replay(index), Ok(None)),
            Stage::Segment(index) => match self.begin(index) {
                Ok(stage) => (stage, Ok(None)),
                Err(error) => (Stage::Segment(index), Err(error)),
            },
            Stage::Encode(segment, pictures, left) => self.encode(segment, pictures, left),
            Stage::Denoise(segment) => self.denoise(segment),
            Stage::Decode(index) => match self.decode(index) {
                Ok(decoded) => (Stage::Frames(index, decoded), Ok(None)),
                Err(error) => (Stage::Decode(index), Err(error)),
            },
            Stage::Frames(index, mut decoded) => match decoded.left.next() {
                None => (Stage::Segment(index + 1), Ok(None)),
                Some(frame) => {
                    let is_skipped = self.skip > 0;
                    self.skip -= u32::from(is_skipped);
                    let made = (!is_skipped).then(|| pixels::from_planes(&decoded.planes, frame));
                    let step = made.transpose().map(|made| made.map(GenerationStep::Frame));
                    (Stage::Frames(index, decoded), step)
                }
            },
        }
    }

    /// What becomes of a segment that is done: its frames, unless nobody wants them and the next one
    /// needs none of them.
    fn replay(&mut self, index: usize) -> Stage {
        let frames = self.planned.public.segment_frames[index];
        let next_needs_it =
            index + 1 == self.finished.len() && index + 1 < self.planned.segments.len();
        if self.skip >= frames && !next_needs_it {
            self.skip -= frames;
            return Stage::Segment(index + 1);
        }
        Stage::Decode(index)
    }

    fn begin(&mut self, index: usize) -> Result<Stage, PipelineError> {
        let plan = self.planned.segments[index].clone();
        let scheduler = self.planned.schedule(&self.model, &self.request, &plan)?;
        let mut left = VecDeque::from([Encode::Prompt]);
        if self.planned.negative_prompt.is_some() {
            left.push_back(Encode::Negative);
        }
        match plan.start {
            Start::Noise { first, last } => {
                left.extend(first.then_some(Encode::First));
                left.extend(last.then_some(Encode::Last));
            }
            Start::Condition { .. } => left.push_back(Encode::Condition),
            Start::Source { .. } | Start::Repeat { .. } => left.push_back(Encode::Clip),
        }
        let frame_rate = self.planned.public.frame_rate;
        let segment = Segment::new((index, self.request.seed), plan, frame_rate, scheduler);
        Ok(Stage::Encode(Box::new(segment), Pictures::default(), left))
    }

    fn encode(
        &mut self,
        mut segment: Box<Segment>,
        mut pictures: Pictures,
        mut left: VecDeque<Encode>,
    ) -> (Stage, Result<Option<GenerationStep>, PipelineError>) {
        let Some(&next) = left.front() else {
            segment.begin(&self.model, pictures);
            let resumed = self.resumed.take();
            let restored =
                resumed.map_or(Ok(()), |it| segment.restore(it.step, it.sample, it.history));
            return (Stage::Denoise(segment), restored.map(|()| None));
        };
        match self.encode_one(&mut segment, &mut pictures, next) {
            Ok(ran) => {
                left.pop_front();
                let step = ran.then_some(GenerationStep::Encoded);
                (Stage::Encode(segment, pictures, left), Ok(step))
            }
            Err(error) => (Stage::Encode(segment, pictures, left), Err(error)),
        }
    }

    /// Whether a graph ran.
    fn encode_one(
        &mut self,
        segment: &mut Segment,
        pictures: &mut Pictures,
        next: Encode,
    ) -> Result<bool, PipelineError> {
        let plan = segment.plan().clone();
        match next {
            Encode::Prompt | Encode::Negative => {
                let text = match next {
                    Encode::Negative => self.planned.negative_prompt.clone().unwrap_or_default(),
                    _ => plan.prompt.clone(),
                };
                let kept = self.model.prompts.kept(&text);
                let ran = kept.is_none();
                let encoded = match kept {
                    Some(encoded) => encoded,
                    None => {
                        let graph = (&self.model.text, &mut self.text);
                        let (encoded, report) =
                            self.model.prompts.encode(graph, &self.flag, &text)?;
                        self.count(report);
                        encoded
                    }
                };
                match next {
                    Encode::Negative => segment.negative = Some(encoded),
                    _ => segment.prompt = Some(encoded),
                }
                return Ok(ran);
            }
            Encode::First => {
                let first = self
                    .last_frame
                    .as_ref()
                    .or(self.request.first_image.as_ref());
                let first: Vec<_> = first.cloned().into_iter().collect();
                pictures.first = Some(self.latents_of(&plan, &first, 1)?);
            }
            Encode::Last => {
                let last: Vec<_> = self.request.last_image.clone().into_iter().collect();
                pictures.last = Some(self.latents_of(&plan, &last, 1)?);
            }
            Encode::Clip => {
                let repeated = self.last_frame.clone().map(|frame| vec![frame]);
                let source = repeated.or_else(|| self.request.source.clone());
                let source = source.unwrap_or_default();
                pictures.clip = Some(self.latents_of(&plan, &source, plan.geometry.frames)?);
            }
            Encode::Condition => pictures.condition = Some(self.condition(&plan)?),
        }
        Ok(true)
    }

    /// Latents of `frames` frames, the last picture repeated where there are fewer.
    fn latents_of(
        &mut self,
        plan: &SegmentPlan,
        source: &[Rgb],
        frames: usize,
    ) -> Result<Vec<f32>, PipelineError> {
        let (height, width) = (plan.geometry.height, plan.geometry.width);
        let mut planes = vec![0.0; 3 * frames * height * width];
        for frame in 0..frames {
            if let Some(picture) = source.get(frame).or(source.last()) {
                pixels::to_planes(picture, (&mut planes, frames, frame), (height, width));
            }
        }
        self.encode_planes(plan, &planes, frames)
    }

    /// Latents of planes `[3, frames, height, width]`, as the denoiser works on them.
    fn encode_planes(
        &mut self,
        plan: &SegmentPlan,
        planes: &[f32],
        frames: usize,
    ) -> Result<Vec<f32>, PipelineError> {
        let (Some(graph), Some(runner)) = (&self.model.encoder, &mut self.encoder) else {
            return Err(PipelineError::part(super::parts::VAE_ENCODER, "is missing"));
        };
        let geometry = plan.geometry;
        runner.set(
            graph.sample,
            &[1, 3, frames, geometry.height, geometry.width],
            planes,
        )?;
        let report = runner.run(&self.flag)?;
        let latent_frames = (frames - 1) / self.model.layout.frames_per_latent + 1;
        let [_, height, width] = geometry.latent;
        let want = [1, geometry.channels, latent_frames, height, width].map(Some);
        let (mut values, _) = runner.output(graph.output, &want)?;
        latents::normalise(&mut values, &self.model.layout);
        self.count(report);
        Ok(values)
    }

    /// Wan's image to video: for each latent frame which of its frames are given, and the latents of a
    /// clip that is grey but for those, `[frames_per_latent + c, f, h, w]`.
    fn condition(&mut self, plan: &SegmentPlan) -> Result<Vec<f32>, PipelineError> {
        let geometry = plan.geometry;
        let (frames, height, width) = (geometry.frames, geometry.height, geometry.width);
        let mut planes = vec![0.0; 3 * frames * height * width];
        let first = self
            .last_frame
            .as_ref()
            .or(self.request.first_image.as_ref());
        let last = match plan.start {
            Start::Condition { last: true } => self.request.last_image.as_ref(),
            _ => None,
        };
        for (picture, frame) in [(first, 0), (last, frames - 1)] {
            if let Some(picture) = picture {
                pixels::to_planes(picture, (&mut planes, frames, frame), (height, width));
            }
        }
        let ends_given = last.is_some();
        let latents = self.encode_planes(plan, &planes, frames)?;
        let per_latent = self.model.layout.frames_per_latent;
        let [latent_frames, rows, columns] = geometry.latent;
        let plane = rows * columns;
        let mut made = vec![0.0; per_latent * latent_frames * plane];
        for within in 0..per_latent {
            for latent in 0..latent_frames {
                // The first latent frame stands for the first frame alone.
                let is_last = latent + 1 == latent_frames && within + 1 == per_latent;
                if latent == 0 || (is_last && ends_given) {
                    let from = (within * latent_frames + latent) * plane;
                    made[from..from + plane].fill(1.0);
                }
            }
        }
        made.extend(latents);
        Ok(made)
    }

    fn denoise(
        &mut self,
        mut segment: Box<Segment>,
    ) -> (Stage, Result<Option<GenerationStep>, PipelineError>) {
        let began = Instant::now();
        let with = (&*self.model, &self.planned);
        match segment.denoise(with, &mut self.denoisers, &self.flag) {
            Err(error) => return (Stage::Denoise(segment), Err(error)),
            Ok((estimate, report)) => {
                self.count(report);
                self.estimate = Some((self.finished.len(), estimate));
            }
        }
        self.step_times_us.push(began.elapsed().as_micros() as u64);
        let done = &self.planned.segments[..self.finished.len()];
        let before: usize = done.iter().map(|plan| plan.steps).sum();
        let step = GenerationStep::Denoised {
            index: (before + segment.step) as u32,
            total: self.planned.public.steps,
        };
        if !segment.is_done() {
            return (Stage::Denoise(segment), Ok(Some(step)));
        }
        let index = self.finished.len();
        self.finished.push(segment.finish());
        (Stage::Decode(index), Ok(Some(step)))
    }

    /// A run of the decoder over a segment that is done.
    fn decode(&mut self, index: usize) -> Result<Decoded, PipelineError> {
        let plan = &self.planned.segments[index];
        let (geometry, wanted) = (plan.geometry, plan.frames.clone());
        let video = self.as_video(&self.finished[index], &geometry);
        let planes = self.decode_latents(video, &geometry, stream(index, DECODE))?;
        let goes_on = index + 1 < self.planned.segments.len();
        let last = wanted.clone().last().filter(|_| goes_on);
        let last = last.map(|frame| pixels::from_planes(&planes, frame));
        self.last_frame = last.transpose()?;
        Ok(Decoded {
            planes,
            left: wanted,
        })
    }

    /// Latents as the scheduler works on them, as `[c, f, h, w]`.
    fn as_video(&self, sample: &[f32], geometry: &Geometry) -> Vec<f32> {
        if self.model.layout.class.is_ltx() {
            latents::unpack(sample, geometry)
        } else {
            sample.to_vec()
        }
    }

    /// Planes `[1, 3, frames, height, width]` of latents `[c, f, h, w]`.
    fn decode_latents(
        &mut self,
        mut video: Vec<f32>,
        geometry: &Geometry,
        noise_stream: u32,
    ) -> Result<Tensor, PipelineError> {
        let graph = &self.model.decoder;
        latents::denormalise(&mut video, &self.model.layout);
        if let Some(index) = graph.timestep {
            let timestep = self.model.spec.decode_timestep.unwrap_or(0.0);
            let share = self.model.spec.decode_noise.unwrap_or(timestep);
            let mut noise = vec![0.0; video.len()];
            gaussian(self.request.seed, noise_stream, &mut noise);
            for (value, noise) in video.iter_mut().zip(noise) {
                *value = (1.0 - share) * *value + share * noise;
            }
            self.decoder.set(index, &[1], &[timestep])?;
        }
        let [frames, rows, columns] = geometry.latent;
        let shape = [1, geometry.channels, frames, rows, columns];
        self.decoder.set(graph.latents, &shape, &video)?;
        let made = (frames - 1) * self.model.layout.frames_per_latent + 1;
        let shape = [1, 3, made, geometry.height, geometry.width];
        self.decoder.expect_anew(graph.output, &shape)?;
        let report = self.decoder.run(&self.flag)?;
        let planes = self.decoder.output_tensor(graph.output, &shape.map(Some))?;
        self.count(report);
        Ok(planes)
    }

    /// The middle frame of the clip, or of its segment under way, as the last step estimates it; `None`
    /// before the first. Takes a run of the decoder, over two latent frames where it takes any number.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`], or what failed.
    pub fn preview(&mut self) -> Result<Option<Rgb>, PipelineError> {
        let Some((index, estimate)) = &self.estimate else {
            return Ok(None);
        };
        let geometry = self.planned.segments[*index].geometry;
        let noise_stream = stream(*index, DECODE);
        let video = self.as_video(estimate, &geometry);
        let middle = geometry.latent[0] / 2;
        if !self.model.decoder.is_open {
            let planes = self.decode_latents(video, &geometry, noise_stream)?;
            return pixels::from_planes(&planes, planes.shape()[2] / 2).map(Some);
        }
        let cut = latents::frames(&video, &geometry, middle.saturating_sub(1)..middle + 1);
        let cut_geometry = geometry.with_latent_frames(middle.min(1) + 1);
        let planes = self.decode_latents(cut, &cut_geometry, noise_stream)?;
        pixels::from_planes(&planes, planes.shape()[2] - 1).map(Some)
    }

    /// What is needed to go on after the last whole step, elsewhere or later.
    pub fn checkpoint(&self) -> Vec<u8> {
        let under_way = match &self.stage {
            Stage::Denoise(segment) if segment.step > 0 => Some(UnderWay {
                step: segment.step,
                sample: segment.sample.clone(),
                history: segment.history(),
            }),
            _ => self.resumed.clone(),
        };
        let checkpoint = Checkpoint {
            prompts: self.changed.clone(),
            finished: self.finished.clone(),
            under_way,
        };
        checkpoint.write(&self.digest)
    }

    /// Steps that are taken, over all segments, those of a checkpoint included.
    pub fn steps_done(&self) -> u32 {
        let finished = self.planned.segments.iter().take(self.finished.len());
        let finished: usize = finished.map(|segment| segment.steps).sum();
        let under_way = match &self.stage {
            Stage::Denoise(segment) => segment.step,
            _ => self.resumed.as_ref().map_or(0, |it| it.step),
        };
        u32::try_from(finished + under_way).unwrap_or(u32::MAX)
    }

    /// The numerical method that takes the steps; `None` when it is one of the model's own.
    pub fn scheduler(&self) -> Option<SchedulerKind> {
        let own = || self.model.scheduler.kind().ok();
        self.request.scheduler.or_else(own)
    }

    /// Stops the run in progress, or else the next step, from another thread.
    pub fn canceller(&self) -> Canceller {
        let runners = [&self.text, &self.denoisers.denoiser, &self.decoder].into_iter();
        let further = self.denoisers.low_noise.iter().chain(&self.encoder);
        canceller(&self.flag, runners.chain(further))
    }

    /// Sums over all runs so far.
    pub fn report(&self) -> RunReport {
        self.report
    }

    /// How long each step of the denoiser took that this job took itself.
    pub fn step_times_us(&self) -> &[u64] {
        &self.step_times_us
    }

    fn count(&mut self, report: RunReport) {
        self.report.compute_us += report.compute_us;
        self.report.bytes_copied += report.bytes_copied;
    }
}
