//! Which training steps and noise levels a schedule visits.

use super::SchedulerError;
use super::numeric::{beta_quantile, falling_range, linspace};
use super::options::{Options, wrong};

/// Exponent of Karras et al. 2022.
const KARRAS_RHO: f64 = 7.0;
/// The least sigma whose logarithm is taken, and the greatest that a schedule may begin with.
const SIGMA_MIN: f64 = 1e-10;
const SIGMA_MAX: f64 = 1e6;

/// Which training steps are visited (Lin et al. 2023, table 2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Spacing {
    /// Evenly from the first to the last.
    Linspace,
    /// Evenly from the first on.
    Leading,
    /// Evenly up to the last.
    Trailing,
}

impl Spacing {
    pub fn read(options: &Options, default: Self) -> Result<Self, SchedulerError> {
        let choices = [
            ("linspace", Self::Linspace),
            ("leading", Self::Leading),
            ("trailing", Self::Trailing),
        ];
        options.choice("timestep_spacing", default, &choices)
    }

    /// `steps` training steps of `train`, falling, from `train_last` on. Single-step methods.
    pub fn timesteps(self, steps: usize, train: usize, offset: usize) -> Vec<f64> {
        match self {
            Self::Linspace => falling(linspace(0.0, (train - 1) as f64, steps)),
            Self::Leading => leading(steps, train / steps, offset),
            Self::Trailing => trailing(steps, train, train),
        }
    }

    /// The same for multistep methods, which leave a step's room at the clean end. Training steps
    /// from `end` on are not visited; a trailing schedule is shorter for that.
    pub fn multistep(self, steps: usize, train: usize, end: usize, offset: usize) -> Vec<f64> {
        let mut timesteps = match self {
            Self::Linspace => {
                let timesteps = linspace(0.0, end as f64 - 1.0, steps + 1);
                falling(timesteps.into_iter().map(f64::round_ties_even).collect())
            }
            Self::Leading => {
                let mut timesteps = leading(steps + 1, end / (steps + 1), 0);
                timesteps.iter_mut().for_each(|t| *t += offset as f64);
                timesteps
            }
            Self::Trailing => trailing(steps, train, end),
        };
        timesteps.truncate(steps);
        timesteps
    }
}

fn falling(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.reverse();
    numbers
}

fn leading(steps: usize, stride: usize, offset: usize) -> Vec<f64> {
    let timestep = |i| (i * stride + offset) as f64;
    (0..steps).rev().map(timestep).collect()
}

/// For some step counts (61 of 1000) rounding makes numpy's range one longer than asked for; the
/// training step -1 at its end, which diffusers does visit, is left out.
fn trailing(steps: usize, train: usize, end: usize) -> Vec<f64> {
    let stride = train as f64 / steps as f64;
    let range = falling_range(end as f64, 0.0, stride).into_iter();
    let timesteps = range.map(|timestep| timestep.round_ties_even() - 1.0);
    timesteps.take_while(|timestep| *timestep >= 0.0).collect()
}

/// How noise levels fall between the first and the last, where they do not follow the training
/// steps that are visited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Curve {
    /// Karras et al. 2022, equation 5.
    Karras,
    /// Evenly in the logarithm.
    Exponential,
    /// After a beta distribution (Lee et al. 2024).
    Beta,
}

impl Curve {
    pub fn read(options: &Options) -> Result<Option<Self>, SchedulerError> {
        let mut curve = None;
        for (option, chosen) in [
            ("use_karras_sigmas", Self::Karras),
            ("use_exponential_sigmas", Self::Exponential),
            ("use_beta_sigmas", Self::Beta),
        ] {
            if options.flag(option, false)? && curve.replace(chosen).is_some() {
                return Err(wrong(option, "excludes the other curve that is chosen"));
            }
        }
        Ok(curve)
    }

