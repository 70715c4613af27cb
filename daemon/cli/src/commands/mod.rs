//! One file per verb.

pub mod bench;
pub mod clip;
pub mod completions;
pub mod control;
pub mod demo;
pub mod devices;
pub mod doctor;
pub mod embed;
pub mod fetch;
pub mod generate;
pub mod import;
pub mod label;
pub mod models;
pub mod run;
