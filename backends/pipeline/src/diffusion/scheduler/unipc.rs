//! `UniPCMultistepScheduler`: a predictor and a corrector of any order.
//!
//! Zhao et al.: "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion
//! Models", 2023, algorithms 5 to 8.

use super::flow_match::{SHIFT_MAX, stretch_to_terminal};
use super::multistep::{Level, Multistep, ORDER_MAX, Path, Update, refuse_dynamic_shift, started};
use super::numeric::{interpolate, linspace, rounded};
use super::options::{Options, wrong};
use super::predict::{Limit, Linear, Prediction};
use super::spacing::{Curve, FinalSigma, Schedule, Spacing, check_timesteps, nearest_timesteps};
use super::training::{BETA_DEFAULTS, Training};
use super::{STEPS_MAX, Scheduler, SchedulerError, SchedulerKind, Timing, check_length, mix};
use std::collections::VecDeque;

const KIND: SchedulerKind = SchedulerKind::UniPcMultistep;
/// How far below 1 a flow begins, where there is still a trace of signal.
const BELOW_ONE: f64 = 1e-6;

/// What decides the form of each step.
struct Plan {
    order: usize,
    lower_order_final: bool,
    /// The function B of a step is `exp(h) - 1`, not `h`.
    is_bh2: bool,
    /// Outputs are converted to clean samples, not to noise.
    predicts_clean: bool,
    /// Steps, of the whole schedule, whose result is not corrected.
    uncorrected: Vec<usize>,
}

pub(super) struct UniPc {
    inner: Multistep,
    predictors: Vec<Update>,
    /// What makes the result of the step before better, once the next output is known.
    correctors: Vec<Option<Update>>,
    predicts_clean: bool,
    /// The sample, corrected, that the last step began with.
    last_sample: Vec<f32>,
}

impl UniPc {
    pub fn open(options: &Options, steps: usize, request: &Timing) -> Result<Self, SchedulerError> {
        let plan = Plan::read(options)?;
        refuse_dynamic_shift(options, KIND)?;
        let path = Path::read(options)?;
        let prediction = path.prediction(options, KIND)?;
        if prediction == Prediction::Flow && !plan.predicts_clean {
            return Err(SchedulerError::Unsupported {
                kind: KIND,
                option: "predict_x0",
                why: "a flow is not converted to noise",
            });
        }
        let schedule = started(schedule(options, steps, request)?, request, steps)?;
        let inner = Multistep {
            kind: KIND,
            schedule,
            path,
            prediction,
            limit: Limit::read(options, None)?,
            kept_max: plan.order,
            next: 0,
            outputs: VecDeque::new(),
        };
        inner.check_clean()?;
        let steps = 0..inner.schedule.steps();
        let predictors: Vec<Update> = steps
            .clone()
            .map(|index| plan.predictor(&inner, index))
            .collect();
        let correctors: Vec<Option<Update>> =
            steps.map(|index| plan.corrector(&inner, index)).collect();
        inner.check_updates(predictors.iter())?;
        inner.check_updates(
            correctors
                .iter()
                .map(|update| update.as_ref().unwrap_or(&ZERO)),
        )?;
        Ok(Self {
            inner,
            predictors,
            correctors,
            predicts_clean: plan.predicts_clean,
            last_sample: Vec::new(),
        })
    }

    /// What the method works with: a clean sample or the noise.
    fn convert(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        if self.predicts_clean {
            return self.inner.estimate(index, output, sample);
        }
        let Level { alpha, sigma } = self.inner.level(index);
        let noise: Linear = self.inner.prediction.noise(alpha, sigma);
        noise.of(sample, output)
    }
}

const ZERO: Update = Update {
    sample: 0.0,
    outputs: [0.0; ORDER_MAX],
    other: 0.0,
};

/// Steps and noise levels.
fn schedule(options: &Options, steps: usize, request: &Timing) -> Result<Schedule, SchedulerError> {
    let training = Training::new(options, &BETA_DEFAULTS)?.with_finite_sigmas();
    let curve = Curve::read(options)?;
    let is_flow = options.flag("use_flow_sigmas", false)?;
    if is_flow && !matches!(curve, None | Some(Curve::Karras)) {
        return Err(SchedulerError::Unsupported {
            kind: KIND,
            option: "use_flow_sigmas",
            why: "the other curve that is chosen is not one of flows",
        });
    }
    if !is_flow && options.value("shift_terminal").is_some() {
        return Err(wrong("shift_terminal", "needs use_flow_sigmas"));
    }
    request.without(KIND, true, !is_flow || curve.is_some())?;
    let train = training.steps() as f64;
    let known = training.sigmas();
    let mut least = None;
    let (timesteps, mut sigmas): (Vec<f64>, Vec<f64>) = match curve {
        Some(curve) => {
            let ends = (f64::from(known[known.len() - 1]), f64::from(known[0]));
            let mut sigmas = curve.bounded(options, ends, steps)?;
            if is_flow {
                sigmas.iter_mut().for_each(|sigma| *sigma /= *sigma + 1.0);
                (sigmas.iter().map(|sigma| sigma * train).collect(), sigmas)
            } else {
                let whole = curve == Curve::Karras;
                (nearest_timesteps(&sigmas, &known, whole), sigmas)
            }
        }
        None if is_flow => {
            let sigmas = flow_levels(options, steps, request, train)?;
            (sigmas.iter().map(|sigma| sigma * train).collect(), sigmas)
        }
        None => {
            least = Some(f64::from(known[0]));
            let offset = options.count("steps_offset", 0, 0..=training.steps())?;
            let spacing = Spacing::read(options, Spacing::Linspace)?;
            let all = training.steps();
            let timesteps = spacing.multistep(steps, all, all, offset);
            check_timesteps(&timesteps, all)?;
            let sigmas = timesteps
                .iter()
                .map(|&timestep| interpolate(&known, timestep));
            let sigmas = sigmas.collect();
            (timesteps, sigmas)
        }
    };
    let last = sigmas.last().copied().unwrap_or(0.0);
    sigmas.push(match FinalSigma::read(options)? {
        FinalSigma::Zero => 0.0,
        FinalSigma::Least => least.unwrap_or(last),
    });
    Ok(Schedule {
        timesteps: timesteps.into_iter().map(f64::trunc).collect(),
        sigmas: sigmas.into_iter().map(rounded).collect(),
        start: 0,
    })
}

