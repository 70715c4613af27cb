//! The client of Mote for C and C++: a C ABI over `mote-client`.
//!
//! What each function does, who owns what, and what may be called from which thread is said in
//! `include/mote.h`, which is written by hand. This crate keeps to it:
//!
//! - Handles are opaque: a `Box` that C holds, gives back to the matching `mote_*_free`, and lends
//!   for the time of a call.
//! - Structs that may grow begin with their size; [`structs`] holds all of them.
//! - What C hands over is turned into checked Rust values in `door`, the only module with unsafe
//!   code, and refused with `MOTE_ERROR_INVALID` and the argument's name.
//! - No panic crosses the ABI: every function runs inside `call`.

mod buffer;
mod call;
mod client;
mod clip;
pub mod codes;
mod door;
mod embed;
mod error;
mod failure;
mod frame;
mod generate_clip;
mod generation;
mod infer;
mod job;
mod json;
mod label_clip;
mod options;
mod receipt;
mod result;
mod seen;
mod stream;
pub mod structs;
mod tensor;
