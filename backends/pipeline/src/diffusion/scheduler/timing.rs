//! What a caller wants of a schedule.

use super::{STEPS_MAX, SchedulerError, SchedulerKind};

/// What a schedule depends on besides the method's configuration and the number of steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timing {
    /// Tokens of the sample, for shifts that depend on its size (`use_dynamic_shifting`).
    pub sequence_length: Option<usize>,
    /// Share of the noise that a given sample is sent back to, above 0, at most 1: the last
    /// `⌊steps * strength⌋` steps are taken. The sample is pure noise without it.
    pub strength: Option<f32>,
    /// Timesteps that a distilled model was trained for, falling; one for each step.
    pub timesteps: Option<Vec<f64>>,
    /// The same as noise levels, before any shift. One for each step; [`SchedulerKind::Euler`] has
    /// another for the end.
    pub sigmas: Option<Vec<f64>>,
    /// Share of fresh noise in each step of [`SchedulerKind::Ddim`], 0 (none) to 1 (as DDPM).
    pub eta: f32,
}

impl Timing {
    /// Checks `steps` and all lists, before anything is made of their sizes.
    pub(super) fn check(
        &self,
        kind: SchedulerKind,
        steps: u32,
        train: usize,
    ) -> Result<usize, SchedulerError> {
        let steps_max = train.min(STEPS_MAX as usize);
        let count = steps as usize;
        if !(1..=steps_max).contains(&count) {
            let why = format!("is {steps}, not 1 to {steps_max}");
            return Err(SchedulerError::timing("steps", why));
        }
        let end = usize::from(kind == SchedulerKind::Euler);
        check_list("timesteps", self.timesteps.as_deref(), count)?;
        check_list("sigmas", self.sigmas.as_deref(), count + end)?;
        let beyond = |&timestep: &f64| timestep > train as f64;
        if self.timesteps.iter().flatten().any(beyond) {
            let why = format!("hold one beyond the {train} of the training");
            return Err(SchedulerError::timing("timesteps", why));
        }
        if !(0.0..=1.0).contains(&self.eta) {
            return Err(SchedulerError::timing("eta", "is not in 0..=1"));
        }
        if self.eta > 0.0 && kind != SchedulerKind::Ddim {
            return Err(SchedulerError::timing(
                "eta",
                format!("is unknown to {kind}"),
            ));
        }
        self.skipped(count)?;
        Ok(count)
    }

    /// Refuses lists that the method cannot be told.
    pub(super) fn without(
        &self,
        kind: SchedulerKind,
        timesteps: bool,
        sigmas: bool,
    ) -> Result<(), SchedulerError> {
        for (field, refused) in [
            ("timesteps", timesteps && self.timesteps.is_some()),
            ("sigmas", sigmas && self.sigmas.is_some()),
        ] {
            if refused {
                let why = format!("cannot be given to {kind} as configured");
                return Err(SchedulerError::timing(field, why));
            }
        }
        Ok(())
    }

    /// How many of `steps` are left out at the start.
    pub(super) fn skipped(&self, steps: usize) -> Result<usize, SchedulerError> {
        let Some(strength) = self.strength else {
            return Ok(0);
        };
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(SchedulerError::timing(
                "strength",
                "is not above 0, at most 1",
            ));
        }
        let taken = (steps as f64 * decimal(strength)) as usize;
        match steps.checked_sub(taken) {
            Some(skipped) if taken > 0 => Ok(skipped),
            _ => Err(SchedulerError::timing(
                "strength",
                format!("leaves none of {steps} steps"),
            )),
        }
    }
}

/// The number that a person wrote: 0.7, not the 0.699999988 that is nearest to it in f32, which
/// would lose a step of ten.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn check_list(
    field: &'static str,
    list: Option<&[f64]>,
    count: usize,
) -> Result<(), SchedulerError> {
    let Some(list) = list else {
        return Ok(());
    };
    if list.len() != count {
        let why = format!("hold {} values, not {count}", list.len());
        return Err(SchedulerError::timing(field, why));
    }
    let falls = list.windows(2).all(|pair| pair[0] > pair[1]);
    if !falls || !list.iter().all(|value| value.is_finite() && *value >= 0.0) {
        return Err(SchedulerError::timing(field, "do not fall to 0 or above"));
    }
    Ok(())
}
