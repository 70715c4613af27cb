//! Why a call fails, as an error of the bus.

use crate::values::{Dict, dict};
use mote_wire::types::Status;
use std::borrow::Cow;

/// Why a call fails. The error's body is a text for people and a dictionary of fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The daemon's own answer.
    #[error(transparent)]
    Status(#[from] Status),
    /// `use:` something nobody has set.
    #[error("no model is set for use:{name}")]
    UseNotFound {
        /// What was asked for.
        name: String,
        /// What is set.
        known: Vec<String>,
    },
    /// polkit, or the lack of it, says no.
    #[error("not authorised for {action}: {why}")]
    NotAuthorized {
        /// polkit's name of it.
        action: &'static str,
        /// Why.
        why: String,
    },
    /// There is no such object, or none that this caller may see.
    #[error("there is no object {path}")]
    NoObject {
        /// Its path.
        path: String,
    },
    /// The object has no such interface.
    #[error("it has no interface {name}")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// The interface has no such method.
    #[error("it has no method {name}")]
    NoMethod {
        /// Its name.
        name: String,
    },
    /// The interface has no such property.
    #[error("it has no property {name}")]
    NoProperty {
        /// Its name.
        name: String,
    },
    /// All properties are for reading only.
    #[error("{name} cannot be set")]
    ReadOnly {
        /// The property.
        name: String,
    },
    /// Arguments of other types.
    #[error("the arguments are ({wanted}), not ({got})")]
    Arguments {
        /// What the method takes.
        wanted: String,
        /// What came.
        got: String,
    },
    /// The message's body does not hold what its header says.
    #[error("the arguments cannot be read: {cause}")]
    Malformed {
        /// What the library found.
        cause: String,
    },
}

impl Failure {
    /// Something over a limit.
    pub fn over(what: &str, have: usize, limit: usize) -> Self {
        Self::Status(Status::LimitExceeded {
            what: what.into(),
            have: have as u64,
            limit: limit as u64,
        })
    }

    /// The error's name.
    pub fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Status(status) => return Cow::Owned(error_name(status.code())),
            Self::UseNotFound { .. } => "org.moted.Error.UseNotFound",
            Self::NotAuthorized { .. } => "org.moted.Error.NotAuthorized",
            Self::NoObject { .. } => "org.freedesktop.DBus.Error.UnknownObject",
            Self::NoInterface { .. } => "org.freedesktop.DBus.Error.UnknownInterface",
            Self::NoMethod { .. } => "org.freedesktop.DBus.Error.UnknownMethod",
            Self::NoProperty { .. } => "org.freedesktop.DBus.Error.UnknownProperty",
            Self::ReadOnly { .. } => "org.freedesktop.DBus.Error.PropertyReadOnly",
            Self::Arguments { .. } | Self::Malformed { .. } => {
                "org.freedesktop.DBus.Error.InvalidArgs"
            }
        })
    }

    /// The error's fields.
    pub fn fields(&self) -> Dict {
        match self {
            Self::Status(status) => status_fields(status),
            Self::UseNotFound { name, known } => Dict::from([
                ("use".into(), name.clone().into()),
                ("known".into(), known.clone().into()),
            ]),
            Self::NotAuthorized { action, why } => Dict::from([
                ("action".into(), (*action).into()),
                ("why".into(), why.clone().into()),
            ]),
            _ => Dict::new(),
        }
    }
}

/// The fields of a status.
pub fn status_fields(status: &Status) -> Dict {
    let mut fields = dict(status);
    // It is the error's name already.
    fields.remove("status");
    fields
}

/// `model_not_found` is `org.moted.Error.ModelNotFound`.
fn error_name(code: &str) -> String {
    let mut name = String::from("org.moted.Error.");
    for word in code.split('_') {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_its_name_and_fields() {
        let failure = Failure::from(Status::ModelNotFound {
            model: "m".into(),
            similar: vec!["n".into()],
        });
        assert_eq!(failure.name(), "org.moted.Error.ModelNotFound");
        let fields = failure.fields();
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["model", "similar"]);
        assert_eq!(fields["model"], "m".into());
    }
}
