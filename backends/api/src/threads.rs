//! How many threads a model may use, and whether they spin while they wait.

use serde::{Deserialize, Serialize};

/// Threads of one loaded model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// Threads that compute, the calling one included; at least 1.
    pub count: usize,
    /// Whether idle threads spin for work. Spinning buys latency on an idle machine and costs
    /// everybody on a busy one (daemon/ARCHITECTURE.md, "Threads and spinning").
    pub spin: bool,
}

/// What the rest of the machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Load {
    /// Other processes leave the cores free.
    Idle,
    /// Other processes want the cores.
    Busy,
}

impl Default for Threads {
    fn default() -> Self {
        Self::SINGLE
    }
}

impl Threads {
    /// One thread that never spins: right for small graphs and for probes.
    pub const SINGLE: Self = Self {
        count: 1,
        spin: false,
    };

    /// The choice for a machine of `cores` cores under `load`, with at most `limit` threads.
    pub fn choose(cores: usize, limit: Option<usize>, load: Load) -> Self {
        let count = limit.unwrap_or(cores).clamp(1, cores.max(1));
        Self {
            count,
            spin: load == Load::Idle && count > 1,
        }
    }
}
