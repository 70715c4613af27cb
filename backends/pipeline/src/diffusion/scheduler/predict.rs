//! From a denoiser's output to a clean sample.

use super::options::{Options, wrong};
use super::{SchedulerError, SchedulerKind};

/// What a denoiser's output is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Prediction {
    /// The noise.
    Epsilon,
    /// The clean sample.
    Sample,
    /// Velocity between the two (Salimans and Ho 2022).
    Velocity,
    /// Noise less clean sample, of a straight flow.
    Flow,
}

impl Prediction {
    /// `choices` of these are the kind's.
    pub fn read(options: &Options, kind: SchedulerKind) -> Result<Self, SchedulerError> {
        let mut choices = vec![
            ("epsilon", Self::Epsilon),
            ("sample", Self::Sample),
            ("v_prediction", Self::Velocity),
        ];
        match kind {
            SchedulerKind::DpmSolverMultistep | SchedulerKind::UniPcMultistep => {
                choices.push(("flow_prediction", Self::Flow));
            }
            SchedulerKind::Euler => choices.push(("original_sample", Self::Sample)),
            _ => {}
        }
        options.choice("prediction_type", Self::Epsilon, &choices)
    }

    /// The clean sample of a noisy one that is `alpha` signal and `sigma` noise.
    pub fn clean(self, alpha: f64, sigma: f64) -> Linear {
        let (sample, output) = match self {
            Self::Epsilon => (1.0 / alpha, -sigma / alpha),
            Self::Sample => (0.0, 1.0),
            Self::Velocity => (alpha, -sigma),
            Self::Flow => (1.0, -sigma),
        };
        Linear { sample, output }
    }

    /// The noise in it.
    pub fn noise(self, alpha: f64, sigma: f64) -> Linear {
        let (sample, output) = match self {
            Self::Epsilon => (0.0, 1.0),
            Self::Sample => (1.0 / sigma, -alpha / sigma),
            Self::Velocity => (sigma, alpha),
            Self::Flow => (1.0, 1.0 - sigma),
        };
        Linear { sample, output }
    }
}

/// A weighted sum of a sample and what the denoiser gave for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Linear {
    pub sample: f64,
    pub output: f64,
}

impl Linear {
    pub fn is_finite(self) -> bool {
        self.sample.is_finite() && self.output.is_finite()
    }

    /// The sum for one value.
    pub fn at(self, sample: f32, output: f32) -> f32 {
        (self.sample * f64::from(sample) + self.output * f64::from(output)) as f32
    }

    pub fn of(self, sample: &[f32], output: &[f32]) -> Vec<f32> {
        let pairs = sample.iter().zip(output);
        pairs
            .map(|(&sample, &output)| self.at(sample, output))
            .collect()
    }
}

/// What keeps an estimate of the clean sample in range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    None,
    /// No value beyond this.
    Clip(f32),
    /// Dynamic thresholding (Saharia et al. 2022): no value beyond the `ratio` quantile of all
    /// magnitudes, which is at least 1 and at most `max`, and all divided by it.
    Threshold {
        ratio: f64,
        max: f32,
    },
}

impl Limit {
    /// `clips` is the default of `clip_sample`, of methods that have it.
    pub fn read(options: &Options, clips: Option<bool>) -> Result<Self, SchedulerError> {
        if options.flag("thresholding", false)? {
            let max = options.number("sample_max_value", 1.0, 0.0..=f64::from(f32::MAX))?;
            let ratio = options.number("dynamic_thresholding_ratio", 0.995, 0.0..=1.0)?;
            if max < 1.0 {
                return Err(wrong("sample_max_value", "is less than one"));
            }
            let max = max as f32;
            return Ok(Self::Threshold { ratio, max });
        }
        match clips {
            Some(clips) if options.flag("clip_sample", clips)? => {
                let range = options.number("clip_sample_range", 1.0, 0.0..=f64::from(f32::MAX))?;
                Ok(Self::Clip(range as f32))
            }
            _ => Ok(Self::None),
        }
    }

    pub fn apply(self, clean: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Clip(range) => {
                for value in clean {
                    *value = value.max(-range).min(range);
                }
            }
            Self::Threshold { ratio, max } => {
                let range = magnitude_quantile(clean, ratio).max(1.0).min(max);
                for value in clean {
                    *value = value.max(-range).min(range) / range;
                }
            }
        }
    }
}

/// The magnitude that a share `ratio` of `values` does not exceed, linear between neighbours.
fn magnitude_quantile(values: &[f32], ratio: f64) -> f32 {
    let mut magnitudes: Vec<f32> = values.iter().map(|value| value.abs()).collect();
    let Some(last) = magnitudes.len().checked_sub(1) else {
        return 0.0;
    };
    let rank = ratio * last as f64;
    let below = (rank as usize).min(last);
    let (_, &mut low, above) = magnitudes.select_nth_unstable_by(below, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    low + (high - low) * (rank - below as f64) as f32
}
