//! The `options` every method ends in.

use crate::limits::OPTIONS_MAX;
use mote_wire::types::{Constraint, LogitBias, Priority, Reasoning, Sampling, Status, WorkOptions};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use zbus::{OwnedVariant, Variant};

/// Options as they came. What is left when all that are known were taken is an error: an option
/// that is ignored would be taken for granted.
#[derive(Debug)]
pub struct Options(BTreeMap<String, OwnedVariant>);

impl Options {
    /// From a message's argument.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(options: BTreeMap<String, OwnedVariant>) -> Result<Self, Status> {
        if options.len() > OPTIONS_MAX {
            return Err(Status::LimitExceeded {
                what: "options".into(),
                have: options.len() as u64,
                limit: OPTIONS_MAX as u64,
            });
        }
        Ok(Self(options))
    }

    /// None are left.
    ///
    /// # Errors
    /// [`Status::Invalid`] that names one.
    pub fn finish(self) -> Result<(), Status> {
        match self.0.into_keys().next() {
            Some(name) => {
                // Names come from outside and may be long.
                let name: String = name.chars().take(64).collect();
                Err(invalid(&name, "there is no such option"))
            }
            None => Ok(()),
        }
    }

    fn take<T>(
        &mut self,
        name: &str,
        kind: &str,
        read: impl FnOnce(Variant<'static>) -> Option<T>,
    ) -> Result<Option<T>, Status> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        let mut value = Variant::from(value);
        // Some libraries wrap values twice.
        while let Variant::Variant(inner) = value {
            value = *inner;
        }
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(invalid(name, format_args!("it is {kind}"))),
        }
    }

    /// A text.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Status> {
        self.take(name, "a text (s)", |value| match value {
            Variant::Str(text) => Some(text.as_str().to_owned()),
            _ => None,
        })
    }

    /// Texts.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Status> {
        self.take(name, "a list of texts (as)", |value| {
            Vec::<String>::try_from(value).ok()
        })
    }

    /// A truth value.
    pub fn flag(&mut self, name: &str) -> Result<Option<bool>, Status> {
        self.take(name, "true or false (b)", |value| match value {
            Variant::Bool(value) => Some(value),
            _ => None,
        })
    }

    /// A whole number of any type.
    pub fn count<T: TryFrom<i128>>(&mut self, name: &str) -> Result<Option<T>, Status> {
        self.take(name, "a whole number in range", |value| {
            T::try_from(whole(&value)?).ok()
        })
    }

    /// A number of any type.
    pub fn number(&mut self, name: &str) -> Result<Option<f32>, Status> {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "the wire has single precision here"
        )]
        self.take(name, "a number (d)", |value| match value {
            Variant::F64(value) => Some(value as f32),
            other => Some(whole(&other)? as f32),
        })
    }

    /// Numbers by token.
    pub fn bias(&mut self, name: &str) -> Result<Vec<LogitBias>, Status> {
        let given = self.take(name, "numbers by token (a{ud})", |value| {
            BTreeMap::<u32, f64>::try_from(value).ok()
        })?;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the wire has single precision here"
        )]
        let bias = |(token_id, bias)| LogitBias {
            token_id,
            bias: bias as f32,
        };
        Ok(given.unwrap_or_default().into_iter().map(bias).collect())
    }

    /// A descriptor.
    pub fn descriptor(&mut self, name: &str) -> Result<Option<OwnedFd>, Status> {
        self.take(name, "a descriptor (h)", |value| match value {
            Variant::Fd(fd) => OwnedFd::try_from(fd).ok(),
            _ => None,
        })
    }

    /// What every piece of work may ask for.
    pub fn work(&mut self, credit: u32) -> Result<WorkOptions, Status> {
        let priority = match self.text("priority")?.as_deref() {
            None | Some("normal") => Priority::Normal,
            Some("interactive") => Priority::Interactive,
            Some("background") => Priority::Background,
            Some(_) => {
                let why = "it is interactive, normal or background";
                return Err(invalid("priority", why));
            }
        };
        Ok(WorkOptions {
            priority,
            deadline_ms: self.count("deadline_ms")?.filter(|ms| *ms > 0),
            require_backend: self.text("require_backend")?,
            require_flavour: self.text("require_flavour")?,
            require_provider: self.text("require_provider")?,
            require_variant: self.text("require_variant")?,
            forbid_cpu: self.flag("forbid_cpu")?.unwrap_or(false),
            threads_max: self.count("threads_max")?.filter(|threads| *threads > 0),
            credit,
        })
    }

    /// What form an answer must have.
    pub fn constraint(&mut self) -> Result<Option<Constraint>, Status> {
        match (self.text("json_schema")?, self.text("regex")?) {
            (Some(_), Some(_)) => Err(invalid("regex", "there is json_schema as well")),
            (Some(schema), None) => Ok(Some(Constraint::JsonSchema(schema))),
            (None, regex) => Ok(regex.map(Constraint::Regex)),
        }
    }

    /// Whether reasoning is told apart, and how much of it there may be.
    pub fn reasoning(&mut self) -> Result<Option<Reasoning>, Status> {
        let is_apart = self.flag("reasoning")?.unwrap_or(false);
        let tokens_max = self.count("reasoning_tokens_max")?;
        if tokens_max.is_some() && !is_apart {
            let why = "it takes the option reasoning";
            return Err(invalid("reasoning_tokens_max", why));
        }
        Ok(is_apart.then_some(Reasoning { tokens_max }))
    }

    /// How tokens are drawn.
    pub fn sampling(&mut self) -> Result<Sampling, Status> {
        Ok(Sampling {
            temperature: self.number("temperature")?,
            top_k: self.count("top_k")?,
            top_p: self.number("top_p")?,
            min_p: self.number("min_p")?,
            repetition_penalty: self.number("repetition_penalty")?,
            seed: self.count("seed")?,
        })
    }
}

