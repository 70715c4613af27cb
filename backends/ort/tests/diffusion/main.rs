//! Clips of tiny random pipelines, compared with what diffusers computes
//! (`tests/models/diffusion/pipelines.py`).

mod golden;
mod job;
mod refusal;
mod support;
