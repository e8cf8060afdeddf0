//! Euler's method with ancestral noise: each step goes below the next level and fresh noise brings the latents back up
//! to it. Katherine Crowson's `sample_euler_ancestral` of k-diffusion; the split of the level is equation 7 of Song et
//! al. 2020 (DDIM, arXiv 2010.02502) with η = 1 in sigma.
//!
//! Upstream: `schedulers/scheduling_euler_ancestral_discrete.py` of diffusers 0.42.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, scaled_by_sigma};
use crate::run::Setup;
use crate::sigma_steps::SigmaSteps;
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_by_sigma};

#[derive(Debug)]
struct EulerAncestral {
    sigmas: Vec<f64>,
    prediction: PredictionType,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Finite))?;
    let SigmaSteps {
        timesteps, sigmas, ..
    } = SigmaSteps::euler_family(setup, &schedule, None)?;
    let prediction = PredictionType::of(setup.config)?;
    Ok(Schedule {
        timesteps,
        begin_index: setup.first_step(),
        rule: Box::new(EulerAncestral { sigmas, prediction }),
    })
}

/// The part of level `to` that a step from `from` makes anew, and the part it keeps.
pub(crate) fn split(from: f64, to: f64) -> (f64, f64) {
    let up = (to * to * (from * from - to * to) / (from * from))
        .max(0.0)
        .sqrt();
    let down = (to * to - up * up).max(0.0).sqrt();
    (up, down)
}

impl UpdateRule for EulerAncestral {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        Ok(noised_by_sigma(self.sigmas[index], init_latents, noise))
    }

    fn scale_model_input(&self, index: usize, sample: &Latents) -> Latents {
        scaled_by_sigma(sample, self.sigmas[index])
    }

    fn step(&mut self, index: usize, mut inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let (sigma, next) = (self.sigmas[index], self.sigmas[index + 1]);
        let (up, down) = split(sigma, next);
        let derivative = self
            .prediction
            .derivative(inputs.model_output, inputs.sample, sigma);
        let noise = inputs.draw_noise();
        Ok(weighted_sum(&[
            (1.0, inputs.sample),
            (down - sigma, &derivative),
            (up, &noise),
        ]))
    }
}
