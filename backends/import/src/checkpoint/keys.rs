//! Named settings of a checkpoint, from JSON or from GGUF metadata, with their ranges checked.

use serde_json::{Map, Value};

use super::CheckpointError;
use crate::gguf::Metadata;

/// Where settings are looked up.
pub(super) enum Keys<'a> {
    /// An object of JSON.
    Json(&'a Map<String, Value>),
    /// Metadata whose keys begin with the architecture's name.
    Gguf(&'a Metadata, &'static str),
}

impl Keys<'_> {
    fn full(&self, name: &str) -> String {
        match self {
            Self::Json(_) => name.to_owned(),
            Self::Gguf(_, architecture) => format!("{architecture}.{name}"),
        }
    }

    /// Whether there is such a setting, of any type.
    pub fn is_set(&self, name: &str) -> bool {
        match self {
            Self::Json(map) => map.get(name).is_some_and(|value| !value.is_null()),
            Self::Gguf(metadata, _) => metadata.get(&self.full(name)).is_some(),
        }
    }

    pub fn unsigned(&self, name: &str) -> Result<Option<u64>, CheckpointError> {
        match self {
            Self::Json(map) => found(map, name, "whole number", Value::as_u64),
            Self::Gguf(metadata, _) => Ok(metadata.integer(&self.full(name))?),
        }
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        match self {
            Self::Json(map) => found(map, name, "number", Value::as_f64),
            Self::Gguf(metadata, _) => Ok(metadata.float(&self.full(name))?),
        }
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, CheckpointError> {
        match self {
            Self::Json(map) => found(map, name, "boolean", Value::as_bool),
            Self::Gguf(metadata, _) => Ok(metadata.bool(&self.full(name))?),
        }
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>, CheckpointError> {
        match self {
            Self::Json(map) => found(map, name, "string", Value::as_str),
            Self::Gguf(metadata, _) => Ok(metadata.text(&self.full(name))?),
        }
    }

    /// A count from 1 to `max`.
    pub fn size(&self, name: &str, max: usize) -> Result<Option<usize>, CheckpointError> {
        let Some(value) = self.unsigned(name)? else {
            return Ok(None);
        };
        match usize::try_from(value) {
            Ok(size) if (1..=max).contains(&size) => Ok(Some(size)),
            _ => Err(self.out_of_range(name, value as f64)),
        }
    }

    /// A count from 0 to `max`; 0 where there is none.
    pub fn size_or_zero(&self, name: &str, max: usize) -> Result<usize, CheckpointError> {
        match self.unsigned(name)? {
            Some(0) | None => Ok(0),
            Some(_) => self.needed(name, max),
        }
    }

    /// A count from 1 to `max` that must be there.
    pub fn needed(&self, name: &str, max: usize) -> Result<usize, CheckpointError> {
        let size = self.size(name, max)?;
        size.ok_or_else(|| self.missing(name))
    }

    /// A positive, finite number.
    pub fn positive(&self, name: &str) -> Result<Option<f32>, CheckpointError> {
        let Some(value) = self.number(name)? else {
            return Ok(None);
        };
        if value.is_finite() && value > 0.0 && value <= f64::from(f32::MAX) {
            Ok(Some(value as f32))
        } else {
            Err(self.out_of_range(name, value))
        }
    }

    /// A positive, finite number that must be there.
    pub fn needed_positive(&self, name: &str) -> Result<f32, CheckpointError> {
        let value = self.positive(name)?;
        value.ok_or_else(|| self.missing(name))
    }

    pub fn missing(&self, name: &str) -> CheckpointError {
        match self {
            Self::Json(_) => CheckpointError::MissingKey {
                key: self.full(name),
            },
            Self::Gguf(..) => CheckpointError::Gguf(crate::gguf::GgufError::MissingKey {
                key: self.full(name),
            }),
        }
    }

    pub fn out_of_range(&self, name: &str, value: f64) -> CheckpointError {
        CheckpointError::OutOfRange {
            key: self.full(name),
            value,
        }
    }

    pub fn unsupported(&self, name: &str) -> CheckpointError {
        CheckpointError::UnsupportedFeature {
            key: self.full(name),
        }
    }

    pub fn unsupported_value(&self, name: &str, value: &str) -> CheckpointError {
        CheckpointError::UnsupportedValue {
            key: self.full(name),
            value: value.to_owned(),
        }
    }
}

fn found<'a, T>(
    map: &'a Map<String, Value>,
    name: &str,
    expected: &'static str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<T>, CheckpointError> {
    match map.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(CheckpointError::WrongType {
                key: name.to_owned(),
                expected,
            }),
        },
    }
}
