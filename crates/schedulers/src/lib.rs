//! Diffusion schedulers and the noise of one picture, equal to diffusers on PyTorch's CPU.
//!
//! The unit is one UNet evaluation: [`build`] decides a run, [`SchedulerPlan::begin`] starts it from an encoded picture,
//! and the step loop alternates [`Scheduler::next_evaluation`] and [`Scheduler::advance`].

mod beta_quantile;
mod config;
mod error;
mod noise;
mod prediction;
mod registry;
mod schedule;
mod scheduler;
mod timesteps;

mod ddim;
mod euler_discrete;
mod lcm;

pub use config::SchedulerConfig;
pub use error::SchedulerError;
pub use noise::NoiseSource;
pub use registry::build;
pub use scheduler::{Evaluation, Run, Scheduler, SchedulerPlan};
