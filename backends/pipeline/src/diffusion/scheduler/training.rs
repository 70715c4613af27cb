//! The noise that a model saw in training: `alphas_cumprod` of every training step.

use super::numeric::linspace_f32;
use super::options::{Options, wrong};
use super::{SchedulerError, TRAIN_TIMESTEPS_MAX};
use std::f64::consts::FRAC_PI_2;

/// Highest beta of the cosine schedule.
const COSINE_BETA_MAX: f64 = 0.999;

/// How betas grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum BetaSchedule {
    Linear,
    /// Their square roots grow evenly.
    ScaledLinear,
    /// After a squared cosine (Nichol and Dhariwal 2021).
    Cosine,
}

/// Betas that a configuration without any stands for; the methods differ in them.
pub(super) struct BetaDefaults {
    pub start: f64,
    pub end: f64,
    pub schedule: BetaSchedule,
}

pub(super) const BETA_DEFAULTS: BetaDefaults = BetaDefaults {
    start: 0.0001,
    end: 0.02,
    schedule: BetaSchedule::Linear,
};

/// What is left of the clean sample's variance at each training step.
pub(super) struct Training {
    /// In f32, as diffusers has them: what follows from `1 - alphas_cumprod[0]` shows it.
    pub alphas_cumprod: Vec<f32>,
    pub schedule: BetaSchedule,
    pub rescaled_to_zero_snr: bool,
}

/// Number of training steps.
pub(super) fn train_timesteps(options: &Options) -> Result<usize, SchedulerError> {
    options.count("num_train_timesteps", 1000, 2..=TRAIN_TIMESTEPS_MAX)
}

impl Training {
    pub fn new(options: &Options, defaults: &BetaDefaults) -> Result<Self, SchedulerError> {
        let count = train_timesteps(options)?;
        let schedule = options.choice(
            "beta_schedule",
            defaults.schedule,
            &[
                ("linear", BetaSchedule::Linear),
                ("scaled_linear", BetaSchedule::ScaledLinear),
                ("squaredcos_cap_v2", BetaSchedule::Cosine),
            ],
        )?;
        let start = options.number("beta_start", defaults.start, 0.0..=1.0)?;
        let end = options.number("beta_end", defaults.end, 0.0..=1.0)?;
        let mut betas = match options.numbers("trained_betas", TRAIN_TIMESTEPS_MAX)? {
            Some(betas) if betas.len() != count => {
                return Err(wrong("trained_betas", "is not as long as the training"));
            }
            Some(betas) => betas.into_iter().map(|beta| beta as f32).collect(),
            None => betas(schedule, start, end, count),
        };
        if !betas.iter().all(|beta| (0.0..=1.0).contains(beta)) {
            return Err(wrong("trained_betas", "holds something outside of 0..=1"));
        }
        let rescaled_to_zero_snr = options.flag("rescale_betas_zero_snr", false)?;
        if rescaled_to_zero_snr {
            betas = with_zero_snr_at_the_end(&betas);
        }
        Ok(Self {
            alphas_cumprod: remaining(&betas),
            schedule,
            rescaled_to_zero_snr,
        })
    }

    /// With the last noise level of a schedule without any signal finite, as methods need it that
    /// work with sigmas.
    pub fn with_finite_sigmas(mut self) -> Self {
        if let (true, Some(last)) = (self.rescaled_to_zero_snr, self.alphas_cumprod.last_mut()) {
            *last = (-24f32).exp2();
        }
        self
    }

    /// Noise relative to signal at each training step, rising.
    pub fn sigmas(&self) -> Vec<f32> {
        let sigma = |&alpha: &f32| ((1.0 - alpha) / alpha).sqrt();
        self.alphas_cumprod.iter().map(sigma).collect()
    }

    pub fn steps(&self) -> usize {
        self.alphas_cumprod.len()
    }
}

fn betas(schedule: BetaSchedule, start: f64, end: f64, count: usize) -> Vec<f32> {
    match schedule {
        BetaSchedule::Linear => linspace_f32(start as f32, end as f32, count),
        BetaSchedule::ScaledLinear => {
            let roots = linspace_f32(start.sqrt() as f32, end.sqrt() as f32, count);
            roots.into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::Cosine => {
            let remaining = |step: usize| {
                let share = step as f64 / count as f64;
                ((share + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2)
            };
            let beta = |i| (1.0 - remaining(i + 1) / remaining(i)).min(COSINE_BETA_MAX) as f32;
            (0..count).map(beta).collect()
        }
    }
}

/// The running product of `1 - beta`, held in f64 and rounded at each step as torch does.
fn remaining(betas: &[f32]) -> Vec<f32> {
    let product = |product: &mut f64, beta: &f32| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    };
    betas.iter().scan(1.0f64, product).collect()
}

/// Betas that leave no signal at the last step (Lin et al. 2023, algorithm 1).
fn with_zero_snr_at_the_end(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = remaining(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let scale = first / (first - last);
    let shares = roots.iter().map(|root| (root - last) * scale);
    let shares: Vec<f32> = shares.map(|root| root * root).collect();
    let after = shares.windows(2).map(|pair| 1.0 - pair[1] / pair[0]);
    std::iter::once(1.0 - shares[0]).chain(after).collect()
}

/// The noise levels of `timesteps`, each a step of the training, and of `last`, what is left of
/// the variance at the end.
pub(super) fn noise_ratios(timesteps: &[f64], alphas_cumprod: &[f32], last: f64) -> Vec<f64> {
    let at = |&timestep: &f64| f64::from(alphas_cumprod[timestep as usize]);
    let alphas = timesteps.iter().map(at).chain([last]);
    alphas.map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}
