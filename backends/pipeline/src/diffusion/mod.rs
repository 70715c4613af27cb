//! Samples from noise.

mod guidance;
mod noise;
mod scheduler;

pub use guidance::Guidance;
pub use noise::gaussian;
pub use scheduler::{
    CONFIG_BYTES_MAX, STEPS_MAX, Scheduler, SchedulerConfig, SchedulerError, SchedulerKind,
    TRAIN_TIMESTEPS_MAX, Timing, flow_sigmas,
};
