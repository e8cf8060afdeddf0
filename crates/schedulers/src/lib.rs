//! Diffusion schedulers and the noise of one image, equal to diffusers on PyTorch's CPU.
//!
//! The unit is one UNet evaluation: [`build`] decides a run, [`SchedulerPlan::begin`] starts it from an encoded image,
//! and the step loop alternates [`Scheduler::next_evaluation`] and [`Scheduler::advance`].

mod beta_quantile;
mod betas;
mod config;
mod error;
mod init_noise;
mod latents;
mod level;
mod noise;
mod noise_schedule;
mod plan;
mod prediction;
mod registry;
mod run;
mod scheduler;
mod sigma_steps;
mod timesteps;
mod update_rule;

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
mod tcd;
mod unipc_multistep;

#[cfg(test)]
mod tests;

pub use config::SchedulerConfig;
pub use error::SchedulerError;
pub use init_noise::Start;
pub use latents::Latents;
pub use noise::NoiseSource;
pub use plan::SchedulerPlan;
pub use registry::build;
pub use run::Run;
pub use scheduler::{Evaluation, Scheduler};
