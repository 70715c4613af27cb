//! Options of work.

use crate::codes::*;
use crate::door::Given;
use crate::failure::Failure;
use crate::structs::Options;
use mote_client::{Priority, WorkOptions};

/// What C asks for; all left to the daemon when it gives no options.
pub(crate) fn options(given: Given<'_, Options<'_>>) -> Result<WorkOptions, Failure> {
    let Some(given) = given.optional("options")? else {
        return Ok(WorkOptions::default());
    };
    let text = |text: crate::door::Text<'_>, name: &str| -> Result<Option<String>, Failure> {
        Ok(text.optional(name)?.map(str::to_owned))
    };
    Ok(WorkOptions {
        priority: match given.priority {
            MOTE_PRIORITY_DEFAULT | MOTE_PRIORITY_NORMAL => Priority::Normal,
            MOTE_PRIORITY_INTERACTIVE => Priority::Interactive,
            MOTE_PRIORITY_BACKGROUND => Priority::Background,
            other => return Err(Failure::invalid("options.priority", unknown(other))),
        },
        deadline_ms: unless_zero(given.deadline_ms),
        require_backend: text(given.require_backend, "options.require_backend")?,
        require_flavour: text(given.require_flavour, "options.require_flavour")?,
        require_provider: text(given.require_provider, "options.require_provider")?,
        require_variant: text(given.require_variant, "options.require_variant")?,
        forbid_cpu: given.forbid_cpu != 0,
        threads_max: unless_zero(given.threads_max),
        credit: given.credit,
    })
}

/// A number for which 0 stands for "not given".
pub(crate) fn unless_zero<N: Default + PartialEq>(number: N) -> Option<N> {
    Some(number).filter(|number| *number != N::default())
}

/// Why a number is refused that no constant has.
pub(crate) fn unknown(number: i32) -> String {
    format!("{number} is none of the constants")
}

/// Refuses flags that a later version of the header has.
pub(crate) fn no_flags(flags: u32, name: impl std::fmt::Display) -> Result<(), Failure> {
    if flags == 0 {
        Ok(())
    } else {
        Err(Failure::invalid(name, "must be 0"))
    }
}
