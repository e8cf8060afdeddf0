//! DPM-Solver-2 with ancestral noise: as [`crate::kdpm2_discrete`], but each step goes below the next level and fresh
//! noise brings the latents back up. Katherine Crowson's `sample_dpm_2_ancestral` of k-diffusion.
//!
//! Upstream: `schedulers/scheduling_k_dpm_2_ancestral_discrete.py` of diffusers 0.42.

use candle_core::Tensor;

use crate::SchedulerError;
use crate::euler_ancestral_discrete::split;
use crate::kdpm2_discrete::{interleaved, rounded_steps};
use crate::prediction::{PredictionType, scaled_input, weighted_sum};
use crate::scheduler::{Given, Planned, Setup, UpdateRule};
use crate::timesteps::to_f32;

#[derive(Debug)]
struct Kdpm2Ancestral {
    /// One per step and the end, not repeated.
    sigmas: Vec<f64>,
    /// The midpoint of each step, between its level and the one that it goes down to.
    midpoints: Vec<f64>,
    prediction: PredictionType,
    /// Latents at the beginning of the step, between its two stages.
    began: Option<Tensor>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let steps = rounded_steps(setup)?;
    let midpoint = |s: &[f64]| to_f32((s[0] * split(s[0], s[1]).1).sqrt());
    let midpoints: Vec<f64> = steps.sigmas.windows(2).map(midpoint).collect();
    let timesteps = interleaved(&steps, &midpoints);
    let rule = Kdpm2Ancestral {
        sigmas: steps.sigmas,
        midpoints,
        prediction: PredictionType::of(setup.config)?,
        began: None,
    };
    Ok(Planned {
        timesteps,
        skipped: 2 * setup.first_step(),
        rule: Box::new(rule),
    })
}

impl UpdateRule for Kdpm2Ancestral {
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(weighted_sum(&[
            (1.0, clean),
            (self.sigmas[index.div_ceil(2)], noise),
        ])?)
    }

    fn input(&self, index: usize, latents: &Tensor) -> Result<Tensor, SchedulerError> {
        let levels = if index.is_multiple_of(2) {
            &self.sigmas
        } else {
            &self.midpoints
        };
        Ok(scaled_input(latents, levels[index / 2])?)
    }

    fn step(&mut self, index: usize, mut given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let step = index / 2;
        let (sigma, midpoint) = (self.sigmas[step], self.midpoints[step]);
        if let Some(start) = self.began.take() {
            let (up, down) = split(sigma, self.sigmas[step + 1]);
            let derivative = self
                .prediction
                .derivative(given.prediction, given.latents, midpoint)?;
            let noise = given.draw()?;
            return Ok(weighted_sum(&[
                (1.0, &start),
                (down - sigma, &derivative),
                (up, &noise),
            ])?);
        }
        let derivative = self
            .prediction
            .derivative(given.prediction, given.latents, sigma)?;
        self.began = Some(given.latents.clone());
        Ok(weighted_sum(&[
            (1.0, given.latents),
            (midpoint - sigma, &derivative),
        ])?)
    }
}
