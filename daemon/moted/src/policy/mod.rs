//! Policy as plain structs: no I/O, no clock, no tasks. The core asks them and acts.

pub mod history;
pub mod ledger;
pub mod load;
pub mod planner;
pub mod power;
pub mod queue;
pub mod timers;
pub mod trials;
pub mod turns;