    /// `steps` noise levels from `first` down to `last`.
    pub fn sigmas(self, first: f64, last: f64, steps: usize) -> Vec<f64> {
        let ramp = linspace(0.0, 1.0, steps).into_iter();
        match self {
            Self::Karras => {
                let [high, low] = [first, last].map(|sigma| sigma.powf(1.0 / KARRAS_RHO));
                ramp.map(|share| (high + share * (low - high)).powf(KARRAS_RHO))
                    .collect()
            }
            Self::Exponential => {
                let logarithms = linspace(first.ln(), last.ln(), steps);
                logarithms.into_iter().map(f64::exp).collect()
            }
            Self::Beta => ramp
                .map(|share| last + beta_quantile(1.0 - share) * (first - last))
                .collect(),
        }
    }

    /// The same between the ends that the options name, where they do.
    pub fn bounded(
        self,
        options: &Options,
        (first, last): (f64, f64),
        steps: usize,
    ) -> Result<Vec<f64>, SchedulerError> {
        let first = options.number("sigma_max", first, SIGMA_MIN..=SIGMA_MAX)?;
        let last = options.number("sigma_min", last, SIGMA_MIN..=SIGMA_MAX)?;
        Ok(self.sigmas(first, last, steps))
    }
}

/// The training step, with a fraction unless `whole`, at which noise is each of `sigmas`: linear in
/// the logarithm between the two around it. `known` are the noise levels of the training, rising,
/// at least two.
pub(super) fn nearest_timesteps(sigmas: &[f64], known: &[f32], whole: bool) -> Vec<f64> {
    let log = |&sigma: &f32| f64::from(f64::from(sigma).ln() as f32);
    let known: Vec<f64> = known.iter().map(log).collect();
    let timestep = |&sigma: &f64| {
        let log_sigma = sigma.max(SIGMA_MIN).ln();
        let below = known.iter().rposition(|&known| known <= log_sigma);
        let below = below.unwrap_or(0).min(known.len() - 2);
        let (low, high) = (known[below], known[below + 1]);
        let weight = ((low - log_sigma) / (low - high)).clamp(0.0, 1.0);
        (1.0 - weight) * below as f64 + weight * (below + 1) as f64
    };
    let timesteps = sigmas.iter().map(timestep);
    if whole {
        timesteps.map(f64::round_ties_even).collect()
    } else {
        timesteps.collect()
    }
}

/// That all of `timesteps` are of a training of `train` steps.
pub(super) fn check_timesteps(timesteps: &[f64], train: usize) -> Result<(), SchedulerError> {
    let end = train as f64;
    if timesteps
        .iter()
        .all(|timestep| (0.0..end).contains(timestep))
    {
        return Ok(());
    }
    Err(SchedulerError::timing(
        "steps",
        format!("lead past the {train} of the training"),
    ))
}

/// What a schedule ends with, after its last step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FinalSigma {
    /// A clean sample.
    Zero,
    /// The noise of the first training step.
    Least,
}

impl FinalSigma {
    pub fn read(options: &Options) -> Result<Self, SchedulerError> {
        let choices = [("zero", Self::Zero), ("sigma_min", Self::Least)];
        options.choice("final_sigmas_type", Self::Zero, &choices)
    }
}

/// Timesteps and noise levels of a whole schedule, of which some of the first may be left out.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// What the denoiser is told at each step.
    pub timesteps: Vec<f64>,
    /// Of each step, and after the last, rounded to f32 as diffusers keeps them.
    pub sigmas: Vec<f64>,
    /// Steps left out because the sample is not pure noise at first.
    pub start: usize,
}

impl Schedule {
    /// Steps that are taken.
    pub fn steps(&self) -> usize {
        self.timesteps.len() - self.start
    }

    pub fn taken(&self) -> &[f64] {
        &self.timesteps[self.start..]
    }

    /// Noise at step `index` of those taken, or after the last.
    pub fn sigma(&self, index: usize) -> f64 {
        self.sigmas[self.start + index]
    }

    /// That there is such a step.
    pub fn check(&self, index: usize) -> Result<(), SchedulerError> {
        let steps = self.steps();
        if index < steps {
            Ok(())
        } else {
            Err(SchedulerError::NoSuchStep { index, steps })
        }
    }

    /// That one may go on with this step, or is at the end.
    pub fn check_restored(&self, index: usize) -> Result<(), SchedulerError> {
        if index == self.steps() {
            return Ok(());
        }
        self.check(index)
    }
}
