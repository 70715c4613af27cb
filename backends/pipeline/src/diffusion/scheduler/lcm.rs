//! `LCMScheduler`: multistep sampling of latent consistency models.
//!
//! Luo et al.: "Latent Consistency Models", 2023, algorithm 3.

use super::numeric::linspace;
use super::options::{Options, wrong};
use super::predict::{Limit, Linear, Prediction};
use super::spacing::{Schedule, check_timesteps};
use super::training::{BetaDefaults, BetaSchedule, Training, noise_ratios};
use super::{
    STEPS_MAX, Scheduler, SchedulerError, SchedulerKind, Timing, check_length, check_no_history,
    mix,
};

const KIND: SchedulerKind = SchedulerKind::Lcm;
const DEFAULTS: BetaDefaults = BetaDefaults {
    start: 0.00085,
    end: 0.012,
    schedule: BetaSchedule::ScaledLinear,
};
/// Deviation of the data that the boundary condition is made for.
const SIGMA_DATA: f64 = 0.5;

#[derive(Clone, Copy)]
struct Step {
    clean: Linear,
    /// Boundary condition: how much of the sample and of its estimate the denoised sample is.
    skip: f64,
    out: f64,
    /// Clean sample's share of variance in the sample.
    alpha_product: f64,
}

pub(super) struct Lcm {
    schedule: Schedule,
    steps: Vec<Step>,
    limit: Limit,
}

impl Lcm {
    pub fn open(options: &Options, steps: usize, request: &Timing) -> Result<Self, SchedulerError> {
        request.without(KIND, false, true)?;
        let training = Training::new(options, &DEFAULTS)?;
        let timesteps = match &request.timesteps {
            Some(timesteps) => timesteps.iter().copied().map(f64::trunc).collect(),
            None => distilled_timesteps(options, steps, training.steps())?,
        };
        check_timesteps(&timesteps, training.steps())?;
        // Only a training step before the first would have it.
        options.flag("set_alpha_to_one", true)?;
        let prediction = Prediction::read(options, KIND)?;
        let scaling = options.number("timestep_scaling", 10.0, 0.0..=f64::MAX)?;
        let alphas = &training.alphas_cumprod;
        let plan = |&timestep: &f64| {
            let alpha_product = f64::from(alphas[timestep as usize]);
            let scaled = timestep * scaling;
            let norm = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
            Step {
                clean: prediction.clean(alpha_product.sqrt(), (1.0 - alpha_product).sqrt()),
                skip: SIGMA_DATA * SIGMA_DATA / norm,
                out: scaled / norm.sqrt(),
                alpha_product,
            }
        };
        let start = request.skipped(steps)?;
        let plans: Vec<Step> = timesteps[start..].iter().map(plan).collect();
        if let Some(index) = plans.iter().position(|step| !step.clean.is_finite()) {
            return Err(SchedulerError::Undefined { kind: KIND, index });
        }
        let schedule = Schedule {
            sigmas: noise_ratios(&timesteps, alphas, 1.0),
            timesteps,
            start,
        };
        Ok(Self {
            schedule,
            steps: plans,
            limit: Limit::read(options, Some(false))?,
        })
    }
}

/// `steps` of the `original_inference_steps` that the model was distilled on, falling.
fn distilled_timesteps(
    options: &Options,
    steps: usize,
    train: usize,
) -> Result<Vec<f64>, SchedulerError> {
    let original = options.count("original_inference_steps", 50, 1..=STEPS_MAX as usize)?;
    if original > train {
        return Err(wrong(
            "original_inference_steps",
            "is more than the training",
        ));
    }
    if steps > original {
        let why = format!("is {steps}, more than the {original} that the model was distilled on");
        return Err(SchedulerError::timing("steps", why));
    }
    let stride = train / original;
    let mut places = linspace(0.0, original as f64, steps + 1);
    places.pop();
    let timestep = |place: f64| ((original - place.floor() as usize) * stride - 1) as f64;
    Ok(places.into_iter().map(timestep).collect())
}

impl Scheduler for Lcm {
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
        let denoised = self.estimate(index, output, sample);
        sample.copy_from_slice(&denoised);
        if let Some(next) = self.steps.get(index + 1) {
            let mut drawn = vec![0.0; sample.len()];
            noise(&mut drawn);
            let signal = next.alpha_product;
            mix(sample, &drawn, signal.sqrt(), (1.0 - signal).sqrt());
        }
        Ok(())
    }

    fn estimate(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let step = self.steps[index];
        let mut denoised = step.clean.of(sample, output);
        self.limit.apply(&mut denoised);
        mix(&mut denoised, sample, step.out, step.skip);
        denoised
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
