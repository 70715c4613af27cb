//! [`GenerationJob`]: a clip on its way.

mod decode;
mod encode;

use super::audio::{AudioChunk, Sound};
use super::checkpoint::{Checkpoint, UnderWay};
use super::memory::Taken;
use super::model::GenerationModel;
use super::pixels;
use super::plan::{GenerationPlan, Planned};
use super::prompt::PromptRunners;
use super::request::GenerationRequest;
use super::runner::{Flag, Runner, canceller};
use super::scheduler::SchedulerKind;
use super::segment::{Denoisers, Pictures, Segment};
use crate::PipelineError;
use crate::clip::Rgb;
use encode::Encode;
use mote_api::{Canceller, Digest, RunReport, Tensor};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// What one step of a job gave.
#[derive(Debug)]
pub enum GenerationStep {
    /// A prompt or a picture was encoded: one run of an encoder, and of the connectors behind that of LTX-2's prompts.
    Encoded,
    /// The denoiser took a step.
    Denoised {
        /// Steps taken, over all segments.
        index: u32,
        /// Steps in all.
        total: u32,
    },
    /// Of a segment with sound, its frames or its spectrogram were decoded: one run. Nothing is handed out yet.
    Decoded,
    /// The next frame of the clip. The first of a segment took a run of the decoder, or of the vocoder where there
    /// is sound.
    Frame(Rgb),
    /// The sound up to the end of the last frame that was handed out, where the model makes any. What goes over
    /// from one segment into the next comes when the next is decoded.
    Audio(AudioChunk),
    /// All frames are out.
    Ended,
}

/// Makes one clip. A step is one run of a graph (two of the denoiser, where guidance takes two; and see
/// [`GenerationStep::Encoded`]), or hands out a frame or sound.
pub struct GenerationJob {
    model: Arc<GenerationModel>,
    request: GenerationRequest,
    planned: Planned,
    digest: Digest,
    prompt_runners: PromptRunners,
    denoisers: Denoisers,
    decoder: Runner,
    encoder: Option<Runner>,
    looks: Option<Runner>,
    sound_runners: Option<SoundRunners>,
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
    /// Samples before which nobody wants any, and up to which they were handed out.
    sound_from: u64,
    sounded: u64,
    /// The end of the sound of the segment before.
    before: Option<Sound>,
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
    /// Decodes the sound beside what was decoded.
    DecodeSound(usize, Decoded),
    /// Makes waves of its spectrogram.
    Voice(usize, Decoded, Tensor),
    /// Hands out frames of this segment.
    Frames(usize, Decoded),
}

/// What a decoder made of a segment.
struct Decoded {
    /// `[1, 3, frames, height, width]`, as the decoder wrote them.
    planes: Tensor,
    /// Frames that belong to the clip and are not handed out yet.
    left: std::ops::Range<usize>,
    sound: Option<Sound>,
}

/// The sessions that only sound has, but for that of the connectors.
struct SoundRunners {
    decoder: Runner,
    vocoder: Runner,
}

