//! `DPMSolverMultistepScheduler`: DPM-Solver++ and its stochastic twin.
//!
//! Lu et al.: "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
//! 2022, algorithm 2 (2M) and its third-order and SDE variants.

use super::multistep::{Level, Multistep, ORDER_MAX, Path, Update, refuse_dynamic_shift, started};
use super::numeric::{interpolate, linspace, rounded};
use super::options::Options;
use super::predict::Limit;
use super::spacing::{Curve, FinalSigma, Schedule, Spacing, check_timesteps, nearest_timesteps};
use super::training::{BETA_DEFAULTS, BetaSchedule, Training};
use super::{Scheduler, SchedulerError, SchedulerKind, Timing, mix};
use std::collections::VecDeque;

const KIND: SchedulerKind = SchedulerKind::DpmSolverMultistep;
/// Below this many steps, the last ones may be of a lower order (`lower_order_final`).
const FEW_STEPS: usize = 15;

/// How the second-order term is made.
#[derive(Clone, Copy, PartialEq)]
enum Solver {
    Midpoint,
    Heun,
}

/// What decides the order and form of each step.
struct Plan {
    order: usize,
    solver: Solver,
    is_stochastic: bool,
    lower_order_final: bool,
    /// The last step is of first order.
    euler_at_final: bool,
}

pub(super) struct DpmSolver {
    inner: Multistep,
    updates: Vec<Update>,
    is_stochastic: bool,
}

impl DpmSolver {
    pub fn open(options: &Options, steps: usize, request: &Timing) -> Result<Self, SchedulerError> {
        let plan = Plan::read(options)?;
        refuse_dynamic_shift(options, KIND)?;
        let path = Path::read(options)?;
        let schedule = started(schedule(options, steps, request)?, request, steps)?;
        let inner = Multistep {
            kind: KIND,
            schedule,
            path,
            prediction: path.prediction(options, KIND)?,
            limit: Limit::read(options, None)?,
            kept_max: plan.order - 1,
            next: 0,
            outputs: VecDeque::new(),
        };
        inner.check_clean()?;
        let updates: Vec<Update> = (0..inner.schedule.steps())
            .map(|index| plan.update(&inner, index))
            .collect();
        inner.check_updates(updates.iter())?;
        Ok(Self {
            inner,
            updates,
            is_stochastic: plan.is_stochastic,
        })
    }
}

/// Steps and noise levels.
fn schedule(options: &Options, steps: usize, request: &Timing) -> Result<Schedule, SchedulerError> {
    let training = Training::new(options, &BETA_DEFAULTS)?.with_finite_sigmas();
    let curve = Curve::read(options)?;
    let is_lu = options.flag("use_lu_lambdas", false)? && curve != Some(Curve::Karras);
    let is_flow = options.flag("use_flow_sigmas", false)?;
    if is_flow && (curve.is_some() || is_lu) {
        return Err(SchedulerError::Unsupported {
            kind: KIND,
            option: "use_flow_sigmas",
            why: "the other curve that is chosen is not one of flows",
        });
    }
    request.without(KIND, curve.is_some() || is_lu || is_flow, true)?;
    let known = training.sigmas();
    let (timesteps, mut sigmas) = if is_flow {
        flow_levels(options, steps, training.steps())?
    } else if is_lu || curve.is_some() {
        let curve = curve.filter(|_| !is_lu);
        curve_levels(options, curve, &training, steps)?
    } else {
        let timesteps = match &request.timesteps {
            Some(timesteps) => timesteps.iter().copied().map(f64::trunc).collect(),
            None => visited(options, &training, steps)?,
        };
        check_timesteps(&timesteps, training.steps())?;
        let sigmas = timesteps
            .iter()
            .map(|&timestep| interpolate(&known, timestep));
        let sigmas = sigmas.collect();
        (timesteps, sigmas)
    };
    sigmas.push(match FinalSigma::read(options)? {
        FinalSigma::Zero => 0.0,
        FinalSigma::Least => f64::from(known[0]),
    });
    Ok(Schedule {
        timesteps: timesteps.into_iter().map(f64::trunc).collect(),
        sigmas: sigmas.into_iter().map(rounded).collect(),
        start: 0,
    })
}

