//! Worker processes: starting them, talking to them, seeing them end.

mod group;
mod launch;
mod output;
mod supervisor;

pub use group::Group;
pub use launch::{LaunchError, Launched, Launcher};
pub use output::follow;
pub use supervisor::{Handle, exit_of, supervise};
