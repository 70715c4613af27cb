//! `DDIMScheduler`: denoising diffusion implicit models.
//!
//! Song, Meng, Ermon: "Denoising Diffusion Implicit Models", 2020, equation 12.

use super::options::Options;
use super::predict::{Limit, Linear, Prediction};
use super::spacing::{Schedule, Spacing, check_timesteps};
use super::training::{BETA_DEFAULTS, Training};
use super::{
    Scheduler, SchedulerError, SchedulerKind, Timing, check_length, check_no_history, mix,
};

const KIND: SchedulerKind = SchedulerKind::Ddim;

/// One step: estimates of the clean sample and of the noise, and how the next sample is made of
/// them.
#[derive(Clone, Copy)]
struct Step {
    clean: Linear,
    noise: Linear,
    /// Weights of the clean sample, the noise in the sample, and fresh noise.
    signal: f64,
    direction: f64,
    deviation: f64,
    /// Clean sample's share of variance in the sample.
    alpha_product: f64,
}

pub(super) struct Ddim {
    schedule: Schedule,
    steps: Vec<Step>,
    limit: Limit,
}

impl Ddim {
    pub fn open(options: &Options, steps: usize, request: &Timing) -> Result<Self, SchedulerError> {
        request.without(KIND, true, true)?;
        let training = Training::new(options, &BETA_DEFAULTS)?;
        let offset = options.count("steps_offset", 0, 0..=training.steps())?;
        let spacing = Spacing::read(options, Spacing::Leading)?;
        let mut timesteps = spacing.timesteps(steps, training.steps(), offset);
        timesteps.iter_mut().for_each(|t| *t = t.round_ties_even());
        check_timesteps(&timesteps, training.steps())?;
        let alphas = &training.alphas_cumprod;
        let least_noise = alphas.first().copied().map_or(1.0, f64::from);
        let to_one = options.flag("set_alpha_to_one", true)?;
        let last = if to_one { 1.0 } else { least_noise };
        let prediction = Prediction::read(options, KIND)?;
        let stride = training.steps() / steps;
        let eta = f64::from(request.eta);
        let plan = |&timestep: &f64| {
            let timestep = timestep as usize;
            let next = timestep.checked_sub(stride);
            let next = next.map_or(last, |next| f64::from(alphas[next]));
            step(prediction, f64::from(alphas[timestep]), next, eta)
        };
        let start = request.skipped(steps)?;
        let plans: Vec<Step> = timesteps[start..].iter().map(plan).collect();
        let undefined = |step: &Step| {
            let linear = step.clean.is_finite() && step.noise.is_finite();
            !(linear && step.direction.is_finite() && step.deviation.is_finite())
        };
        if let Some(index) = plans.iter().position(undefined) {
            return Err(SchedulerError::Undefined { kind: KIND, index });
        }
        let schedule = Schedule {
            sigmas: super::training::noise_ratios(&timesteps, alphas, last),
            timesteps,
            start,
        };
        Ok(Self {
            schedule,
            steps: plans,
            limit: Limit::read(options, Some(true))?,
        })
    }

    fn clean_sample(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let mut clean = self.steps[index].clean.of(sample, output);
        self.limit.apply(&mut clean);
        clean
    }
}

fn step(prediction: Prediction, alpha_product: f64, next: f64, eta: f64) -> Step {
    let (alpha, sigma) = (alpha_product.sqrt(), (1.0 - alpha_product).sqrt());
    let variance = (1.0 - next) / (1.0 - alpha_product) * (1.0 - alpha_product / next);
    let deviation = eta * variance.sqrt();
    Step {
        clean: prediction.clean(alpha, sigma),
        noise: prediction.noise(alpha, sigma),
        signal: next.sqrt(),
        direction: (1.0 - next - deviation * deviation).sqrt(),
        deviation,
        alpha_product,
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f64] {
        self.schedule.taken()
    }

    fn step(
        &mut self,
        index: usize,
        output: &[f32],
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError> {
        self.schedule.check(index)?;
        check_length("the output", output.len(), sample.len())?;
        let step = self.steps[index];
        let clean = self.clean_sample(index, output, sample);
        for ((value, &output), clean) in sample.iter_mut().zip(output).zip(clean) {
            let noise = f64::from(step.noise.at(*value, output));
            *value = (step.signal * f64::from(clean) + step.direction * noise) as f32;
        }
        if step.deviation > 0.0 {
            let mut drawn = vec![0.0; sample.len()];
            noise(&mut drawn);
            mix(sample, &drawn, 1.0, step.deviation);
        }
        Ok(())
    }

    fn estimate(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        self.clean_sample(index, output, sample)
    }

    fn add_noise(&self, index: usize, sample: &mut [f32], noise: &[f32]) {
        let signal = self.steps[index].alpha_product;
        mix(sample, noise, signal.sqrt(), (1.0 - signal).sqrt());
    }

    fn restore(&mut self, index: usize, history: Vec<Vec<f32>>) -> Result<(), SchedulerError> {
        self.schedule.check_restored(index)?;
        check_no_history(index, &history)
    }

    fn sigma(&self, index: usize) -> f64 {
        self.schedule.sigma(index)
    }
}
