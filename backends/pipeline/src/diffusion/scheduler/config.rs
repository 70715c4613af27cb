//! A model's `scheduler_config.json`.

use super::ddim::Ddim;
use super::dpm::DpmSolver;
use super::euler::Euler;
use super::flow_match::FlowMatchEuler;
use super::lcm::Lcm;
use super::options::Options;
use super::training::train_timesteps;
use super::unipc::UniPc;
use super::{Scheduler, SchedulerError, SchedulerKind, Timing};

/// Steps and tokens of the schedule that shows whether a configuration can be used.
const PROBE_STEPS: u32 = 2;
const PROBE_SEQUENCE: usize = 256;

/// How a model is sampled: the options of a `scheduler_config.json`.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    options: Options,
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`, at most [`super::CONFIG_BYTES_MAX`] long.
    ///
    /// # Errors
    /// No JSON object; an option that no method has; an option of the configuration's own method
    /// that is malformed or not supported. A class that is not supported is an error of
    /// [`Self::open`] only, as another may be asked for.
    pub fn parse(json: &[u8]) -> Result<Self, SchedulerError> {
        let config = Self {
            options: Options::parse(json)?,
        };
        if config.kind().is_ok() {
            let timing = Timing {
                sequence_length: Some(PROBE_SEQUENCE),
                ..Timing::default()
            };
            match config.open(None, PROBE_STEPS, &timing) {
                // This many steps may be too many or too few for it.
                Ok(_) | Err(SchedulerError::Timing { .. } | SchedulerError::Undefined { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(config)
    }

    /// The method that the configuration was written for.
    ///
    /// # Errors
    /// It names none that is supported.
    pub fn kind(&self) -> Result<SchedulerKind, SchedulerError> {
        self.options.class().unwrap_or_default().parse()
    }

    /// Steps of the model's training: what `boundary_ratio` of two-expert models is a share of.
    ///
    /// # Errors
    /// The option is malformed.
    pub fn train_timesteps(&self) -> Result<usize, SchedulerError> {
        train_timesteps(&self.options)
    }

    /// A schedule of `steps` steps, or fewer where `request` has a strength below 1, with the method
    /// `kind` instead of the configuration's own. Nothing is allocated before `steps` and the
    /// lists of `request` are checked.
    ///
    /// Flow models can be sampled with [`SchedulerKind::FlowMatchEuler`],
    /// [`SchedulerKind::DpmSolverMultistep`] and [`SchedulerKind::UniPcMultistep`], other models
    /// with all but the first. The options of one are those of another by the same name; a flow's
    /// `shift` is the `flow_shift` of the others.
    ///
    /// # Errors
    /// The method is not supported, not for such a model, or not with these options; `steps` or
    /// `request` is out of range or not for such a method; a step would divide by zero.
    pub fn open(
        &self,
        kind: Option<SchedulerKind>,
        steps: u32,
        request: &Timing,
    ) -> Result<Box<dyn Scheduler>, SchedulerError> {
        let kind = kind.map_or_else(|| self.kind(), Ok)?;
        let count = request.check(kind, steps, train_timesteps(&self.options)?)?;
        let options = self.options_for(kind)?;
        Ok(match kind {
            SchedulerKind::FlowMatchEuler => {
                Box::new(FlowMatchEuler::open(&options, count, request)?)
            }
            SchedulerKind::Lcm => Box::new(Lcm::open(&options, count, request)?),
            SchedulerKind::Ddim => Box::new(Ddim::open(&options, count, request)?),
            SchedulerKind::Euler => Box::new(Euler::open(&options, count, request)?),
            SchedulerKind::DpmSolverMultistep => {
                Box::new(DpmSolver::open(&options, count, request)?)
            }
            SchedulerKind::UniPcMultistep => Box::new(UniPc::open(&options, count, request)?),
        })
    }

    /// The options as `kind` names them.
    fn options_for(&self, kind: SchedulerKind) -> Result<Options, SchedulerError> {
        let class = self.options.class().unwrap_or_default();
        let is_straight = class.starts_with("FlowMatch");
        let is_flow = is_straight || self.options.flag("use_flow_sigmas", false)?;
        let may = match kind {
            SchedulerKind::FlowMatchEuler => is_flow || class.is_empty(),
            SchedulerKind::DpmSolverMultistep | SchedulerKind::UniPcMultistep => true,
            SchedulerKind::Lcm | SchedulerKind::Ddim | SchedulerKind::Euler => !is_flow,
        };
        if !may {
            let made_for = if class.is_empty() {
                "flow matching"
            } else {
                class
            };
            return Err(SchedulerError::Family {
                kind,
                made_for: made_for.to_owned(),
            });
        }
        let mut options = self.options.clone();
        if is_straight && kind != SchedulerKind::FlowMatchEuler {
            self.refuse_of_flow(kind)?;
            options.set("use_flow_sigmas", true);
            options.set("prediction_type", "flow_prediction");
            options.set(
                "flow_shift",
                self.options.number("shift", 1.0, 0.0..=f64::MAX)?,
            );
        } else if !is_straight && kind == SchedulerKind::FlowMatchEuler && !class.is_empty() {
            let shift = self.options.number("flow_shift", 1.0, 0.0..=f64::MAX)?;
            options.set("shift", shift);
        }
        Ok(options)
    }

    /// Refuses what only [`SchedulerKind::FlowMatchEuler`] can do.
    fn refuse_of_flow(&self, kind: SchedulerKind) -> Result<(), SchedulerError> {
        for option in ["invert_sigmas", "stochastic_sampling"] {
            if self.options.flag(option, false)? {
                let why = "only FlowMatchEulerDiscreteScheduler has it";
                return Err(SchedulerError::Unsupported { kind, option, why });
            }
        }
        let is_dpm = kind == SchedulerKind::DpmSolverMultistep;
        if is_dpm && self.options.value("shift_terminal").is_some() {
            return Err(SchedulerError::Unsupported {
                kind,
                option: "shift_terminal",
                why: "only FlowMatchEulerDiscreteScheduler and UniPCMultistepScheduler have it",
            });
        }
        Ok(())
    }
}
