//! Metadata values and typed access to them.

use std::collections::BTreeMap;

use super::GgufError;

/// One metadata value. Integer and float widths are folded together.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// u8, u16, u32 or u64.
    Unsigned(u64),
    /// i8, i16, i32 or i64.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// Boolean.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// Array of one element type.
    Array(Array),
}

/// A metadata array.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Elements of an unsigned type.
    Unsigned(Vec<u64>),
    /// Elements of a signed type.
    Signed(Vec<i64>),
    /// Elements of a float type.
    Float(Vec<f64>),
    /// Booleans.
    Bool(Vec<bool>),
    /// UTF-8 texts.
    Text(Vec<String>),
}

impl Value {
    /// The name of the value's type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Unsigned(_) => "unsigned integer",
            Self::Signed(_) => "signed integer",
            Self::Float(_) => "float",
            Self::Bool(_) => "boolean",
            Self::Text(_) => "text",
            Self::Array(Array::Unsigned(_)) => "array of unsigned integers",
            Self::Array(Array::Signed(_)) => "array of signed integers",
            Self::Array(Array::Float(_)) => "array of floats",
            Self::Array(Array::Bool(_)) => "array of booleans",
            Self::Array(Array::Text(_)) => "array of texts",
        }
    }
}

/// All metadata of a file, by key.
#[derive(Debug, Clone, Default)]
pub struct Metadata(pub(super) BTreeMap<String, Value>);

impl Metadata {
    /// The value of `key`, if present.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The non-negative integer at `key`, or `None` when the key is absent.
    pub fn integer(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "non-negative integer", |value| match value {
            Value::Unsigned(number) => Some(*number),
            Value::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// The float at `key`, or `None` when the key is absent.
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "float", |value| match value {
            Value::Float(number) => Some(*number),
            _ => None,
        })
    }

    /// The boolean at `key`, or `None` when the key is absent.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "boolean", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// The text at `key`, or `None` when the key is absent.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The texts at `key`, or `None` when the key is absent.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "array of texts", |value| match value {
            Value::Array(Array::Text(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// The signed integers at `key`, or `None` when the key is absent.
    pub fn signed_array(&self, key: &str) -> Result<Option<&[i64]>, GgufError> {
        self.typed(key, "array of signed integers", |value| match value {
            Value::Array(Array::Signed(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// The floats at `key`, or `None` when the key is absent.
    pub fn float_array(&self, key: &str) -> Result<Option<&[f64]>, GgufError> {
        self.typed(key, "array of floats", |value| match value {
            Value::Array(Array::Float(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        cast: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.0.get(key) else {
            return Ok(None);
        };
        match cast(value) {
            Some(cast) => Ok(Some(cast)),
            None => Err(GgufError::WrongType {
                key: key.to_owned(),
                expected,
                found: value.type_name(),
            }),
        }
    }
}

/// Turns the absence of `key` into an error.
pub fn required<T>(key: &str, value: Option<T>) -> Result<T, GgufError> {
    value.ok_or_else(|| GgufError::MissingKey {
        key: key.to_owned(),
    })
}