/// Noise levels of a shifted flow.
fn flow_levels(
    options: &Options,
    steps: usize,
    request: &Timing,
    train: f64,
) -> Result<Vec<f64>, SchedulerError> {
    let shift = options.number("flow_shift", 1.0, 0.0..=SHIFT_MAX)?;
    let mut sigmas = match &request.sigmas {
        Some(sigmas) if sigmas[0] > 1.0 => {
            return Err(SchedulerError::timing("sigmas", "of a flow are at most 1"));
        }
        Some(sigmas) => sigmas.clone(),
        None => {
            let mut sigmas = linspace(1.0, 1.0 / train, steps + 1);
            sigmas.pop();
            sigmas
        }
    };
    for sigma in &mut sigmas {
        *sigma = shift * *sigma / (1.0 + (shift - 1.0) * *sigma);
    }
    stretch_to_terminal(options, &mut sigmas)?;
    if (sigmas[0] - 1.0).abs() < BELOW_ONE {
        sigmas[0] -= BELOW_ONE;
    }
    Ok(sigmas)
}

impl Plan {
    fn read(options: &Options) -> Result<Self, SchedulerError> {
        if options.value("solver_p").is_some() {
            return Err(SchedulerError::Unsupported {
                kind: KIND,
                option: "solver_p",
                why: "predictors of other methods are not run",
            });
        }
        let is_bh2 = options.choice(
            "solver_type",
            true,
            &[
                ("bh2", true),
                ("bh1", false),
                ("midpoint", true),
                ("heun", true),
                ("logrho", true),
            ],
        )?;
        let uncorrected = options.numbers("disable_corrector", STEPS_MAX as usize)?;
        let uncorrected = uncorrected.unwrap_or_default();
        if uncorrected
            .iter()
            .any(|step| *step < 0.0 || step.fract() != 0.0)
        {
            return Err(wrong(
                "disable_corrector",
                "holds something that is no step",
            ));
        }
        Ok(Self {
            order: options.count("solver_order", 2, 1..=ORDER_MAX)?,
            lower_order_final: options.flag("lower_order_final", true)?,
            is_bh2,
            predicts_clean: options.flag("predict_x0", true)?,
            uncorrected: uncorrected.into_iter().map(|step| step as usize).collect(),
        })
    }

    /// How many outputs step `index` looks at.
    fn order_at(&self, index: usize, schedule: &Schedule) -> usize {
        let remaining = schedule.steps() - index;
        let order_max = if self.lower_order_final {
            remaining
        } else {
            ORDER_MAX
        };
        self.order.min(order_max).min(index + 1)
    }

    /// From step `index` to the next.
    fn predictor(&self, inner: &Multistep, index: usize) -> Update {
        let order = self.order_at(index, &inner.schedule);
        let stride = Stride::new(self, inner, index, order);
        let mut update = stride.first_order();
        let weights = match order {
            // The solution of one equation is replaced with its limit, as in the paper.
            2 => vec![0.5],
            _ => stride.solve(order - 1),
        };
        for (back, weight) in (1..).zip(weights) {
            let weight = stride.scale * weight / stride.ratios[back - 1];
            update.outputs[back] += weight;
            update.outputs[0] -= weight;
        }
        update
    }

    /// What step `index` does to the result of the one before, if anything: `outputs` are those
    /// before, and the present one has the weight `other`.
    fn corrector(&self, inner: &Multistep, index: usize) -> Option<Update> {
        let before = index.checked_sub(1)?;
        if self.uncorrected.contains(&(inner.schedule.start + before)) {
            return None;
        }
        let order = self.order_at(before, &inner.schedule);
        let stride = Stride::new(self, inner, before, order);
        let mut update = stride.first_order();
        let mut weights = match order {
            1 => vec![0.5],
            _ => stride.solve(order),
        };
        update.other = stride.scale * weights.pop().unwrap_or(0.0);
        update.outputs[0] -= update.other;
        for (back, weight) in (1..).zip(weights) {
            let weight = stride.scale * weight / stride.ratios[back - 1];
            update.outputs[back] += weight;
            update.outputs[0] -= weight;
        }
        Some(update)
    }
}