impl GenerationJob {
    /// Checks everything, takes sessions, and computes nothing. With the bytes of a checkpoint of the
    /// same request and model the job goes on from there: frames of segments that are done are decoded
    /// and handed out again, but for those of [`Self::skip`].
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
        let looks = model.looks.as_ref();
        let sound = model.sound.as_ref();
        Ok(Self {
            prompt_runners: PromptRunners {
                text: Runner::new(&model.text.model)?,
                connectors: sound
                    .map(|it| Runner::new(&it.connectors.model))
                    .transpose()?,
            },
            denoisers: Denoisers {
                denoiser: Runner::new(&model.denoiser.model)?,
                low_noise: low_noise.map(|it| Runner::new(&it.model)).transpose()?,
            },
            decoder: Runner::new(&model.decoder.model)?,
            encoder: encoder.map(|it| Runner::new(&it.model)).transpose()?,
            looks: looks.map(|it| Runner::new(&it.graph.model)).transpose()?,
            sound_runners: match sound {
                None => None,
                Some(graphs) => Some(SoundRunners {
                    decoder: Runner::new(&graphs.decoder.model)?,
                    vocoder: Runner::new(&graphs.vocoder.model)?,
                }),
            },
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
            sound_from: 0,
            sounded: 0,
            before: None,
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

    /// Does not hand out the first `count` frames, nor the sound before sample `sample_index`: whoever goes on from
    /// a checkpoint may have them. Segments of which nothing is wanted are not decoded. To be called before the
    /// first step.
    pub fn skip(&mut self, count: u32, sample_index: u64) {
        (self.skip, self.sound_from) = (count, sample_index);
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
            Stage::Decode(_) | Stage::DecodeSound(..) | Stage::Voice(..) | Stage::Frames(..) => {
                self.begun()
            }
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
                Ok(decoded) => {
                    let step = self.sound_runners.as_ref().map(|_| GenerationStep::Decoded);
                    (Stage::DecodeSound(index, decoded), Ok(step))
                }
                Err(error) => (Stage::Decode(index), Err(error)),
            },
            Stage::DecodeSound(index, decoded) if self.sound_runners.is_none() => {
                (Stage::Frames(index, decoded), Ok(None))
            }
            Stage::DecodeSound(index, decoded) => match self.decode_sound(index) {
                Ok(Some(spectrogram)) => {
                    let stage = Stage::Voice(index, decoded, spectrogram);
                    (stage, Ok(Some(GenerationStep::Decoded)))
                }
                Ok(None) => (Stage::Frames(index, decoded), Ok(None)),
                Err(error) => (Stage::DecodeSound(index, decoded), Err(error)),
            },
            Stage::Voice(index, mut decoded, spectrogram) => {
                match self.voice(index, &spectrogram) {
                    Ok(sound) => {
                        decoded.sound = sound;
                        (Stage::Frames(index, decoded), Ok(None))
                    }
                    Err(error) => (Stage::Voice(index, decoded, spectrogram), Err(error)),
                }
            }
            Stage::Frames(index, decoded) => self.hand_out(index, decoded),
        }
    }

    /// The sound of the last frame, or the next frame; after the last of both, the next segment.
    fn hand_out(
        &mut self,
        index: usize,
        mut decoded: Decoded,
    ) -> (Stage, Result<Option<GenerationStep>, PipelineError>) {
        if let Some(chunk) = self.sound_due(index, &decoded) {
            let step = GenerationStep::Audio(chunk);
            return (Stage::Frames(index, decoded), Ok(Some(step)));
        }
        let Some(frame) = decoded.left.next() else {
            self.keep_tail(index, &decoded);
            return (Stage::Segment(index + 1), Ok(None));
        };
        let is_skipped = self.skip > 0;
        self.skip -= u32::from(is_skipped);
        let made = (!is_skipped).then(|| pixels::from_planes(&decoded.planes, frame));
        let step = made.transpose().map(|made| made.map(GenerationStep::Frame));
        (Stage::Frames(index, decoded), step)
    }

    /// What becomes of a segment that is done: its frames, unless nobody wants them nor their sound, and the
    /// next one needs none of them.
    fn replay(&mut self, index: usize) -> Stage {
        let frames = self.planned.public.segment_frames[index];
        let next_needs_it =
            index + 1 == self.finished.len() && index + 1 < self.planned.segments.len();
        if self.skip >= frames && !next_needs_it && self.is_heard(index) {
            self.skip -= frames;
            self.pass_over(index);
            return Stage::Segment(index + 1);
        }
        Stage::Decode(index)
    }

    fn begin(&mut self, index: usize) -> Result<Stage, PipelineError> {
        let plan = self.planned.segments[index].clone();
        let scheduler = self.planned.schedule(&self.model, &self.request, &plan)?;
        let left = self.to_encode(&plan);
        let frame_rate = self.planned.public.frame_rate;
        let segment = Segment::new((index, self.request.seed), plan, frame_rate, scheduler);
        Ok(Stage::Encode(Box::new(segment), Pictures::default(), left))
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
        let text = &self.prompt_runners.text;
        let runners = [text, &self.denoisers.denoiser, &self.decoder].into_iter();
        let further = self.denoisers.low_noise.iter().chain(&self.encoder);
        let further = further
            .chain(&self.looks)
            .chain(&self.prompt_runners.connectors);
        let sound = self.sound_runners.iter();
        let sound = sound.flat_map(|it| [&it.decoder, &it.vocoder]);
        canceller(&self.flag, runners.chain(further).chain(sound))
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