/// Training steps that are visited, without those noisier than `lambda_min_clipped` allows.
fn visited(
    options: &Options,
    training: &Training,
    steps: usize,
) -> Result<Vec<f64>, SchedulerError> {
    let train = training.steps();
    let lambda_min = options.lower_bound("lambda_min_clipped")?;
    let lambda = |&product: &f32| {
        let product = f64::from(product);
        product.sqrt().ln() - (1.0 - product).sqrt().ln()
    };
    let lambdas = training.alphas_cumprod.iter().map(lambda);
    let clipped = lambdas.filter(|lambda| *lambda < lambda_min).count();
    let offset = options.count("steps_offset", 0, 0..=train)?;
    let spacing = Spacing::read(options, Spacing::Linspace)?;
    if clipped == train {
        return Err(super::options::wrong(
            "lambda_min_clipped",
            "leaves no step",
        ));
    }
    Ok(spacing.multistep(steps, train, train - clipped, offset))
}

/// Noise levels on a curve between the ends of the training (evenly in their logarithm without
/// one), and the training steps nearest to them.
fn curve_levels(
    options: &Options,
    curve: Option<Curve>,
    training: &Training,
    steps: usize,
) -> Result<(Vec<f64>, Vec<f64>), SchedulerError> {
    let known = training.sigmas();
    let ends = (f64::from(known[known.len() - 1]), f64::from(known[0]));
    let sigmas = match curve {
        Some(curve) => curve.bounded(options, ends, steps)?,
        None => Curve::Exponential.sigmas(ends.0, ends.1, steps),
    };
    let is_whole = matches!(curve, None | Some(Curve::Karras));
    let whole = is_whole && training.schedule != BetaSchedule::Cosine;
    Ok((nearest_timesteps(&sigmas, &known, whole), sigmas))
}

/// Noise levels of a shifted flow.
fn flow_levels(
    options: &Options,
    steps: usize,
    train: usize,
) -> Result<(Vec<f64>, Vec<f64>), SchedulerError> {
    let shift = options.number("flow_shift", 1.0, 0.0..=super::flow_match::SHIFT_MAX)?;
    let train = train as f64;
    let alphas = linspace(1.0, 1.0 / train, steps + 1);
    let level = |alpha: &f64| {
        let sigma = 1.0 - alpha;
        shift * sigma / (1.0 + (shift - 1.0) * sigma)
    };
    let sigmas: Vec<f64> = alphas[1..].iter().rev().map(level).collect();
    let timesteps = sigmas.iter().map(|sigma| sigma * train).collect();
    Ok((timesteps, sigmas))
}

impl Plan {
    fn read(options: &Options) -> Result<Self, SchedulerError> {
        let refused = |option, why| SchedulerError::Unsupported {
            kind: KIND,
            option,
            why,
        };
        // `None` is of a deprecated method, which predicts noise.
        let algorithm = options.choice(
            "algorithm_type",
            Some(false),
            &[
                ("dpmsolver++", Some(false)),
                ("deis", Some(false)),
                ("sde-dpmsolver++", Some(true)),
                ("dpmsolver", None),
                ("sde-dpmsolver", None),
            ],
        )?;
        let is_stochastic =
            algorithm.ok_or_else(|| refused("algorithm_type", "diffusers gave it up"))?;
        let solver = options.choice(
            "solver_type",
            Solver::Midpoint,
            &[
                ("midpoint", Solver::Midpoint),
                ("heun", Solver::Heun),
                ("logrho", Solver::Midpoint),
                ("bh1", Solver::Midpoint),
                ("bh2", Solver::Midpoint),
            ],
        )?;
        if options.value("variance_type").is_some() {
            return Err(refused(
                "variance_type",
                "outputs with a variance are not read",
            ));
        }
        let ends_clean = FinalSigma::read(options)? == FinalSigma::Zero;
        Ok(Self {
            order: options.count("solver_order", 2, 1..=ORDER_MAX)?,
            solver,
            is_stochastic,
            lower_order_final: options.flag("lower_order_final", true)?,
            euler_at_final: options.flag("euler_at_final", false)? || ends_clean,
        })
    }

    /// How many outputs step `index` looks at.
    fn order_at(&self, index: usize, schedule: &Schedule) -> usize {
        let is_few = self.lower_order_final && schedule.timesteps.len() < FEW_STEPS;
        let order_max = match schedule.steps() - index {
            1 if self.euler_at_final || is_few => 1,
            2 if is_few => 2,
            _ => ORDER_MAX,
        };
        self.order.min(index + 1).min(order_max)
    }

