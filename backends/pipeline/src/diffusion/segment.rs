//! One segment under way: what it is made from, and one step of the denoiser after the other.

use super::control::{Control, control_of};
use super::latents;
use super::model::GenerationModel;
use super::noise::gaussian;
use super::parts::{AudioPorts, DenoiserGraph};
use super::plan::{Planned, SegmentPlan, Start};
use super::prompt::Encoded;
use super::runner::{Flag, Runner};
use super::scheduler::Scheduler;
use crate::PipelineError;
use mote_api::RunReport;
use std::sync::Arc;

/// Streams of noise within a segment; its own streams begin at its place times [`STREAMS`].
const STREAMS: u32 = 1 << 16;
/// What a segment begins from.
const INITIAL: u32 = 0;
/// What is mixed in before the decoder.
pub(super) const DECODE: u32 = 1;
/// What a segment's sound begins from.
const AUDIO: u32 = 2;
/// What a stochastic method draws at its first step; those of later steps follow.
const STEPS: u32 = 16;

/// A stream of noise of segment `index`.
pub(super) fn stream(index: usize, of: u32) -> u32 {
    index as u32 * STREAMS + of
}

/// Latents `[c, f, h, w]` of pictures that a segment is made from, as the denoiser works on them.
#[derive(Default)]
pub(super) struct Pictures {
    /// One frame that it begins with.
    pub first: Option<Vec<f32>>,
    /// One frame that it ends with.
    pub last: Option<Vec<f32>>,
    /// As long as the segment: what is made anew.
    pub clip: Option<Vec<f32>>,
    /// As long as the segment: masks and latents beside the noise, `[c + mask, f, h, w]`.
    pub condition: Option<Vec<f32>>,
    /// What is given as a control.
    pub control: Control,
    /// What an encoder of its own makes of pictures, one after the other: `[n, e]`, and e.
    pub image: Option<(Vec<f32>, usize)>,
}

/// One segment under way.
pub(super) struct Segment {
    index: usize,
    seed: u64,
    plan: SegmentPlan,
    frame_rate: u32,
    scheduler: Box<dyn Scheduler>,
    /// Steps taken.
    pub step: usize,
    /// What the scheduler works on: rows of tokens, those of further pictures first, or `[c, f, h, w]`.
    pub sample: Vec<f32>,
    /// Numbers of the sample that are not made but given: none where it is NaN.
    held: Option<Vec<f32>>,
    /// Which tokens these are.
    held_tokens: Vec<bool>,
    condition: Option<Vec<f32>>,
    /// `[v, f, h, w]`.
    control: Option<Vec<f32>>,
    image: Option<(Vec<f32>, usize)>,
    coordinates: Vec<f32>,
    pub prompt: Option<Arc<Encoded>>,
    pub negative: Option<Arc<Encoded>>,
}

/// The denoisers' sessions.
pub(super) struct Denoisers {
    pub denoiser: Runner,
    pub low_noise: Option<Runner>,
}

impl Segment {
    /// A segment that waits for its prompts and pictures.
    pub fn new(
        (index, seed): (usize, u64),
        plan: SegmentPlan,
        frame_rate: u32,
        scheduler: Box<dyn Scheduler>,
    ) -> Self {
        Self {
            index,
            seed,
            plan,
            frame_rate,
            scheduler,
            step: 0,
            sample: Vec::new(),
            held: None,
            held_tokens: Vec::new(),
            condition: None,
            control: None,
            image: None,
            coordinates: Vec::new(),
            prompt: None,
            negative: None,
        }
    }

    /// Makes the first sample of noise and pictures.
    pub fn begin(&mut self, model: &GenerationModel, pictures: Pictures) {
        let geometry = self.plan.with_references();
        let is_ltx = model.layout.class.is_ltx();
        let mut noise = vec![0.0; geometry.elements()];
        gaussian(self.seed, stream(self.index, INITIAL), &mut noise);
        let mut video = match pictures.clip {
            Some(mut clip) => {
                self.scheduler.add_noise(0, &mut clip, &noise);
                clip
            }
            None => {
                let sigma = self.scheduler.init_noise_sigma() as f32;
                noise.iter_mut().for_each(|value| *value *= sigma);
                noise
            }
        };
        let mut held = vec![f32::NAN; video.len()];
        let still = geometry.with_latent_frames(1);
        if let Some(first) = &pictures.first {
            for whole in [&mut video, &mut held] {
                latents::copy_frame((first, &still, 0), (whole, &geometry, 0));
            }
        }
        if is_ltx {
            video = latents::pack(&video, &geometry);
            held = latents::pack(&held, &geometry);
            self.add_coordinates(model, &geometry, None);
        }
        if let Some(last) = &pictures.last {
            let mut tokens = latents::pack(last, &still);
            self.add_coordinates(model, &still, Some(geometry.frames - 1));
            tokens.extend(&video);
            held.splice(..0, tokens[..still.elements()].iter().copied());
            video = tokens;
        }
        self.held_tokens = held_tokens(model, &held, &geometry);
        self.held = (pictures.first.is_some() || pictures.last.is_some()).then_some(held);
        self.condition = pictures.condition;
        self.image = pictures.image;
        if matches!(self.plan.start, Start::Control { .. }) {
            self.control = Some(control_of(&model.layout, &self.plan, &pictures.control));
        }
        if let Some(layout) = &model.layout.audio {
            let mut audio = vec![0.0; self.plan.audio_elements];
            gaussian(self.seed, stream(self.index, AUDIO), &mut audio);
            let sigma = self.scheduler.init_noise_sigma() as f32;
            video.extend(layout.pack(&audio).into_iter().map(|value| value * sigma));
        }
        self.sample = video;
    }

