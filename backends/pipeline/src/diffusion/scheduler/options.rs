//! Typed access to the options of a `scheduler_config.json`.

use super::{CONFIG_BYTES_MAX, SchedulerError};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// Every option of the schedulers of diffusers 0.42.1 that can stand in for one another. A
/// configuration often holds options of a method other than its own (`skip_prk_steps` beside an
/// Euler method); diffusers ignores those, and so do we.
const KNOWN: &str = "
    algorithm_type base_image_seq_len base_shift beta_end beta_schedule beta_start clip_sample
    clip_sample_range disable_corrector dynamic_thresholding_ratio euler_at_final
    final_sigmas_type flow_shift interpolation_type invert_sigmas lambda_min_clipped
    lower_order_final max_image_seq_len max_shift noise_sampler_seed num_train_timesteps
    original_inference_steps predict_x0 prediction_type rescale_betas_zero_snr sample_max_value
    set_alpha_to_one shift shift_terminal sigma_max sigma_min skip_prk_steps solver_order
    solver_p solver_type steps_offset stochastic_sampling thresholding time_shift_type
    timestep_scaling timestep_spacing timestep_type trained_betas use_beta_sigmas
    use_dynamic_shifting use_exponential_sigmas use_flow_sigmas use_karras_sigmas use_lu_lambdas
    variance_type";

/// The numbers that Python writes and JSON does not have.
const BARE: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The options of one configuration. An option that is absent or null has its default.
#[derive(Clone, Debug)]
pub(super) struct Options(Map<String, Value>);

impl Options {
    pub fn parse(json: &[u8]) -> Result<Self, SchedulerError> {
        if json.len() > CONFIG_BYTES_MAX {
            return Err(SchedulerError::TooLarge {
                bytes: json.len(),
                bytes_max: CONFIG_BYTES_MAX,
            });
        }
        let quoted = quote_bare(json);
        let map: Map<String, Value> =
            serde_json::from_slice(&quoted).map_err(SchedulerError::Malformed)?;
        let known = |name: &str| KNOWN.split_ascii_whitespace().any(|option| option == name);
        match map
            .keys()
            .find(|name| !name.starts_with('_') && !known(name))
        {
            Some(name) => Err(SchedulerError::UnknownOption {
                option: name.clone(),
            }),
            None => Ok(Self(map)),
        }
    }

    /// The diffusers class that the configuration was written by.
    pub fn class(&self) -> Option<&str> {
        self.0.get("_class_name")?.as_str()
    }

    /// Sets an option.
    pub fn set(&mut self, option: &'static str, value: impl Into<Value>) {
        self.0.insert(option.to_owned(), value.into());
    }

    pub fn value(&self, option: &'static str) -> Option<&Value> {
        self.0.get(option).filter(|value| !value.is_null())
    }

    pub fn flag(&self, option: &'static str, default: bool) -> Result<bool, SchedulerError> {
        match self.value(option) {
            None => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or(wrong(option, "is neither true nor false")),
        }
    }

    pub fn maybe_number(&self, option: &'static str) -> Result<Option<f64>, SchedulerError> {
        let finite = |value: &Value| value.as_f64().filter(|number| number.is_finite());
        let value = self.value(option);
        let number = |value| finite(value).ok_or(wrong(option, "is no finite number"));
        value.map(number).transpose()
    }

    /// A number of `range`.
    pub fn number(
        &self,
        option: &'static str,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f64, SchedulerError> {
        let number = self.maybe_number(option)?.unwrap_or(default);
        if range.contains(&number) {
            Ok(number)
        } else {
            Err(wrong(option, "is out of range"))
        }
    }

    /// A number that may be minus infinity.
    pub fn lower_bound(&self, option: &'static str) -> Result<f64, SchedulerError> {
        match self.value(option).map(Value::as_str) {
            None | Some(Some("-Infinity")) => Ok(f64::NEG_INFINITY),
            Some(_) => self.number(option, 0.0, f64::MIN..=f64::MAX),
        }
    }

    pub fn count(
        &self,
        option: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, SchedulerError> {
        let count = match self.value(option) {
            None => Some(default),
            Some(value) => value.as_u64().and_then(|count| usize::try_from(count).ok()),
        };
        let count = count.filter(|count| range.contains(count));
        count.ok_or(wrong(option, "is no whole number in its range"))
    }

    /// What `choices` gives for the option's text.
    pub fn choice<T: Copy>(
        &self,
        option: &'static str,
        default: T,
        choices: &[(&str, T)],
    ) -> Result<T, SchedulerError> {
        let Some(value) = self.value(option) else {
            return Ok(default);
        };
        let text = value.as_str().unwrap_or_default();
        let found = choices.iter().find(|(name, _)| *name == text);
        found
            .map(|&(_, choice)| choice)
            .ok_or(wrong(option, "is none of the values that it may have"))
    }

    /// A list of finite numbers, at most `count_max` of them.
    pub fn numbers(
        &self,
        option: &'static str,
        count_max: usize,
    ) -> Result<Option<Vec<f64>>, SchedulerError> {
        let Some(value) = self.value(option) else {
            return Ok(None);
        };
        let list = value.as_array().ok_or(wrong(option, "is no list"))?;
        if list.len() > count_max {
            return Err(wrong(option, "is too long"));
        }
        let numbers: Option<Vec<f64>> = list.iter().map(Value::as_f64).collect();
        let numbers = numbers.filter(|numbers| numbers.iter().all(|number| number.is_finite()));
        numbers
            .map(Some)
            .ok_or(wrong(option, "holds something that is no finite number"))
    }
}

pub(super) fn wrong(option: &'static str, why: &'static str) -> SchedulerError {
    SchedulerError::Option { option, why }
}

/// The same JSON with Python's bare `Infinity` and `NaN` as strings.
fn quote_bare(json: &[u8]) -> Vec<u8> {
    let mut quoted = Vec::with_capacity(json.len());
    let mut rest = json;
    let mut in_string = false;
    while let Some((&byte, after)) = rest.split_first() {
        let bare = BARE.iter().find(|word| rest.starts_with(word.as_bytes()));
        if let (false, Some(word)) = (in_string, bare) {
            quoted.extend_from_slice(format!("\"{word}\"").as_bytes());
            rest = &rest[word.len()..];
            continue;
        }
        quoted.push(byte);
        rest = after;
        if in_string && byte == b'\\' {
            if let Some((&escaped, after)) = rest.split_first() {
                quoted.push(escaped);
                rest = after;
            }
        } else if byte == b'"' {
            in_string = !in_string;
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_infinities_are_read_outside_of_strings_only() {
        let json =
            br#"{"lambda_min_clipped": -Infinity, "_note": "NaN \" Infinity", "shift": NaN}"#;
        let want =
            br#"{"lambda_min_clipped": "-Infinity", "_note": "NaN \" Infinity", "shift": "NaN"}"#;
        assert_eq!(quote_bare(json), want);
        let options = Options::parse(json).unwrap();
        let bound = options.lower_bound("lambda_min_clipped").unwrap();
        assert_eq!(bound, f64::NEG_INFINITY);
        assert!(options.maybe_number("shift").is_err());
    }
}