/// The way from one step to the next, in the methods' time.
struct Stride {
    /// Weights of sample and newest output in first order.
    sample: f64,
    newest: f64,
    /// Weight of all terms of higher order.
    scale: f64,
    /// Where earlier steps lie, and then the next step (1), in units of the stride.
    ratios: Vec<f64>,
    /// Right-hand sides of the order conditions.
    conditions: Vec<f64>,
}

impl Stride {
    fn new(plan: &Plan, inner: &Multistep, index: usize, order: usize) -> Self {
        let (next, here) = (inner.level(index + 1), inner.level(index));
        let lambda = here.lambda();
        let h = next.lambda() - lambda;
        let signed = if plan.predicts_clean { -h } else { h };
        let phi = signed.exp_m1();
        let b = if plan.is_bh2 { phi } else { signed };
        let (sample, weight) = if plan.predicts_clean {
            (next.sigma / here.sigma, next.alpha)
        } else {
            (next.alpha / here.alpha, next.sigma)
        };
        let back = |steps: usize| (inner.level(index - steps).lambda() - lambda) / h;
        let mut conditions = Vec::with_capacity(order);
        let (mut phi_k, mut factorial) = (phi / signed - 1.0, 1.0);
        for i in 1..=order {
            conditions.push(phi_k * factorial / b);
            factorial *= (i + 1) as f64;
            phi_k = phi_k / signed - 1.0 / factorial;
        }
        Self {
            sample,
            newest: -weight * phi,
            scale: -weight * b,
            ratios: (1..order).map(back).chain([1.0]).collect(),
            conditions,
        }
    }

    fn first_order(&self) -> Update {
        Update {
            sample: self.sample,
            outputs: [self.newest, 0.0, 0.0],
            other: 0.0,
        }
    }

    /// Weights of the first `count` differences: those with which all of the first `count`
    /// conditions hold, `Σ ratio^i * weight = condition[i]`.
    fn solve(&self, count: usize) -> Vec<f64> {
        let mut rows: Vec<Vec<f64>> = (0..count)
            .map(|power| {
                let powers = self.ratios[..count].iter().map(|r| r.powi(power as i32));
                powers.chain([self.conditions[power]]).collect()
            })
            .collect();
        for pivot in 0..count {
            let magnitude = |row: &usize| rows[*row][pivot].abs();
            let best = (pivot..count).max_by(|a, b| magnitude(a).total_cmp(&magnitude(b)));
            rows.swap(pivot, best.unwrap_or(pivot));
            let head = rows[pivot].clone();
            for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != pivot) {
                let factor = row[pivot] / head[pivot];
                for (value, head) in row.iter_mut().zip(&head) {
                    *value -= factor * head;
                }
            }
        }
        let solution = rows.iter().enumerate();
        solution.map(|(i, row)| row[count] / row[i]).collect()
    }
}

impl Scheduler for UniPc {
    fn timesteps(&self) -> &[f64] {
        self.inner.schedule.taken()
    }

    fn step(
        &mut self,
        index: usize,
        output: &[f32],
        sample: &mut [f32],
        _: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError> {
        self.inner.check_step(index, output, sample)?;
        let converted = self.convert(index, output, sample);
        if let Some(corrector) = &self.correctors[index] {
            sample.copy_from_slice(&self.last_sample);
            let outputs = self.inner.outputs.iter().map(Vec::as_slice);
            corrector.apply(sample, outputs, Some(&converted));
        }
        self.last_sample.clear();
        self.last_sample.extend_from_slice(sample);
        let outputs = std::iter::once(&converted).chain(&self.inner.outputs);
        self.predictors[index].apply(sample, outputs.map(Vec::as_slice), None);
        self.inner.keep(converted);
        Ok(())
    }

    fn estimate(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        self.inner.estimate(index, output, sample)
    }

    fn add_noise(&self, index: usize, sample: &mut [f32], noise: &[f32]) {
        let Level { alpha, sigma } = self.inner.level(index);
        mix(sample, noise, alpha, sigma);
    }

    /// Converted outputs, the newest first, and the sample that the last step began with.
    fn history(&self) -> Vec<Vec<f32>> {
        let mut history: Vec<Vec<f32>> = self.inner.outputs.iter().cloned().collect();
        if !history.is_empty() {
            history.push(self.last_sample.clone());
        }
        history
    }

    fn restore(&mut self, index: usize, mut history: Vec<Vec<f32>>) -> Result<(), SchedulerError> {
        let sample = history.pop().unwrap_or_default();
        if let Some(output) = history.first() {
            check_length("a tensor of the history", sample.len(), output.len())?;
        }
        self.inner.restore(index, history)?;
        self.last_sample = sample;
        Ok(())
    }

    fn sigma(&self, index: usize) -> f64 {
        self.inner.schedule.sigma(index)
    }
}
