//! ONNX Runtime behind Mote's backend traits.
//!
//! The library is loaded at run time from a path ([`OrtBackend::load`]); nothing links it. One
//! process holds one such library, which is a rule of the library itself.
//!
//! * `backend`: loading the library, its logging, [`OrtBackend`].
//! * `providers`: the table of execution providers and how each is registered.
//! * `options`, `migraphx`: the options that they have.
//! * `plugins`: libraries that bring providers, in the table or beyond it.
//! * `probe`: runs a tiny model on each provider and says what works.
//! * `compiled`: what providers compile, kept between loads.
//! * `profile`: the library's own account of its runs.
//! * `engine`: one compiled ONNX Runtime session and the turn that its runs take.
//! * `operators`: operators of our own, which every session knows.
//! * `model`, `session`, `cancel`: the traits.
//! * `states`, `mover`: state in memory of a device, and how it is filled and read.
//! * `failure`: what the library's messages mean, as typed errors.
//! * `sys`: the only unsafe code; `sys/device` for memory of devices.
//!
//! **Memory.** Inputs and outputs are bound where they lie. The library reads and writes the
//! caller's memory, with three exceptions that are counted in `bytes_copied`: outputs without a
//! target, outputs that the graph takes straight from an input, and values that kernels use as
//! indices or counts while another process can write them. A session that computes on a device with
//! memory of its own is asked where each tensor is wanted: what is bound from the host then crosses at
//! each run, which is counted too, and state stays there.
//!
//! **Concurrency.** All sessions of a model share one ONNX Runtime session. Its runs take turns,
//! first come first served: the C API promises concurrent `Run`, but providers other than the CPU
//! have broken that promise, and two runs at once on the same threads gain nothing.
//!
//! Dependencies: `ort` for the C declarations, options and provider registration, `libloading`
//! to look at a library before it is trusted, `serde_json` for profiles and the record of what was
//! compiled.

#![deny(unsafe_code)]

mod backend;
mod cancel;
mod compiled;
mod engine;
mod failure;
mod migraphx;
mod model;
mod mover;
mod operators;
mod options;
mod plugins;
mod probe;
mod profile;
mod providers;
mod session;
mod states;
mod sys;
mod turn;

pub use backend::OrtBackend;
pub use providers::{CPU_PROVIDER, device_options, driver_paths, keeps_compiled};
