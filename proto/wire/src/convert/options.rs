//! What every piece of work may ask for.

use super::{Parsed, invalid, optional_name, unless_zero};
use crate::limits::CREDIT_MAX;
use crate::pb;
use crate::types::{Priority, WorkOptions};

pub(super) fn parse(options: Option<pb::WorkOptions>) -> Parsed<WorkOptions> {
    let options = options.unwrap_or_default();
    let priority = match pb::Priority::try_from(options.priority) {
        Ok(pb::Priority::Unspecified | pb::Priority::Normal) => Priority::Normal,
        Ok(pb::Priority::Interactive) => Priority::Interactive,
        Ok(pb::Priority::Background) => Priority::Background,
        Err(_) => return Err(invalid("options.priority", "it is unknown")),
    };
    Ok(WorkOptions {
        priority,
        deadline_ms: unless_zero(options.deadline_ms),
        require_backend: optional_name("options.require_backend", options.require_backend)?,
        require_flavour: optional_name("options.require_flavour", options.require_flavour)?,
        require_provider: optional_name("options.require_provider", options.require_provider)?,
        require_variant: optional_name("options.require_variant", options.require_variant)?,
        forbid_cpu: options.forbid_cpu,
        threads_max: unless_zero(options.threads_max),
        credit: parse_credit(options.credit),
    })
}

/// 0 takes the maximum.
pub(super) fn parse_credit(credit: u32) -> u32 {
    match credit {
        0 => CREDIT_MAX,
        credit => credit.min(CREDIT_MAX),
    }
}

pub(super) fn write(options: WorkOptions) -> Option<pb::WorkOptions> {
    let priority = match options.priority {
        Priority::Interactive => pb::Priority::Interactive,
        Priority::Normal => pb::Priority::Normal,
        Priority::Background => pb::Priority::Background,
    };
    Some(pb::WorkOptions {
        priority: priority.into(),
        deadline_ms: options.deadline_ms.unwrap_or_default(),
        require_backend: options.require_backend.unwrap_or_default(),
        require_flavour: options.require_flavour.unwrap_or_default(),
        require_provider: options.require_provider.unwrap_or_default(),
        require_variant: options.require_variant.unwrap_or_default(),
        forbid_cpu: options.forbid_cpu,
        threads_max: options.threads_max.unwrap_or_default(),
        credit: options.credit,
    })
}