    /// Puts coordinates of tokens in front of those that are there, `[3, tokens]`.
    fn add_coordinates(
        &mut self,
        model: &GenerationModel,
        geometry: &super::layout::Geometry,
        still_at: Option<usize>,
    ) {
        let axes = latents::coordinates(&model.layout, geometry, self.frame_rate, still_at);
        // For each axis, whether tokens are at a place or between two.
        let there = self.coordinates.len() / 3;
        let mut joined = Vec::new();
        for (axis, values) in axes.into_iter().enumerate() {
            joined.extend(values);
            joined.extend(&self.coordinates[axis * there..(axis + 1) * there]);
        }
        self.coordinates = joined;
    }

    /// Goes on from a checkpoint, after [`Self::begin`].
    ///
    /// # Errors
    /// When the history is not that of the schedule at this step.
    pub fn restore(
        &mut self,
        step: usize,
        sample: Vec<f32>,
        history: Vec<Vec<f32>>,
    ) -> Result<(), PipelineError> {
        if step >= self.plan.steps || sample.len() != self.sample.len() {
            return Err(PipelineError::checkpoint("is not of these sizes and steps"));
        }
        self.scheduler
            .restore(step, history)
            .map_err(PipelineError::Schedule)?;
        (self.step, self.sample) = (step, sample);
        Ok(())
    }

    /// What the scheduler keeps between steps.
    pub fn history(&self) -> Vec<Vec<f32>> {
        self.scheduler.history()
    }

    /// The segment's own sizes.
    pub fn plan(&self) -> &SegmentPlan {
        &self.plan
    }

    /// Whether all steps are taken.
    pub fn is_done(&self) -> bool {
        self.step == self.plan.steps
    }

    /// Takes a step, and gives the clean sample that it estimates, without what stands in front of the clip.
    /// After an error nothing has changed.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`], or what failed.
    pub fn denoise(
        &mut self,
        (model, planned): (&GenerationModel, &Planned),
        denoisers: &mut Denoisers,
        flag: &Flag,
    ) -> Result<(Vec<f32>, RunReport), PipelineError> {
        let index = self.step;
        let timestep = self.scheduler.timesteps()[index];
        let boundary = model
            .layout
            .boundary
            .map(|share| share * model.train_timesteps as f64);
        let is_low = boundary.is_some_and(|boundary| timestep < boundary);
        let (graph, runner, guidance) = match (&model.low_noise, &mut denoisers.low_noise) {
            (Some(graph), Some(runner)) if is_low => (graph, runner, planned.guidance_low),
            _ => (&model.denoiser, &mut denoisers.denoiser, planned.guidance),
        };
        let mut input = self.sample.clone();
        self.scheduler.scale_model_input(index, &mut input);
        let mut prompts = Vec::new();
        if guidance.needs_unconditional() || planned.guidance_audio.needs_unconditional() {
            prompts.extend(&self.negative);
        }
        prompts.extend(&self.prompt);
        let evaluation = Evaluation {
            segment: self,
            model,
            timestep: timestep as f32,
            guidance: planned.distilled_guidance,
        };
        let (mut outputs, report) = evaluation.run((graph, runner), flag, &input, &prompts)?;
        let mut output = outputs.pop().unwrap_or_default();
        if let Some(without) = outputs.pop() {
            let parts = self.plan.video_elements();
            let (video, audio) = output.split_at_mut(parts);
            let (video_without, audio_without) = without.split_at(parts);
            if model.sound.is_some() {
                let sigma = self.scheduler.sigma(index);
                let (of_video, of_audio) = self.sample.split_at(parts);
                guidance.combine_flow(video, video_without, (of_video, sigma));
                let of_audio = (of_audio, sigma);
                planned
                    .guidance_audio
                    .combine_flow(audio, audio_without, of_audio);
            } else {
                guidance.combine(video, video_without);
            }
        }
        let mut estimate = self.scheduler.estimate(index, &output, &self.sample);
        let (seed, of_step) = (self.seed, stream(self.index, STEPS + index as u32));
        let mut noise = |out: &mut [f32]| gaussian(seed, of_step, out);
        self.scheduler
            .step(index, &output, &mut self.sample, &mut noise)
            .map_err(PipelineError::Schedule)?;
        for sample in [&mut self.sample, &mut estimate] {
            hold(self.held.as_deref(), sample);
        }
        self.step += 1;
        Ok((self.plan.kept(estimate), report))
    }

