//! Policies, most of them under random histories.

mod history;
mod ledger;
mod load;
mod planner;
mod power;
mod queue;
