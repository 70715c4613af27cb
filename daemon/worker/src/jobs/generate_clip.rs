//! Words and pictures in, a clip file out: one run of a graph a step.
//!
//! The work so far is kept in a file that the broker, or the client, has opened: a worker that takes over
//! finds it there and goes on to the same frames.

use super::checkpoint::CheckpointFile;
use super::clip_files::{
    Input, ResultSound, Results, frame_of, output_of, picture, preview, remaining_ms,
};
use super::{Job, Pools, Progressed, micros};
use crate::load::LoadedModel;
use crate::status::{self, Failure};
use mote_api::Canceller;
use mote_media::{AudioSpec, ClipSpec, Frame, Rational};
use mote_pipeline::{
    AudioChunk, GenerationJob, GenerationModel, GenerationRequest, GenerationSegment,
    GenerationStep, PipelineError, Rgb, SchedulerKind,
};
use mote_wire::Memfd;
use mote_wire::limits::{AUDIO_CHANNELS_MAX, AUDIO_SAMPLE_RATE_MAX, INLINE_BYTES_MAX};
use mote_wire::types::{
    AudioOut, DType, Done, FrameOut, GenerateClip, JobReply, Progress, Receipt, Stage, Status,
    Steered, Tensor, TensorData,
};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the frames of a clip that another is made of.
const SOURCE_BYTES_MAX: usize = 512 << 20;
/// Names of the tensors that frames and sound are sent as.
const FRAME_NAME: &str = "frame";
const AUDIO_NAME: &str = "audio";

// Sound that the wire would refuse is refused before it is made.
const _: () = assert!(mote_media::AUDIO_SAMPLE_RATE_MAX == AUDIO_SAMPLE_RATE_MAX);
const _: () = assert!(mote_media::AUDIO_CHANNELS_MAX as usize == AUDIO_CHANNELS_MAX as usize);
const _: () = assert!(mote_pipeline::AUDIO_SAMPLE_RATE_MAX == AUDIO_SAMPLE_RATE_MAX);
const _: () = assert!(mote_pipeline::AUDIO_CHANNELS_MAX as usize == AUDIO_CHANNELS_MAX as usize);

/// One clip on its way.
pub struct GenerateClipJob {
    job: GenerationJob,
    results: Results,
    checkpoint: Option<CheckpointFile>,
    preview_every: Option<u32>,
    send_frames: bool,
    send_audio: bool,
    /// Samples of each channel that were made.
    samples: u64,
    seed: u64,
    scheduler: String,
    /// Steps that a checkpoint had.
    resumed: u64,
    /// Times of those of them that another worker took.
    earlier_us: Vec<u64>,
    /// Steps taken, those of the checkpoint included.
    done: u64,
    frames_in: u64,
    media_decode: Duration,
    began: Instant,
}