/// [`Status::Invalid`] for an option.
pub fn invalid(name: &str, why: impl std::fmt::Display) -> Status {
    Status::invalid(format!("options[{name}]"), why)
}

fn whole(value: &Variant<'_>) -> Option<i128> {
    Some(match value {
        Variant::U8(value) => (*value).into(),
        Variant::I16(value) => (*value).into(),
        Variant::U16(value) => (*value).into(),
        Variant::I32(value) => (*value).into(),
        Variant::U32(value) => (*value).into(),
        Variant::I64(value) => (*value).into(),
        Variant::U64(value) => (*value).into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(given: &[(&str, Variant<'static>)]) -> Options {
        let owned = given.iter().map(|(name, value)| {
            let value = value.try_to_owned().expect("no descriptor");
            ((*name).to_owned(), value)
        });
        Options::new(owned.collect()).expect("few")
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = options(&[("temprature", 1.0.into())]).finish();
        assert_eq!(
            refused,
            Err(invalid("temprature", "there is no such option"))
        );
    }

    #[test]
    fn numbers_by_token_are_taken() {
        let given = BTreeMap::from([(7_u32, -100.0_f64), (9, 0.5)]);
        let bias = |token_id, bias| LogitBias { token_id, bias };
        assert_eq!(
            options(&[("b", zbus::Dict::from(given).into())]).bias("b"),
            Ok(vec![bias(7, -100.0), bias(9, 0.5)])
        );
        assert_eq!(options(&[]).bias("b"), Ok(Vec::new()));
        let refused = options(&[("b", 7.into())]).bias("b");
        assert!(
            matches!(refused, Err(Status::Invalid { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn numbers_of_any_type_are_taken_and_others_refused() {
        for value in [Variant::from(7_u8), 7_i32.into(), 7_u64.into()] {
            assert_eq!(options(&[("n", value)]).count("n"), Ok(Some(7_u32)));
        }
        for value in [Variant::from(-7), u64::MAX.into(), "7".into(), 7.0.into()] {
            let refused = options(&[("n", value)]).count::<u32>("n");
            assert!(
                matches!(refused, Err(Status::Invalid { .. })),
                "{refused:?}"
            );
        }
        assert_eq!(options(&[("n", 7.into())]).number("n"), Ok(Some(7.0)));
        let wrapped = Variant::Variant(Box::new("x".into()));
        assert_eq!(options(&[("n", wrapped)]).text("n"), Ok(Some("x".into())));
    }
}
