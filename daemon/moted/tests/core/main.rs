//! The core under scripted histories.

mod buffers;
mod clips;
mod control;
mod faults;
mod harness;
mod histories;
mod memory;
mod power;
mod quota;
mod scheduling;
mod steering;
mod streams;
mod trials;