    /// The weights of step `index`.
    fn update(&self, inner: &Multistep, index: usize) -> Update {
        let order = self.order_at(index, &inner.schedule);
        let (next, here) = (inner.level(index + 1), inner.level(index));
        let lambda = here.lambda();
        let h = next.lambda() - lambda;
        let back = |steps: usize| (lambda - inner.level(index - steps).lambda()) / h;
        let terms = Terms::new(h, next, self.is_stochastic);
        let second = match (self.solver, order) {
            (Solver::Midpoint, 2) => 0.5 * terms.first,
            _ => terms.second,
        };
        // Derivatives are differences of outputs over differences of time, in units of h.
        let outputs = match order {
            1 => [terms.first, 0.0, 0.0],
            2 => {
                let slope = second / back(1);
                [terms.first + slope, -slope, 0.0]
            }
            _ => {
                let (r0, both) = (back(1), back(2));
                let r1 = both - r0;
                let curvature = (second * r0 + terms.third) / both;
                let newer = (second + curvature) / r0;
                let older = -curvature / r1;
                [terms.first + newer, older - newer, -older]
            }
        };
        Update {
            sample: next.sigma / here.sigma * terms.decay,
            outputs,
            other: terms.noise,
        }
    }
}

/// Integrals of the exponential over one step, and of its products with powers of time.
struct Terms {
    /// Weights of the newest output, and of its first and second derivative.
    first: f64,
    second: f64,
    third: f64,
    /// What the sample is multiplied with beyond the ratio of noise.
    decay: f64,
    /// Weight of fresh noise.
    noise: f64,
}

impl Terms {
    /// Of a step of `h` to the level `next`.
    fn new(h: f64, next: Level, is_stochastic: bool) -> Self {
        let Level { alpha, sigma } = next;
        // Noise doubles the rate at which the past is forgotten.
        let rate = if is_stochastic { 2.0 * h } else { h };
        let lost = -(-rate).exp_m1();
        Self {
            first: alpha * lost,
            second: alpha * (1.0 - lost / rate),
            third: alpha * third(rate, lost, is_stochastic),
            decay: if is_stochastic { (-h).exp() } else { 1.0 },
            noise: if is_stochastic {
                sigma * lost.sqrt()
            } else {
                0.0
            },
        }
    }
}

/// The weight of the second derivative. That of the stochastic method has the other sign, as in
/// diffusers.
fn third(rate: f64, lost: f64, is_stochastic: bool) -> f64 {
    let integral = (rate - lost) / (rate * rate) - 0.5;
    if is_stochastic {
        -(integral + 1.0)
    } else {
        -integral
    }
}

impl Scheduler for DpmSolver {
    fn timesteps(&self) -> &[f64] {
        self.inner.schedule.taken()
    }

    fn step(
        &mut self,
        index: usize,
        output: &[f32],
        sample: &mut [f32],
        noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError> {
        self.inner.check_step(index, output, sample)?;
        let clean = self.inner.estimate(index, output, sample);
        let mut drawn = Vec::new();
        if self.is_stochastic {
            drawn.resize(sample.len(), 0.0);
            noise(&mut drawn);
        }
        let outputs = std::iter::once(&clean).chain(&self.inner.outputs);
        let drawn = self.is_stochastic.then_some(&drawn[..]);
        self.updates[index].apply(sample, outputs.map(Vec::as_slice), drawn);
        self.inner.keep(clean);
        Ok(())
    }

    fn estimate(&self, index: usize, output: &[f32], sample: &[f32]) -> Vec<f32> {
        self.inner.estimate(index, output, sample)
    }

    fn add_noise(&self, index: usize, sample: &mut [f32], noise: &[f32]) {
        let Level { alpha, sigma } = self.inner.level(index);
        mix(sample, noise, alpha, sigma);
    }

    /// Estimates of the clean sample, the newest first.
    fn history(&self) -> Vec<Vec<f32>> {
        self.inner.outputs.iter().cloned().collect()
    }

    fn restore(&mut self, index: usize, history: Vec<Vec<f32>>) -> Result<(), SchedulerError> {
        self.inner.restore(index, history)
    }

    fn sigma(&self, index: usize) -> f64 {
        self.inner.schedule.sigma(index)
    }
}
