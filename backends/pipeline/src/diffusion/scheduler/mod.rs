//! Numerical methods that take noise to a sample, step by step.
//!
//! Each computes what the diffusers (0.42.1) class of its name does, from the same
//! `scheduler_config.json`: an option of it is honoured, or refused by name. Coefficients are
//! worked out in f64 from noise levels rounded to f32, as diffusers keeps them; samples and
//! estimates are f32, each value a sum in f64 that is rounded once. What diffusers computes is in
//! `tests/models/diffusion/`, with the script that asks it.
//!
//! Where diffusers leaves the pipelines a choice, ours is that of its video pipelines: `strength`
//! drops the first steps of a whole schedule, of every method.

mod config;
mod ddim;
mod dpm;
mod error;
mod euler;
mod flow_match;
mod lcm;
mod multistep;
mod numeric;
mod options;
mod predict;
mod spacing;
mod timing;
mod training;
mod unipc;

pub use config::SchedulerConfig;
pub use error::SchedulerError;
pub use flow_match::flow_sigmas;
pub use timing::Timing;

use std::fmt;
use std::str::FromStr;

/// Longest `scheduler_config.json`: thousands of trained betas fit.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Most steps of a schedule.
pub const STEPS_MAX: u32 = 1000;
/// Most steps that a model's training may have had.
pub const TRAIN_TIMESTEPS_MAX: usize = 10_000;

/// One of the numerical methods that take noise to a sample, step by step.
///
/// A sample is one item of a batch: `f32`, of any shape, its values in any fixed order. `index`
/// counts the steps that are taken, from 0; an index beyond them is refused, or panics where no
/// error can be given.
pub trait Scheduler: Send {
    /// What the denoiser is told at each step, falling (rising where `invert_sigmas` is set).
    fn timesteps(&self) -> &[f64];

    /// What the first sample's noise of deviation 1 is multiplied with; 1 for most methods.
    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    /// Makes a copy of the sample what the denoiser is given; most methods give it as it is.
    fn scale_model_input(&self, _index: usize, _sample: &mut [f32]) {}

    /// `sample` becomes that of the next step, after the denoiser's `output` for it. Stochastic
    /// methods fill a buffer with `noise` of deviation 1, once a step at most. After an error
    /// nothing has changed.
    ///
    /// # Errors
    /// No such step, or not the next of a method that keeps history; lengths that differ.
    fn step(
        &mut self,
        index: usize,
        output: &[f32],
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError>;

    /// The clean sample that `output` at `index` estimates (for previews).
    fn estimate(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32>;

    /// Mixes noise into a clean sample as it is at `index` (image or video to video, inpainting
    /// of known frames).
    fn add_noise(&self, index: usize, sample: &mut [f32], noise: &[f32]);

    /// What is kept between steps besides the sample, for checkpoints: tensors of its length,
    /// earlier outputs of multistep methods, none of others.
    fn history(&self) -> Vec<Vec<f32>> {
        Vec::new()
    }

    /// Goes on with step `index`, from the history at that time.
    ///
    /// # Errors
    /// More or fewer tensors than the method keeps at that step, or of different lengths.
    fn restore(&mut self, index: usize, history: Vec<Vec<f32>>) -> Result<(), SchedulerError>;

    /// Noise at `index`, or at the end where that is the number of steps: 0..=1 for flow matching,
    /// its ratio to the signal for other methods. For experts that switch by noise level.
    fn sigma(&self, index: usize) -> f64;
}

/// A method, by the name of its class in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// Euler steps along a straight flow (Esser et al. 2024).
    FlowMatchEuler,
    /// Latent consistency (Luo et al. 2023).
    Lcm,
    /// Denoising diffusion implicit models (Song et al. 2020).
    Ddim,
    /// Euler steps of Karras et al. 2022, algorithm 2 without churn.
    Euler,
    /// DPM-Solver++ and its stochastic twin, multistep (Lu et al. 2022).
    DpmSolverMultistep,
    /// UniPC (Zhao et al. 2023).
    UniPcMultistep,
}

impl SchedulerKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::FlowMatchEuler,
        Self::Lcm,
        Self::Ddim,
        Self::Euler,
        Self::DpmSolverMultistep,
        Self::UniPcMultistep,
    ];

    /// A name for people.
    pub fn short(self) -> &'static str {
        match self {
            Self::FlowMatchEuler => "flow-match-euler",
            Self::Lcm => "lcm",
            Self::Ddim => "ddim",
            Self::Euler => "euler",
            Self::DpmSolverMultistep => "dpmpp-2m",
            Self::UniPcMultistep => "unipc",
        }
    }

    /// The name of its class in diffusers.
    pub fn class(self) -> &'static str {
        match self {
            Self::FlowMatchEuler => "FlowMatchEulerDiscreteScheduler",
            Self::Lcm => "LCMScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::DpmSolverMultistep => "DPMSolverMultistepScheduler",
            Self::UniPcMultistep => "UniPCMultistepScheduler",
        }
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class())
    }
}

impl FromStr for SchedulerKind {
    type Err = SchedulerError;

    /// By its class or its short name.
    fn from_str(class: &str) -> Result<Self, SchedulerError> {
        let is_named = |kind: &Self| kind.class() == class || kind.short() == class;
        let found = Self::ALL.into_iter().find(is_named);
        found.ok_or_else(|| SchedulerError::Class {
            class: class.to_owned(),
        })
    }
}

/// That sample, output and what else belongs to it have the same length.
fn check_length(what: &'static str, got: usize, expected: usize) -> Result<(), SchedulerError> {
    if got == expected {
        return Ok(());
    }
    Err(SchedulerError::Length {
        what,
        got,
        expected,
    })
}

/// That a method without history is given none.
fn check_no_history(index: usize, history: &[Vec<f32>]) -> Result<(), SchedulerError> {
    match history.len() {
        0 => Ok(()),
        got => Err(SchedulerError::History {
            index,
            expected: 0,
            got,
        }),
    }
}

/// `signal * sample + noise_share * noise`, value by value.
fn mix(sample: &mut [f32], noise: &[f32], signal: f64, noise_share: f64) {
    debug_assert_eq!(sample.len(), noise.len());
    for (value, &noise) in sample.iter_mut().zip(noise) {
        *value = (signal * f64::from(*value) + noise_share * f64::from(noise)) as f32;
    }
}
