//! One segment under way: what it is made from, and one step of the denoiser after the other.

use super::latents;
use super::model::GenerationModel;
use super::noise::gaussian;
use super::parts::DenoiserGraph;
use super::plan::{Planned, SegmentPlan};
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
            coordinates: Vec::new(),
            prompt: None,
            negative: None,
        }
    }

    /// Makes the first sample of noise and pictures.
    pub fn begin(&mut self, model: &GenerationModel, pictures: Pictures) {
        let geometry = self.plan.geometry;
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

    /// Takes a step, and gives the clean sample that it estimates, without further pictures' tokens.
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
        if guidance.needs_unconditional() {
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
            guidance.combine(&mut output, &without);
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
        estimate.drain(..estimate.len() - self.plan.geometry.elements());
        Ok((estimate, report))
    }

    /// The finished latents, without further pictures' tokens.
    pub fn finish(mut self) -> Vec<f32> {
        let extra = self.sample.len() - self.plan.geometry.elements();
        self.sample.drain(..extra);
        self.sample
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
            let (shape, _) = self.hidden_shape(rows.len(), None);
            runner.expect(graph.output, &shape)?;
            let report = runner.run(flag)?;
            total.compute_us += report.compute_us;
            total.bytes_copied += report.bytes_copied;
            let want: Vec<_> = shape.into_iter().map(Some).collect();
            let (values, _) = runner.output(graph.output, &want)?;
            outputs.extend(values.chunks_exact(input.len()).map(<[f32]>::to_vec));
        }
        Ok((outputs, total))
    }

    /// Shape of what the denoiser takes or, without a condition, gives; and numbers of one row.
    fn hidden_shape(&self, rows: usize, condition: Option<&[f32]>) -> (Vec<usize>, usize) {
        let geometry = &self.segment.plan.geometry;
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
        let condition = self.segment.condition.as_deref();
        let (shape, row) = self.hidden_shape(rows, condition);
        let mut hidden = Vec::with_capacity(rows * row);
        for _ in 0..rows {
            hidden.extend_from_slice(input);
            hidden.extend_from_slice(condition.unwrap_or_default());
        }
        runner.set(graph.hidden, &shape, &hidden)?;
        self.bind_timestep((graph, runner), rows)?;
        let tokens = self.model.prompts.tokens;
        let width = prompts.first().map_or(0, |prompt| prompt.width);
        let vectors: Vec<f32> = prompts.iter().flat_map(|it| &it.vectors).copied().collect();
        runner.set(graph.prompt, &[rows, tokens, width], &vectors)?;
        if let Some(index) = graph.mask {
            let mask: Vec<i64> = prompts.iter().flat_map(|it| &it.mask).copied().collect();
            runner.set_integers(index, &[rows, tokens], &mask)?;
        }
        if let Some(index) = graph.coordinates {
            let coordinates = self.segment.coordinates.repeat(rows);
            runner.set(index, &[rows, 3, shape[1]], &coordinates)?;
        }
        if let Some(index) = graph.guidance {
            runner.set(index, &[rows], &vec![self.guidance; rows])?;
        }
        Ok(())
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