    /// The finished latents, without what stood in front of the clip.
    pub fn finish(self) -> Vec<f32> {
        self.plan.kept(self.sample)
    }
}

/// Puts what is given in its place again.
fn hold(held: Option<&[f32]>, sample: &mut [f32]) {
    for (value, &given) in sample.iter_mut().zip(held.unwrap_or_default()) {
        if !given.is_nan() {
            *value = given;
        }
    }
}

/// Which tokens are given: rows of the sample, or patches of `[c, f, h, w]`.
fn held_tokens(
    model: &GenerationModel,
    held: &[f32],
    geometry: &super::layout::Geometry,
) -> Vec<bool> {
    let packed;
    let rows = if model.layout.class.is_ltx() {
        held
    } else {
        packed = latents::pack(held, geometry);
        &packed
    };
    let tokens = rows.chunks_exact(geometry.token_width().max(1));
    tokens.map(|token| !token[0].is_nan()).collect()
}

/// One evaluation of a denoiser.
struct Evaluation<'a> {
    segment: &'a Segment,
    model: &'a GenerationModel,
    timestep: f32,
    guidance: f32,
}

impl Evaluation<'_> {
    /// The denoiser's output for each prompt: both at once where the graph takes two, as two runs else.
    fn run(
        &self,
        (graph, runner): (&DenoiserGraph, &mut Runner),
        flag: &Flag,
        input: &[f32],
        prompts: &[&Arc<Encoded>],
    ) -> Result<(Vec<Vec<f32>>, RunReport), PipelineError> {
        let at_once = if graph.takes_pairs { prompts.len() } else { 1 };
        let mut outputs = Vec::with_capacity(prompts.len());
        let mut total = RunReport::default();
        for rows in prompts.chunks(at_once.max(1)) {
            self.bind((graph, runner), input, rows)?;
            let (shape, row) = self.hidden_shape(rows.len(), None);
            let audio = graph
                .audio
                .as_ref()
                .map(|ports| (ports.output, self.audio_shape(rows.len())));
            runner.expect(graph.output, &shape)?;
            if let Some((output, shape)) = &audio {
                runner.expect(*output, shape)?;
            }
            let report = runner.run(flag)?;
            total.compute_us += report.compute_us;
            total.bytes_copied += report.bytes_copied;
            let read = |index: usize, shape: &[usize]| {
                let want: Vec<_> = shape.iter().copied().map(Some).collect();
                runner.output(index, &want).map(|(values, _)| values)
            };
            let video = read(graph.output, &shape)?;
            let first = outputs.len();
            outputs.extend(video.chunks_exact(row).map(<[f32]>::to_vec));
            if let Some((output, shape)) = audio {
                let audio = read(output, &shape)?;
                let audio = audio.chunks_exact(self.segment.plan.audio_elements);
                for (whole, audio) in outputs[first..].iter_mut().zip(audio) {
                    whole.extend(audio);
                }
            }
        }
        Ok((outputs, total))
    }

    /// Shape of sound's tokens.
    fn audio_shape(&self, rows: usize) -> [usize; 3] {
        let width = self
            .model
            .layout
            .audio
            .as_ref()
            .map_or(1, |it| it.token_width());
        [rows, self.segment.plan.audio_elements / width, width]
    }

    /// Shape of what the denoiser takes or, without a condition, gives; and numbers of one row.
    fn hidden_shape(&self, rows: usize, condition: Option<&[f32]>) -> (Vec<usize>, usize) {
        let geometry = &self.segment.plan.with_references();
        let [frames, height, width] = geometry.latent;
        let shape = if self.model.layout.class.is_ltx() {
            let tokens = geometry.tokens() + self.segment.plan.extra_tokens();
            vec![rows, tokens, geometry.token_width()]
        } else {
            let further = condition.map_or(0, |it| it.len() / (frames * height * width));
            vec![rows, geometry.channels + further, frames, height, width]
        };
        let row = shape[1..].iter().product();
        (shape, row)
    }

    fn bind(
        &self,
        (graph, runner): (&DenoiserGraph, &mut Runner),
        input: &[f32],
        prompts: &[&Arc<Encoded>],
    ) -> Result<(), PipelineError> {
        let rows = prompts.len();
        let (video, audio) = input.split_at(self.segment.plan.video_elements());
        let condition = self.segment.condition.as_deref();
        let (shape, row) = self.hidden_shape(rows, condition);
        let mut hidden = Vec::with_capacity(rows * row);
        for _ in 0..rows {
            hidden.extend_from_slice(video);
            hidden.extend_from_slice(condition.unwrap_or_default());
        }
        runner.set(graph.hidden, &shape, &hidden)?;
        self.bind_timestep((graph, runner), rows)?;
        let tokens = self.model.prompts.tokens;
        let width = prompts.first().map_or(0, |prompt| prompt.width);
        let vectors: Vec<f32> = prompts.iter().flat_map(|it| &it.vectors).copied().collect();
        runner.set(graph.prompt, &[rows, tokens, width], &vectors)?;
        let mask: Vec<i64> = prompts.iter().flat_map(|it| &it.mask).copied().collect();
        if let Some(index) = graph.mask {
            runner.set_integers(index, &[rows, tokens], &mask)?;
        }
        if let Some(index) = graph.coordinates {
            let coordinates = self.segment.coordinates.repeat(rows);
            let ends = coordinates.len() / (rows * 3 * shape[1]).max(1);
            let all = [rows, 3, shape[1], ends];
            let rank = if self.model.layout.class.is_ltx2() {
                4
            } else {
                3
            };
            runner.set(index, &all[..rank], &coordinates)?;
        }
        if let Some(index) = graph.guidance {
            runner.set(index, &[rows], &vec![self.guidance; rows])?;
        }
        if let (Some(index), Some((vectors, width))) = (graph.image, &self.segment.image) {
            let shape = [rows, vectors.len() / width, *width];
            runner.set(index, &shape, &vectors.repeat(rows))?;
        }
        if let (Some(index), Some(control)) = (graph.control, &self.segment.control) {
            let [frames, height, width] = self.segment.plan.with_references().latent;
            let channels = control.len() / (frames * height * width);
            let shape = [rows, channels, frames, height, width];
            runner.set(index, &shape, &control.repeat(rows))?;
        }
        match &graph.audio {
            Some(ports) => self.bind_audio((graph, ports, runner), audio, prompts, &mask),
            None => Ok(()),
        }
    }

    /// What the branch that makes sound takes.
    fn bind_audio(
        &self,
        (graph, ports, runner): (&DenoiserGraph, &AudioPorts, &mut Runner),
        input: &[f32],
        prompts: &[&Arc<Encoded>],
        mask: &[i64],
    ) -> Result<(), PipelineError> {
        let rows = prompts.len();
        let shape = self.audio_shape(rows);
        runner.set(ports.hidden, &shape, &input.repeat(rows))?;
        let tokens = self.model.prompts.tokens;
        let of_audio = || prompts.iter().filter_map(|it| it.audio.as_ref());
        let width = of_audio().next().map_or(0, |(_, width)| *width);
        let vectors: Vec<f32> = of_audio()
            .flat_map(|(vectors, _)| vectors)
            .copied()
            .collect();
        runner.set(ports.prompt, &[rows, tokens, width], &vectors)?;
        if let Some(index) = ports.mask {
            runner.set_integers(index, &[rows, tokens], mask)?;
        }
        for index in ports.timestep.into_iter().chain(graph.sigma) {
            runner.set(index, &[rows], &vec![self.timestep; rows])?;
        }
        let layout = self.model.layout.audio.as_ref();
        let places = layout.map_or_else(Vec::new, |layout| layout.coordinates(shape[1]));
        runner.set(
            ports.coordinates,
            &[rows, 1, shape[1], 2],
            &places.repeat(rows),
        )
    }

    /// The timestep of the clip, or of each token: 0 for those that are given.
    fn bind_timestep(
        &self,
        (graph, runner): (&DenoiserGraph, &mut Runner),
        rows: usize,
    ) -> Result<(), PipelineError> {
        if graph.timestep_rank == 1 {
            return runner.set(graph.timestep, &[rows], &vec![self.timestep; rows]);
        }
        let held = self.segment.held_tokens.iter();
        let of_token = held.map(|&is_held| if is_held { 0.0 } else { self.timestep });
        let row: Vec<f32> = of_token.collect();
        let shape = [rows, row.len()];
        runner.set(graph.timestep, &shape, &row.repeat(rows))
    }
}