impl GenerateClipJob {
    /// Reads pictures, checks everything and begins the result; computes nothing yet.
    pub fn new(clip: GenerateClip, loaded: &LoadedModel, seed: u64) -> Result<Self, Failure> {
        let Some(model) = &loaded.generation else {
            let why = format!("{:?} does not make clips", loaded.manifest.name);
            return Err(Status::invalid("model", why).into());
        };
        let began = Instant::now();
        let seed = clip.seed.unwrap_or(seed);
        let scheduler = clip.scheduler.as_deref().map(str::parse::<SchedulerKind>);
        let scheduler = scheduler
            .transpose()
            .map_err(|error| Status::invalid("scheduler", error))?;
        let image = |file: Option<OwnedFd>, field| file.map(|fd| picture(fd, field)).transpose();
        let frames = clip.segments.first().and_then(|one| one.frames);
        let frames = frames.map(|frames| u64::from(model.frames_for(frames)));
        let source = clip.source.map(|fd| frames_of(fd, frames)).transpose()?;
        let segments = clip.segments.into_iter().map(|one| GenerationSegment {
            prompt: one.prompt,
            frames: one.frames,
        });
        let frames_in = source.as_ref().map_or(0, |frames| frames.len() as u64);
        let request = GenerationRequest {
            segments: segments.collect(),
            negative_prompt: Some(clip.negative_prompt).filter(|prompt| !prompt.is_empty()),
            guidance: clip.guidance,
            seed,
            steps: clip.steps,
            width: clip.width,
            height: clip.height,
            frames: None,
            frame_rate: clip.frame_rate,
            scheduler,
            first_image: image(clip.first_image, "first_image")?,
            last_image: image(clip.last_image, "last_image")?,
            reference: image(clip.reference_image, "reference_image")?,
            source: source.map(Arc::from),
            strength: clip.strength,
        };
        let media_decode = began.elapsed();
        let failed = |error: &PipelineError| Failure::from(status::of_pipeline(error));
        let (checkpoint, kept) = match clip.checkpoint.map(CheckpointFile::open) {
            None => (None, None),
            Some((file, kept)) => (Some(file), kept.and_then(Kept::read)),
        };
        let (job, earlier_us) = match begin(model, request, kept) {
            Ok(begun) => begun,
            Err(error) => return Err(failed(&error)),
        };
        let plan = job.plan();
        let spec = ClipSpec {
            width: plan.width,
            height: plan.height,
            frame_rate: Rational::new(u64::from(plan.frame_rate), 1).unwrap_or(Rational::ONE),
            pixel_aspect: Rational::ONE,
        };
        let frames = Some(u64::from(plan.frames));
        let sound = plan.audio.map_or(ResultSound::None, |audio| {
            ResultSound::Made(AudioSpec {
                sample_rate: audio.sample_rate,
                channels: audio.channels,
            })
        });
        let output = output_of(clip.output_format, clip.encoder_speed, loaded);
        let of_clip = (&spec, sound);
        let results = Results::create(clip.output, of_clip, &output, clip.contact_sheet, frames)?;
        let resumed = u64::from(job.steps_done());
        Ok(Self {
            scheduler: job
                .scheduler()
                .map_or_else(String::new, |kind| kind.to_string()),
            job,
            results,
            checkpoint,
            preview_every: clip.preview_every,
            send_frames: clip.send_frames,
            send_audio: clip.send_audio,
            samples: 0,
            seed,
            resumed,
            earlier_us,
            done: resumed,
            frames_in,
            media_decode,
            began: Instant::now(),
        })
    }

    fn keep(&mut self) -> Result<(), Status> {
        match &mut self.checkpoint {
            None => Ok(()),
            Some(file) => {
                let mut kept = Kept {
                    step_times_us: self.earlier_us.clone(),
                    job: self.job.checkpoint(),
                };
                kept.step_times_us.extend(self.job.step_times_us());
                file.write(&kept.write())
            }
        }
    }

    fn denoised(&mut self, index: u32, said: &mut Vec<JobReply>) -> Result<(), Failure> {
        self.done = u64::from(index);
        self.keep()?;
        said.push(JobReply::Progress(self.progress()));
        let is_due = |every| index.is_multiple_of(every);
        if self.preview_every.is_some_and(is_due) {
            let seen = self.job.preview();
            if let Some(frame) = seen.map_err(|error| status::of_step(&error))? {
                let frame = frame_of(frame);
                said.push(JobReply::Preview(preview(&frame, self.done)?));
            }
        }
        Ok(())
    }

    fn write(&mut self, rgb: Rgb, said: &mut Vec<JobReply>) -> Result<(), Status> {
        let frame_index = self.results.written;
        let frame = self.results.push(rgb)?;
        if self.send_frames {
            let frame = frame_tensor(frame)?;
            said.push(JobReply::Frame(FrameOut { frame_index, frame }));
        }
        said.push(JobReply::Progress(Progress {
            stage: Stage::Encode,
            done: self.results.written,
            total: Some(u64::from(self.job.plan().frames)),
            remaining_ms: None,
        }));
        Ok(())
    }

