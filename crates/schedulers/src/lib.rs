//! Diffusion schedulers and the noise of one picture, equal to diffusers on PyTorch's CPU.
//!
//! The unit is one UNet evaluation: [`build`] decides a run, [`SchedulerPlan::begin`] starts it from an encoded picture,
//! and the step loop alternates [`Scheduler::next_evaluation`] and [`Scheduler::advance`].

mod beta_quantile;
mod betas;
mod config;
mod error;
mod noise;
mod prediction;
mod registry;
mod schedule;
mod scheduler;
mod sigma_steps;
mod start;
mod timesteps;

mod ddim;
mod ddim_inverse;
mod ddpm;
mod deis_multistep;
mod dpm_solver;
mod dpm_solver_multistep;
mod dpm_solver_singlestep;
mod euler_ancestral_discrete;
mod euler_discrete;
mod heun_discrete;
mod ipndm;
mod karras_ve;
mod kdpm2_ancestral_discrete;
mod kdpm2_discrete;
mod lcm;
mod lms_discrete;
mod pndm;
mod score_sde_ve;
mod unipc_multistep;

#[cfg(test)]
mod tests;

pub use config::SchedulerConfig;
pub use error::SchedulerError;
pub use noise::NoiseSource;
pub use registry::build;
pub use scheduler::{Evaluation, Run, Scheduler, SchedulerPlan};
pub use start::Start;
