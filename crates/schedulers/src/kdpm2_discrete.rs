//! DPM-Solver-2 in sigma, two evaluations per step: Karras et al. 2022, arXiv 2206.00364, algorithm 2 without churn and
//! with the midpoint in log sigma. Katherine Crowson's `sample_dpm_2` of k-diffusion.
//!
//! Upstream: `schedulers/scheduling_k_dpm_2_discrete.py` of diffusers 0.42. Evaluation 2k is at the beginning of step k,
//! 2k + 1 at its midpoint; the last step is a plain Euler step to the finished image.

use crate::betas::BetaDefaults;
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, scaled_by_sigma};
use crate::run::Setup;
use crate::sigma_steps::{Respacing, SigmaSteps};
use crate::timesteps::{timestep_of, to_f32};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_by_sigma};

#[derive(Debug)]
struct Kdpm2 {
    /// One per step and the end, not repeated.
    sigmas: Vec<f64>,
    /// The midpoint of each step.
    midpoints: Vec<f64>,
    prediction: PredictionType,
    /// Latents at the beginning of the step, between its two stages; diffusers' `sample`.
    first_sample: Option<Latents>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let steps = rounded_steps(setup)?;
    let midpoints: Vec<f64> = steps
        .sigmas
        .windows(2)
        .map(|s| to_f32((s[0] * s[1]).sqrt()))
        .collect();
    let timesteps = interleaved(&steps, &midpoints);
    let rule = Kdpm2 {
        sigmas: steps.sigmas,
        midpoints,
        prediction: PredictionType::of(setup.config)?,
        first_sample: None,
    };
    Ok(Schedule {
        timesteps,
        begin_index: 2 * setup.first_step(),
        rule: Box::new(rule),
    })
}

/// The levels of both KDPM2 schedulers, which round the timesteps of Karras levels.
pub(crate) fn rounded_steps(setup: &Setup<'_>) -> Result<SigmaSteps, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::K_DIFFUSION)?;
    let respacing = Respacing::of(setup);
    let mut steps = SigmaSteps::euler_family(setup, &schedule, respacing)?;
    if respacing == Some(Respacing::Karras) {
        for timestep in &mut steps.timesteps {
            *timestep = timestep.round_ties_even();
        }
    }
    Ok(steps)
}

/// The timesteps of the steps with those of the midpoints between them.
pub(crate) fn interleaved(steps: &SigmaSteps, midpoints: &[f64]) -> Vec<f64> {
    let mut timesteps = vec![steps.timesteps[0]];
    for (timestep, midpoint) in steps.timesteps[1..].iter().zip(midpoints) {
        timesteps.push(to_f32(timestep_of(*midpoint, &steps.log_sigmas)));
        timesteps.push(*timestep);
    }
    timesteps
}

impl UpdateRule for Kdpm2 {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        let sigma = self.sigmas[index.div_ceil(2)];
        Ok(noised_by_sigma(sigma, init_latents, noise))
    }

    fn scale_model_input(&self, index: usize, sample: &Latents) -> Latents {
        let levels = if index.is_multiple_of(2) {
            &self.sigmas
        } else {
            &self.midpoints
        };
        scaled_by_sigma(sample, levels[index / 2])
    }

    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let StepInputs {
            model_output, sample, ..
        } = inputs;
        let step = index / 2;
        let (sigma, next, midpoint) = (self.sigmas[step], self.sigmas[step + 1], self.midpoints[step]);
        if let Some(start) = self.first_sample.take() {
            let derivative = self.prediction.derivative(model_output, sample, midpoint);
            return Ok(weighted_sum(&[(1.0, &start), (next - sigma, &derivative)]));
        }
        let derivative = self.prediction.derivative(model_output, sample, sigma);
        self.first_sample = Some(sample.clone());
        Ok(weighted_sum(&[(1.0, sample), (midpoint - sigma, &derivative)]))
    }
}