    /// Sound comes in the same pieces whoever makes it, one for each frame, so that what a worker that takes over says
    /// again can be told from what is new.
    fn write_audio(&mut self, chunk: AudioChunk, said: &mut Vec<JobReply>) -> Result<(), Status> {
        let Some(audio) = self.job.plan().audio else {
            return Ok(());
        };
        self.results.push_audio(&chunk.samples)?;
        let channels = u64::from(audio.channels);
        let samples = chunk.samples.len() as u64 / channels;
        self.samples = chunk.sample_index + samples;
        if self.send_audio {
            said.push(JobReply::Audio(AudioOut {
                sample_index: chunk.sample_index,
                sample_rate: audio.sample_rate,
                audio: audio_tensor(&chunk.samples, vec![samples, channels])?,
            }));
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        let total = u64::from(self.job.plan().steps);
        let taken = self.done.saturating_sub(self.resumed);
        let left = total.saturating_sub(self.done);
        Progress {
            stage: Stage::Denoise,
            done: self.done,
            total: Some(total),
            remaining_ms: Some(remaining_ms(self.began, taken, left)),
        }
    }

    fn finish(&mut self) -> Result<Progressed, Status> {
        self.results.finish()?;
        if let Some(file) = &self.checkpoint {
            file.clear();
        }
        let report = self.job.report();
        let mut step_times_us = std::mem::take(&mut self.earlier_us);
        step_times_us.extend(self.job.step_times_us());
        let audio = self.job.plan().audio;
        let receipt = Receipt {
            audio_samples_out: self.samples,
            audio_sample_rate: audio.map_or(0, |audio| audio.sample_rate),
            audio_channels: audio.map_or(0, |audio| audio.channels.into()),
            audio_codec: self.results.audio_codec(),
            compute_us: report.compute_us,
            bytes_copied: report.bytes_copied,
            steps: u64::from(self.job.plan().steps),
            step_times_us,
            resumed_steps: self.resumed,
            scheduler: self.scheduler.clone(),
            seed: Some(self.seed),
            frames_in: self.frames_in,
            frames_out: self.results.written,
            media_decode_us: micros(self.media_decode),
            media_encode_us: micros(self.results.took),
            ..Receipt::default()
        };
        Ok(Progressed::Done(Box::new(Done {
            receipt,
            ..Done::default()
        })))
    }
}

/// A job, from what was kept of it where that fits, and the times of the steps before.
fn begin(
    model: &Arc<GenerationModel>,
    request: GenerationRequest,
    kept: Option<Kept>,
) -> Result<(GenerationJob, Vec<u64>), PipelineError> {
    if let Some(kept) = kept {
        match GenerationJob::start(model, request.clone(), Some(&kept.job)) {
            // It is of another request, or of another version: nothing is lost by beginning anew.
            Err(PipelineError::Checkpoint { why }) => log::info!("a checkpoint {why}"),
            job => {
                let job = job?;
                let mut earlier_us = kept.step_times_us;
                // The file may be anybody's: as many as steps, and no more, go into the receipt.
                earlier_us.truncate(job.steps_done() as usize);
                return Ok((job, earlier_us));
            }
        }
    }
    Ok((GenerationJob::start(model, request, None)?, Vec::new()))
}

/// What a checkpoint holds: the number of steps and the time of each, little-endian, then the job's own.
struct Kept {
    step_times_us: Vec<u64>,
    job: Vec<u8>,
}

impl Kept {
    fn write(&self) -> Vec<u8> {
        let mut bytes = (self.step_times_us.len() as u64).to_le_bytes().to_vec();
        let times = self.step_times_us.iter();
        bytes.extend(times.flat_map(|time| time.to_le_bytes()));
        bytes.extend(&self.job);
        bytes
    }

