//! Options of work from the command line.

use crate::args::{PriorityArg, Work};
use mote_wire::types::{Priority, WorkOptions};

/// As the wire has them.
pub fn options(work: &Work) -> WorkOptions {
    WorkOptions {
        priority: match work.priority {
            PriorityArg::Interactive => Priority::Interactive,
            PriorityArg::Normal => Priority::Normal,
            PriorityArg::Background => Priority::Background,
        },
        deadline_ms: work.deadline_ms,
        require_backend: work.backend.clone(),
        require_flavour: work.flavour.clone(),
        require_provider: work.provider.clone(),
        require_variant: work.variant.clone(),
        forbid_cpu: work.forbid_cpu,
        threads_max: work.threads,
        credit: mote_wire::limits::CREDIT_MAX,
    }
}
