//! `FlowMatchEulerDiscreteScheduler`: Euler steps along a straight flow from noise to sample.
//!
//! Esser et al.: "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024.

use super::numeric::{linspace, rounded};
use super::options::{Options, wrong};
use super::predict::Linear;
use super::spacing::{Curve, Schedule};
use super::training::train_timesteps;
use super::{
    Scheduler, SchedulerError, SchedulerKind, Timing, check_length, check_no_history, mix,
};

const KIND: SchedulerKind = SchedulerKind::FlowMatchEuler;
/// Largest shift of noise levels; beyond it a schedule is all noise but for its last step.
pub(super) const SHIFT_MAX: f64 = 1e6;
/// Largest exponent of a shift that depends on the sample's size.
const SHIFT_EXPONENT_MAX: f64 = 50.0;

/// The noise levels that most flow pipelines (LTX-Video, Flux) give a schedule of `steps`: evenly
/// from 1 to `1 / steps`. Without a list the schedule goes on to the least noise of the training.
pub fn flow_sigmas(steps: u32) -> Vec<f64> {
    let steps = steps.clamp(1, super::STEPS_MAX);
    linspace(1.0, 1.0 / f64::from(steps), steps as usize)
}

pub(super) struct FlowMatchEuler {
    schedule: Schedule,
    /// Noise level of a clean sample: 0, or 1 where levels are inverted.
    clean: f64,
    is_stochastic: bool,
}

impl FlowMatchEuler {
    pub fn open(options: &Options, steps: usize, request: &Timing) -> Result<Self, SchedulerError> {
        let train = train_timesteps(options)?;
        let inverted = options.flag("invert_sigmas", false)?;
        let is_stochastic = options.flag("stochastic_sampling", false)?;
        if inverted && is_stochastic {
            return Err(SchedulerError::Unsupported {
                kind: KIND,
                option: "stochastic_sampling",
                why: "it would noise where invert_sigmas cleans",
            });
        }
        let mut sigmas = shifted_sigmas(options, steps, request, train)?;
        sigmas.iter_mut().for_each(|sigma| *sigma = rounded(*sigma));
        let train = train as f64;
        let timestep = |&sigma: &f64| rounded(sigma * train);
        let mut timesteps: Vec<f64> = match &request.timesteps {
            Some(timesteps) => timesteps.iter().copied().map(rounded).collect(),
            None => sigmas.iter().map(timestep).collect(),
        };
        if inverted {
            sigmas
                .iter_mut()
                .for_each(|sigma| *sigma = rounded(1.0 - *sigma));
            timesteps = sigmas.iter().map(timestep).collect();
        }
        let clean = if inverted { 1.0 } else { 0.0 };
        sigmas.push(clean);
        if let Some(index) = sigmas.iter().position(|sigma| !sigma.is_finite()) {
            return Err(SchedulerError::Undefined { kind: KIND, index });
        }
        let schedule = Schedule {
            timesteps,
            sigmas,
            start: request.skipped(steps)?,
        };
        Ok(Self {
            schedule,
            clean,
            is_stochastic,
        })
    }

    /// The clean sample that an output leads straight to.
    fn clean_sample(&self, index: usize) -> Linear {
        Linear {
            sample: 1.0,
            output: self.clean - self.schedule.sigma(index),
        }
    }
}

/// Noise levels of all steps but the end, after shifts, in f64.
fn shifted_sigmas(
    options: &Options,
    steps: usize,
    request: &Timing,
    train: usize,
) -> Result<Vec<f64>, SchedulerError> {
    let shift = Shift::read(options, request)?;
    let given = |list: &[f64]| list.iter().copied().map(rounded).collect::<Vec<f64>>();
    let train = train as f64;
    let mut sigmas = match (&request.sigmas, &request.timesteps) {
        (Some(sigmas), _) if sigmas[0] > 1.0 => {
            return Err(SchedulerError::timing("sigmas", "of a flow are at most 1"));
        }
        (Some(sigmas), _) => given(sigmas),
        (None, Some(timesteps)) => given(timesteps).iter().map(|t| t / train).collect(),
        (None, None) => {
            // As a static shift is part of the ends already, it is applied twice.
            let end = |sigma: f64| shift.of_training(sigma) * train;
            let timesteps = linspace(end(1.0), end(rounded(1.0 / train)), steps);
            timesteps.into_iter().map(|t| t / train).collect()
        }
    };
    sigmas
        .iter_mut()
        .for_each(|sigma| *sigma = shift.apply(*sigma));
    stretch_to_terminal(options, &mut sigmas)?;
    match Curve::read(options)? {
        Some(curve) => curve.bounded(options, (sigmas[0], sigmas[steps - 1]), steps),
        None => Ok(sigmas),
    }
}