    fn read(bytes: Vec<u8>) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk()?;
        let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
        let (times, job) = rest.split_at_checked(count.checked_mul(size_of::<u64>())?)?;
        let times = times.as_chunks().0.iter();
        Some(Self {
            step_times_us: times.map(|time| u64::from_le_bytes(*time)).collect(),
            job: job.to_vec(),
        })
    }
}

/// The first frames of a clip.
fn frames_of(file: OwnedFd, frames_max: Option<u64>) -> Result<Vec<Rgb>, Status> {
    let refused = |status: Status| match status {
        Status::Invalid { why, .. } => Status::invalid("source", why),
        Status::ComputeFailed { cause, .. } => Status::invalid("source", cause),
        other => other,
    };
    let mut input = Input::open(file, frames_max, None).map_err(refused)?;
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = input.next().map_err(refused)? {
        bytes += frame.rgb8.len();
        if bytes > SOURCE_BYTES_MAX {
            return Err(Status::LimitExceeded {
                what: "bytes of the source's frames".into(),
                have: bytes as u64,
                limit: SOURCE_BYTES_MAX as u64,
            });
        }
        frames.push(frame);
    }
    match frames.is_empty() {
        true => Err(Status::invalid("source", "it holds no frame")),
        false => Ok(frames),
    }
}

/// u8 `[height, width, 3]`.
fn frame_tensor(frame: Frame) -> Result<Tensor, Status> {
    let shape = vec![u64::from(frame.height), u64::from(frame.width), 3];
    tensor_of((FRAME_NAME, DType::U8), shape, frame.rgb)
}

/// f32 `[samples, channels]`.
fn audio_tensor(samples: &[f32], shape: Vec<u64>) -> Result<Tensor, Status> {
    let bytes = samples.iter().flat_map(|sample| sample.to_le_bytes());
    tensor_of((AUDIO_NAME, DType::F32), shape, bytes.collect())
}

/// A tensor, in memory of its own where it is large.
fn tensor_of(
    (name, dtype): (&str, DType),
    shape: Vec<u64>,
    content: Vec<u8>,
) -> Result<Tensor, Status> {
    let bytes = content.len() as u64;
    let data = if content.len() <= INLINE_BYTES_MAX {
        TensorData::Inline(content)
    } else {
        let memory = Memfd::holding("mote-clip", &content)
            .map_err(|error| status::internal("pass a frame or sound", &error))?;
        TensorData::Passed {
            fd: memory.into_fd(),
            bytes,
        }
    };
    Ok(Tensor {
        name: name.into(),
        dtype,
        shape,
        data,
    })
}

impl Job for GenerateClipJob {
    fn step(&mut self, said: &mut Vec<JobReply>) -> Result<Progressed, Failure> {
        let step = self.job.step();
        match step.map_err(|error| status::of_step(&error))? {
            GenerationStep::Encoded | GenerationStep::Decoded => {
                said.push(JobReply::Progress(self.progress()))
            }
            GenerationStep::Denoised { index, .. } => self.denoised(index, said)?,
            GenerationStep::Frame(rgb) => self.write(rgb, said)?,
            GenerationStep::Audio(chunk) => self.write_audio(chunk, said)?,
            GenerationStep::Ended => return Ok(self.finish()?),
        }
        Ok(Progressed::More)
    }

    /// One that comes too late changes nothing. What is set is kept with the next step; a worker that takes
    /// over before is told it again.
    fn steer(&mut self, prompt: String, from: Option<u32>) -> Steered {
        let from = from.and_then(|from| usize::try_from(from).ok());
        let set = self.job.set_prompt(prompt, from);
        set.map_or_else(Steered::not_taken, |first| Steered::From {
            segment: u32::try_from(first).unwrap_or(u32::MAX),
        })
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(self.job.canceller())
    }

    fn give_back(self: Box<Self>, _: &mut Pools<'_>) {}
}
