//! Euler's method with ancestral noise: each step goes below the next level and fresh noise brings the latents back up
//! to it. Katherine Crowson's `sample_euler_ancestral` of k-diffusion; the split of the level is equation 7 of Song et
//! al. 2020 (DDIM, arXiv 2010.02502) with η = 1 in sigma.
//!
//! Upstream: `schedulers/scheduling_euler_ancestral_discrete.py` of diffusers 0.42.

use candle_core::Tensor;

use crate::SchedulerError;
use crate::prediction::{PredictionType, scaled_input, weighted_sum};
use crate::schedule::{BetaDefaults, NoiseSchedule, ZeroSnr};
use crate::scheduler::{Given, Planned, Setup, UpdateRule};
use crate::sigma_steps::SigmaSteps;

#[derive(Debug)]
struct EulerAncestral {
    sigmas: Vec<f64>,
    prediction: PredictionType,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Finite))?;
    let SigmaSteps {
        timesteps, sigmas, ..
    } = SigmaSteps::euler_family(setup, &schedule, None)?;
    let prediction = PredictionType::of(setup.config)?;
    Ok(Planned {
        timesteps,
        skipped: setup.first_step(),
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
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(weighted_sum(&[(1.0, clean), (self.sigmas[index], noise)])?)
    }

    fn input(&self, index: usize, latents: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(scaled_input(latents, self.sigmas[index])?)
    }

    fn step(&mut self, index: usize, mut given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let (sigma, next) = (self.sigmas[index], self.sigmas[index + 1]);
        let (up, down) = split(sigma, next);
        let derivative = self
            .prediction
            .derivative(given.prediction, given.latents, sigma)?;
        let noise = given.draw()?;
        Ok(weighted_sum(&[
            (1.0, given.latents),
            (down - sigma, &derivative),
            (up, &noise),
        ])?)
    }
}
