//! Heun's method on the probability flow ODE, two evaluations per step: Karras et al. 2022, arXiv 2206.00364,
//! algorithm 1.
//!
//! Upstream: `schedulers/scheduling_heun_discrete.py` of diffusers 0.42. Evaluation 2k is the Euler stage of step k,
//! 2k + 1 its correction; the last step has no correction, because there is no evaluation without noise.

use crate::betas::BetaDefaults;
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, scaled_by_sigma};
use crate::run::Setup;
use crate::sigma_steps::{Respacing, SigmaSteps};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_by_sigma};

#[derive(Debug)]
struct Heun {
    /// One per step and the end, not repeated.
    sigmas: Vec<f64>,
    prediction: PredictionType,
    /// Latents and derivative at the beginning of the step, between its two stages; diffusers' `sample` and
    /// `prev_derivative`.
    first_stage: Option<(Latents, Latents)>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::K_DIFFUSION)?;
    let steps = SigmaSteps::euler_family(setup, &schedule, Respacing::of(setup))?;
    let evaluations = 2 * steps.timesteps.len() - 1;
    let rule = Heun {
        sigmas: steps.sigmas,
        prediction: PredictionType::of(setup.config)?,
        first_stage: None,
    };
    Ok(Schedule {
        timesteps: (0..evaluations).map(|i| steps.timesteps[i.div_ceil(2)]).collect(),
        begin_index: 2 * setup.first_step(),
        rule: Box::new(rule),
    })
}

impl UpdateRule for Heun {
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
        scaled_by_sigma(sample, self.sigmas[index.div_ceil(2)])
    }

    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let StepInputs {
            model_output, sample, ..
        } = inputs;
        let (sigma, next) = (self.sigmas[index / 2], self.sigmas[index / 2 + 1]);
        let dt = next - sigma;
        if let Some((start, first)) = self.first_stage.take() {
            let second = self.prediction.derivative(model_output, sample, next);
            return Ok(weighted_sum(&[
                (1.0, &start),
                (dt / 2.0, &first),
                (dt / 2.0, &second),
            ]));
        }
        let derivative = self.prediction.derivative(model_output, sample, sigma);
        let predicted = weighted_sum(&[(1.0, sample), (dt, &derivative)]);
        self.first_stage = Some((sample.clone(), derivative));
        Ok(predicted)
    }
}
