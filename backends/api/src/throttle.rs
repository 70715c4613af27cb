//! What slows a machine down.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What slows work down; the stronger one is the greater one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Throttle {
    /// It cannot be told.
    #[default]
    Unknown,
    /// Nothing.
    None,
    /// Power is saved.
    PowerSaver,
    /// Heat.
    Thermal {
        /// Where.
        place: String,
    },
}

/// As receipts say it.
impl fmt::Display for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::None => f.write_str("none"),
            Self::PowerSaver => f.write_str("power-saver"),
            Self::Thermal { place } => write!(f, "thermal ({place})"),
        }
    }
}
