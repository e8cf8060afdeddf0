//! Heun's method on the probability flow ODE, two evaluations per step: Karras et al. 2022, arXiv 2206.00364,
//! algorithm 1.
//!
//! Upstream: `schedulers/scheduling_heun_discrete.py` of diffusers 0.42. Evaluation 2k is the Euler stage of step k,
//! 2k + 1 its correction; the last step has no correction, because there is no evaluation without noise.

use candle_core::Tensor;

use crate::SchedulerError;
use crate::prediction::{PredictionType, scaled_input, weighted_sum};
use crate::schedule::{BetaDefaults, NoiseSchedule};
use crate::scheduler::{Given, Planned, Setup, UpdateRule};
use crate::sigma_steps::{Respacing, SigmaSteps};

#[derive(Debug)]
struct Heun {
    /// One per step and the end, not repeated.
    sigmas: Vec<f64>,
    prediction: PredictionType,
    /// Latents and derivative at the beginning of the step, between its two stages.
    began: Option<(Tensor, Tensor)>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::K_DIFFUSION)?;
    let steps = SigmaSteps::euler_family(setup, &schedule, Respacing::of(setup))?;
    let evaluations = 2 * steps.timesteps.len() - 1;
    let rule = Heun {
        sigmas: steps.sigmas,
        prediction: PredictionType::of(setup.config)?,
        began: None,
    };
    Ok(Planned {
        timesteps: (0..evaluations).map(|i| steps.timesteps[i.div_ceil(2)]).collect(),
        skipped: 2 * setup.first_step(),
        rule: Box::new(rule),
    })
}

impl UpdateRule for Heun {
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(weighted_sum(&[
            (1.0, clean),
            (self.sigmas[index.div_ceil(2)], noise),
        ])?)
    }

    fn input(&self, index: usize, latents: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(scaled_input(latents, self.sigmas[index.div_ceil(2)])?)
    }

    fn step(&mut self, index: usize, given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let Given {
            prediction, latents, ..
        } = given;
        let (sigma, next) = (self.sigmas[index / 2], self.sigmas[index / 2 + 1]);
        let dt = next - sigma;
        if let Some((start, first)) = self.began.take() {
            let second = self.prediction.derivative(prediction, latents, next)?;
            return Ok(weighted_sum(&[
                (1.0, &start),
                (dt / 2.0, &first),
                (dt / 2.0, &second),
            ])?);
        }
        let derivative = self.prediction.derivative(prediction, latents, sigma)?;
        let predicted = weighted_sum(&[(1.0, latents), (dt, &derivative)])?;
        self.began = Some((latents.clone(), derivative));
        Ok(predicted)
    }
}
