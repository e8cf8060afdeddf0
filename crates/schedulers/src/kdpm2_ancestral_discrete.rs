//! DPM-Solver-2 with ancestral noise: as [`crate::kdpm2_discrete`], but each step goes below the next level and fresh
//! noise brings the latents back up. Katherine Crowson's `sample_dpm_2_ancestral` of k-diffusion.
//!
//! Upstream: `schedulers/scheduling_k_dpm_2_ancestral_discrete.py` of diffusers 0.42.

use crate::error::SchedulerError;
use crate::euler_ancestral_discrete::split;
use crate::kdpm2_discrete::{interleaved, rounded_steps};
use crate::latents::{Latents, weighted_sum};
use crate::prediction::{PredictionType, scaled_by_sigma};
use crate::run::Setup;
use crate::timesteps::to_f32;
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_by_sigma};

#[derive(Debug)]
struct Kdpm2Ancestral {
    /// One per step and the end, not repeated.
    sigmas: Vec<f64>,
    /// The midpoint of each step, between its level and the one that it goes down to.
    midpoints: Vec<f64>,
    prediction: PredictionType,
    /// Latents at the beginning of the step, between its two stages; diffusers' `sample`.
    first_sample: Option<Latents>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let steps = rounded_steps(setup)?;
    let midpoint = |s: &[f64]| to_f32((s[0] * split(s[0], s[1]).1).sqrt());
    let midpoints: Vec<f64> = steps.sigmas.windows(2).map(midpoint).collect();
    let timesteps = interleaved(&steps, &midpoints);
    let rule = Kdpm2Ancestral {
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

impl UpdateRule for Kdpm2Ancestral {
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

    fn step(&mut self, index: usize, mut inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let step = index / 2;
        let (sigma, midpoint) = (self.sigmas[step], self.midpoints[step]);
        if let Some(start) = self.first_sample.take() {
            let (up, down) = split(sigma, self.sigmas[step + 1]);
            let derivative = self
                .prediction
                .derivative(inputs.model_output, inputs.sample, midpoint);
            let noise = inputs.draw_noise();
            return Ok(weighted_sum(&[
                (1.0, &start),
                (down - sigma, &derivative),
                (up, &noise),
            ]));
        }
        let derivative = self
            .prediction
            .derivative(inputs.model_output, inputs.sample, sigma);
        self.first_sample = Some(inputs.sample.clone());
        Ok(weighted_sum(&[
            (1.0, inputs.sample),
            (midpoint - sigma, &derivative),
        ]))
    }
}
