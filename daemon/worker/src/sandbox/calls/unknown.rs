//! An architecture without a table: no filter is installed, and the report says so.

use super::{Architecture, Table};

/// None.
pub const ARCHITECTURE: Option<Architecture> = None;

/// None.
pub const TABLES: &[Table] = &[];
