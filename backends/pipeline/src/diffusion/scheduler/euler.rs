//! `EulerDiscreteScheduler`: Euler steps of the probability flow.
//!
//! Karras et al.: "Elucidating the Design Space of Diffusion-Based Generative Models", 2022,
//! algorithm 2 without churn.

use super::numeric::{interpolate, rounded};
use super::options::{Options, wrong};
use super::predict::{Linear, Prediction};
use super::spacing::{Curve, FinalSigma, Schedule, Spacing, check_timesteps, nearest_timesteps};
use super::training::{BETA_DEFAULTS, Training};
use super::{
    Scheduler, SchedulerError, SchedulerKind, Timing, check_length, check_no_history, mix,
};

const KIND: SchedulerKind = SchedulerKind::Euler;

pub(super) struct Euler {
    schedule: Schedule,
    prediction: Prediction,
    init_noise_sigma: f64,
}

impl Euler {
    pub fn open(options: &Options, steps: usize, request: &Timing) -> Result<Self, SchedulerError> {
        let spacing = Spacing::read(options, Spacing::Linspace)?;
        let prediction = Prediction::read(options, KIND)?;
        let (mut timesteps, mut sigmas) = levels(options, spacing, steps, request)?;
        sigmas.iter_mut().for_each(|sigma| *sigma = rounded(*sigma));
        let continuous = options.choice(
            "timestep_type",
            false,
            &[("discrete", false), ("continuous", true)],
        )?;
        if continuous && prediction == Prediction::Velocity {
            request.without(KIND, true, false)?;
            timesteps = sigmas[..steps]
                .iter()
                .map(|sigma| 0.25 * sigma.ln())
                .collect();
        }
        timesteps
            .iter_mut()
            .for_each(|timestep| *timestep = rounded(*timestep));
        let is_sound = |sigma: &f64| *sigma > 0.0 && sigma.is_finite();
        if let Some(index) = sigmas[..steps].iter().position(|sigma| !is_sound(sigma)) {
            return Err(SchedulerError::Undefined { kind: KIND, index });
        }
        let sigma_max = sigmas.iter().copied().fold(0.0, f64::max);
        let init_noise_sigma = match spacing {
            Spacing::Linspace | Spacing::Trailing => sigma_max,
            Spacing::Leading => (sigma_max * sigma_max + 1.0).sqrt(),
        };
        let schedule = Schedule {
            timesteps,
            sigmas,
            start: request.skipped(steps)?,
        };
        Ok(Self {
            schedule,
            prediction,
            init_noise_sigma,
        })
    }

    /// The clean sample of one that noise of deviation `sigma` was added to.
    fn clean_sample(&self, index: usize) -> Linear {
        let sigma = self.schedule.sigma(index);
        let variance = sigma * sigma + 1.0;
        let (sample, output) = match self.prediction {
            Prediction::Sample => (0.0, 1.0),
            Prediction::Epsilon | Prediction::Flow => (1.0, -sigma),
            Prediction::Velocity => (1.0 / variance, -sigma / variance.sqrt()),
        };
        Linear { sample, output }
    }
}

/// Timesteps, and noise levels with that of the end.
fn levels(
    options: &Options,
    spacing: Spacing,
    steps: usize,
    request: &Timing,
) -> Result<(Vec<f64>, Vec<f64>), SchedulerError> {
    let training = Training::new(options, &BETA_DEFAULTS)?.with_finite_sigmas();
    let known = training.sigmas();
    let curve = Curve::read(options)?;
    request.without(KIND, curve.is_some() || request.sigmas.is_some(), false)?;
    if let Some(sigmas) = &request.sigmas {
        let sigmas: Vec<f64> = sigmas.iter().copied().map(rounded).collect();
        return Ok((nearest_timesteps(&sigmas[..steps], &known, false), sigmas));
    }
    let offset = options.count("steps_offset", 0, 0..=training.steps())?;
    let timesteps = match &request.timesteps {
        Some(timesteps) => timesteps.clone(),
        None => spacing.timesteps(steps, training.steps(), offset),
    };
    let mut timesteps: Vec<f64> = timesteps.into_iter().map(rounded).collect();
    check_timesteps(&timesteps, training.steps())?;
    let log_linear = options.choice(
        "interpolation_type",
        false,
        &[("linear", false), ("log_linear", true)],
    )?;
    let mut sigmas: Vec<f64> = if log_linear {
        let [last, first] = [known[known.len() - 1], known[0]].map(f64::from);
        Curve::Exponential.sigmas(last, first, steps + 1)
    } else {
        timesteps
            .iter()
            .map(|&timestep| interpolate(&known, timestep))
            .collect()
    };
    if let Some(curve) = curve {
        let ends = (sigmas[0], sigmas[sigmas.len() - 1]);
        sigmas = curve.bounded(options, ends, steps)?;
        timesteps = nearest_timesteps(&sigmas, &known, false);
    }
    sigmas.push(match FinalSigma::read(options)? {
        FinalSigma::Zero => 0.0,
        FinalSigma::Least => f64::from(known[0]),
    });
    if sigmas.iter().any(|sigma| !sigma.is_finite()) {
        return Err(wrong("trained_betas", "leave no signal"));
    }
    Ok((timesteps, sigmas))
}

impl Scheduler for Euler {
    fn timesteps(&self) -> &[f64] {
        self.schedule.taken()
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    fn scale_model_input(&self, index: usize, sample: &mut [f32]) {
        let sigma = self.schedule.sigma(index);
        let deviation = (sigma * sigma + 1.0).sqrt();
        for value in sample {
            *value = (f64::from(*value) / deviation) as f32;
        }
    }

    fn step(
        &mut self,
        index: usize,
        output: &[f32],
        sample: &mut [f32],
        _: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError> {
        self.schedule.check(index)?;
        check_length("the output", output.len(), sample.len())?;
        let remaining = self.schedule.sigma(index + 1) / self.schedule.sigma(index);
        let clean = self.estimate(index, output, sample);
        mix(sample, &clean, remaining, 1.0 - remaining);
        Ok(())
    }

    fn estimate(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        self.clean_sample(index).of(sample, output)
    }

    fn add_noise(&self, index: usize, sample: &mut [f32], noise: &[f32]) {
        mix(sample, noise, 1.0, self.schedule.sigma(index));
    }

    fn restore(&mut self, index: usize, history: Vec<Vec<f32>>) -> Result<(), SchedulerError> {
        self.schedule.check_restored(index)?;
        check_no_history(index, &history)
    }

    fn sigma(&self, index: usize) -> f64 {
        self.schedule.sigma(index)
    }
}