/// Stretches `sigmas` so that the last is `shift_terminal`, where that is set.
pub(super) fn stretch_to_terminal(
    options: &Options,
    sigmas: &mut [f64],
) -> Result<(), SchedulerError> {
    let terminal = options.number("shift_terminal", 0.0, 0.0..=1.0)?;
    if terminal == 1.0 {
        return Err(wrong("shift_terminal", "leaves no noise to take away"));
    }
    if let (true, Some(&last)) = (terminal > 0.0, sigmas.last()) {
        let scale = (1.0 - last) / (1.0 - terminal);
        sigmas
            .iter_mut()
            .for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
    Ok(())
}

/// Moves noise levels towards noise, for samples with more values than a model began to learn on.
enum Shift {
    Static(f64),
    /// `weight / (weight + 1 / sigma - 1)`.
    Dynamic {
        weight: f64,
    },
}

impl Shift {
    fn read(options: &Options, request: &Timing) -> Result<Self, SchedulerError> {
        let is_exponential = options.choice(
            "time_shift_type",
            true,
            &[("exponential", true), ("linear", false)],
        )?;
        if !options.flag("use_dynamic_shifting", false)? {
            let shift = options.number("shift", 1.0, 0.0..=SHIFT_MAX)?;
            return Ok(Self::Static(shift));
        }
        let mu = size_shift(options, request)?;
        Ok(Self::Dynamic {
            weight: if is_exponential { mu.exp() } else { mu },
        })
    }

    /// What the highest and the least noise of the training become; only a static shift is known
    /// before a sample's size is. In f32, as diffusers has it.
    fn of_training(&self, sigma: f64) -> f64 {
        let Self::Static(shift) = *self else {
            return sigma;
        };
        let (sigma, shift, less) = (sigma as f32, shift as f32, (shift - 1.0) as f32);
        f64::from(shift * sigma / (1.0 + less * sigma))
    }

    fn apply(&self, sigma: f64) -> f64 {
        match *self {
            Self::Static(shift) => shift * sigma / (1.0 + (shift - 1.0) * sigma),
            Self::Dynamic { weight } => weight / (weight + (1.0 / sigma - 1.0)),
        }
    }
}

/// The shift for a sample of `sequence_length`: on the line through `base_shift` at
/// `base_image_seq_len` and `max_shift` at `max_image_seq_len`.
fn size_shift(options: &Options, request: &Timing) -> Result<f64, SchedulerError> {
    let Some(length) = request.sequence_length else {
        let why = "is needed by use_dynamic_shifting";
        return Err(SchedulerError::timing("sequence_length", why));
    };
    let range = -SHIFT_EXPONENT_MAX..=SHIFT_EXPONENT_MAX;
    let base = options.number("base_shift", 0.5, range.clone())?;
    let max = options.number("max_shift", 1.15, range.clone())?;
    let base_length = options.count("base_image_seq_len", 256, 0..=usize::MAX)? as f64;
    let max_length = options.count("max_image_seq_len", 4096, 0..=usize::MAX)? as f64;
    if base_length >= max_length {
        return Err(wrong(
            "max_image_seq_len",
            "is not above base_image_seq_len",
        ));
    }
    let slope = (max - base) / (max_length - base_length);
    let mu = length as f64 * slope + (base - slope * base_length);
    if range.contains(&mu) {
        Ok(mu)
    } else {
        Err(SchedulerError::timing(
            "sequence_length",
            "is too large for the model",
        ))
    }
}

impl Scheduler for FlowMatchEuler {
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
        let next = self.schedule.sigma(index + 1);
        if self.is_stochastic {
            let mut drawn = vec![0.0; sample.len()];
            noise(&mut drawn);
            let mut clean = self.clean_sample(index).of(sample, output);
            mix(&mut clean, &drawn, 1.0 - next, next);
            sample.copy_from_slice(&clean);
            return Ok(());
        }
        mix(sample, output, 1.0, next - self.schedule.sigma(index));
        Ok(())
    }

    fn estimate(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        self.clean_sample(index).of(sample, output)
    }

    fn add_noise(&self, index: usize, sample: &mut [f32], noise: &[f32]) {
        let sigma = self.sigma(index);
        mix(sample, noise, 1.0 - sigma, sigma);
    }

    fn restore(&mut self, index: usize, history: Vec<Vec<f32>>) -> Result<(), SchedulerError> {
        self.schedule.check_restored(index)?;
        check_no_history(index, &history)
    }

    /// The share of noise, inverted levels or not.
    fn sigma(&self, index: usize) -> f64 {
        (self.clean - self.schedule.sigma(index)).abs()
    }
}
