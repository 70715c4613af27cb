//! What the methods that look back at earlier steps share.

use super::options::Options;
use super::predict::{Limit, Linear, Prediction};
use super::spacing::Schedule;
use super::{SchedulerError, SchedulerKind, Timing, check_length};
use std::collections::VecDeque;

/// Most steps, the present one included, that a method looks at.
pub(super) const ORDER_MAX: usize = 3;

/// How much of a sample is signal and how much noise, at a noise level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Path {
    /// Variances add up to 1; a level is the ratio of noise to signal.
    VariancePreserving,
    /// A straight flow; a level is the share of noise.
    Flow,
}

impl Path {
    pub fn read(options: &Options) -> Result<Self, SchedulerError> {
        let is_flow = options.flag("use_flow_sigmas", false)?;
        Ok(if is_flow {
            Self::Flow
        } else {
            Self::VariancePreserving
        })
    }

    /// What the denoiser's output is.
    pub fn prediction(
        self,
        options: &Options,
        kind: SchedulerKind,
    ) -> Result<Prediction, SchedulerError> {
        let prediction = Prediction::read(options, kind)?;
        if prediction == Prediction::Flow && self != Self::Flow {
            return Err(SchedulerError::Unsupported {
                kind,
                option: "prediction_type",
                why: "a flow needs use_flow_sigmas",
            });
        }
        Ok(prediction)
    }

    /// Signal and noise at the level `sigma`.
    pub fn at(self, sigma: f64) -> Level {
        let (alpha, sigma) = match self {
            Self::Flow => (1.0 - sigma, sigma),
            Self::VariancePreserving => {
                let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
                (alpha, sigma * alpha)
            }
        };
        Level { alpha, sigma }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub alpha: f64,
    pub sigma: f64,
}

impl Level {
    /// Half the logarithm of the ratio of signal to noise: the methods' time.
    pub fn lambda(self) -> f64 {
        self.alpha.ln() - self.sigma.ln()
    }
}

/// A weighted sum of the present sample, of what outputs were converted to (the newest first), and
/// of one more tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Update {
    pub sample: f64,
    pub outputs: [f64; ORDER_MAX],
    /// Weight of fresh noise, or of what the present output was converted to in a correction.
    pub other: f64,
}

impl Update {
    pub fn is_finite(&self) -> bool {
        let weights = [self.sample, self.other].into_iter().chain(self.outputs);
        weights.into_iter().all(f64::is_finite)
    }

    /// Makes `sample` the sum. A tensor that has no weight may be left out.
    pub fn apply<'a>(
        &self,
        sample: &mut [f32],
        outputs: impl Iterator<Item = &'a [f32]>,
        other: Option<&'a [f32]>,
    ) {
        let weighted = self.outputs.into_iter().zip(outputs);
        let other = other.map(|other| (self.other, other));
        let terms: Vec<(f64, &[f32])> = weighted
            .chain(other)
            .filter(|(weight, _)| *weight != 0.0)
            .collect();
        for (i, value) in sample.iter_mut().enumerate() {
            let terms = terms
                .iter()
                .map(|(weight, tensor)| weight * f64::from(tensor[i]));
            *value = (self.sample * f64::from(*value) + terms.sum::<f64>()) as f32;
        }
    }
}

/// Schedule, conversion of outputs and memory of a multistep method.
pub(super) struct Multistep {
    pub kind: SchedulerKind,
    pub schedule: Schedule,
    pub path: Path,
    pub prediction: Prediction,
    pub limit: Limit,
    /// How many earlier outputs are kept.
    pub kept_max: usize,
    /// The step that comes next.
    pub next: usize,
    /// What outputs were converted to, the newest first.
    pub outputs: VecDeque<Vec<f32>>,
}

impl Multistep {
    /// Signal and noise at step `index`, or at the end.
    pub fn level(&self, index: usize) -> Level {
        self.path.at(self.schedule.sigma(index))
    }

    /// How to get the clean sample from an output.
    pub fn clean(&self, index: usize) -> Linear {
        let Level { alpha, sigma } = self.level(index);
        self.prediction.clean(alpha, sigma)
    }

    pub fn estimate(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        let mut clean = self.clean(index).of(sample, output);
        self.limit.apply(&mut clean);
        clean
    }

    /// Refuses a schedule in which a clean sample cannot be estimated.
    pub fn check_clean(&self) -> Result<(), SchedulerError> {
        let undefined = |index: &usize| !self.clean(*index).is_finite();
        match (0..self.schedule.steps()).find(undefined) {
            None => Ok(()),
            Some(index) => Err(SchedulerError::Undefined {
                kind: self.kind,
                index,
            }),
        }
    }

    /// Refuses updates with weights that are no numbers.
    pub fn check_updates<'a>(
        &self,
        mut updates: impl Iterator<Item = &'a Update>,
    ) -> Result<(), SchedulerError> {
        match updates.position(|update| !update.is_finite()) {
            None => Ok(()),
            Some(index) => Err(SchedulerError::Undefined {
                kind: self.kind,
                index,
            }),
        }
    }

    /// That `index` is next, and all tensors are as long as the sample.
    pub fn check_step(
        &self,
        index: usize,
        output: &[f32],
        sample: &[f32],
    ) -> Result<(), SchedulerError> {
        self.schedule.check(index)?;
        if index != self.next {
            return Err(SchedulerError::OutOfOrder {
                index,
                expected: self.next,
            });
        }
        check_length("the output", output.len(), sample.len())?;
        let kept = self.outputs.front().map_or(sample.len(), Vec::len);
        check_length("the sample", sample.len(), kept)
    }

    /// Keeps what the output of a step was converted to, which is then over.
    pub fn keep(&mut self, output: Vec<f32>) {
        self.outputs.push_front(output);
        self.outputs.truncate(self.kept_max);
        self.next += 1;
    }

    /// Goes on with step `index` and `outputs`, the newest first.
    pub fn restore(&mut self, index: usize, outputs: Vec<Vec<f32>>) -> Result<(), SchedulerError> {
        self.schedule.check_restored(index)?;
        let expected = index.min(self.kept_max);
        if outputs.len() != expected {
            return Err(SchedulerError::History {
                index,
                expected,
                got: outputs.len(),
            });
        }
        if let [first, rest @ ..] = &outputs[..] {
            for output in rest {
                check_length("a tensor of the history", output.len(), first.len())?;
            }
        }
        self.outputs = outputs.into();
        self.next = index;
        Ok(())
    }
}

/// Refuses shifts whose strength only the pipelines of diffusers know.
pub(super) fn refuse_dynamic_shift(
    options: &Options,
    kind: SchedulerKind,
) -> Result<(), SchedulerError> {
    if !options.flag("use_dynamic_shifting", false)? {
        return Ok(());
    }
    Err(SchedulerError::Unsupported {
        kind,
        option: "use_dynamic_shifting",
        why: "its strength is not in the configuration",
    })
}

/// Leaves out the first steps, where `request` has a strength.
pub(super) fn started(
    mut schedule: Schedule,
    request: &Timing,
    steps: usize,
) -> Result<Schedule, SchedulerError> {
    let skipped = request.skipped(steps)?;
    // A schedule whose noisiest steps are clipped may be shorter than it was asked for.
    if skipped >= schedule.timesteps.len() {
        return Err(SchedulerError::timing("strength", "leaves no step"));
    }
    schedule.start = skipped;
    Ok(schedule)
}
