//! The predictor-corrector sampler of the variance-exploding equation, for img2img: Song et al. 2020, "Score-Based
//! Generative Modeling through Stochastic Differential Equations", arXiv 2011.13456, algorithms 2 and 4.
//!
//! Upstream, `schedulers/scheduling_sde_ve.py` of diffusers 0.42, samples unconditional pixel models. Our definition is
//! `docs/adr/0003-schedulers-that-diffusers-img2img-cannot-run.md`: its two steps on the checkpoint's own noise levels.
//! Evaluation 2k is the Langevin corrector at level k, 2k + 1 the reverse diffusion from there to the next level.

use candle_core::{DType, Tensor};

use crate::SchedulerError;
use crate::prediction::{PredictionType, scaled_input, weighted_sum};
use crate::schedule::{BetaDefaults, NoiseSchedule, ZeroSnr};
use crate::scheduler::{Given, Planned, Setup, UpdateRule};
use crate::sigma_steps::{Respacing, SigmaSteps};

/// `snr`: the signal-to-noise ratio of a corrector step.
const SNR: f64 = 0.15;

#[derive(Debug)]
struct ScoreSdeVe {
    /// One per step and the end.
    sigmas: Vec<f64>,
    prediction: PredictionType,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Finite))?;
    let steps = SigmaSteps::euler_family(setup, &schedule, Respacing::of(setup))?;
    let rule = ScoreSdeVe {
        sigmas: steps.sigmas,
        prediction: PredictionType::of(setup.config)?,
    };
    Ok(Planned {
        timesteps: steps.timesteps.iter().flat_map(|t| [*t, *t]).collect(),
        skipped: 2 * setup.first_step(),
        rule: Box::new(rule),
    })
}

fn norm(tensor: &Tensor) -> Result<f64, SchedulerError> {
    let squares = tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?;
    Ok(squares.to_scalar::<f64>()?.sqrt())
}

impl UpdateRule for ScoreSdeVe {
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(weighted_sum(&[(1.0, clean), (self.sigmas[index / 2], noise)])?)
    }

    fn input(&self, index: usize, latents: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(scaled_input(latents, self.sigmas[index / 2])?)
    }

    fn step(&mut self, index: usize, mut given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let (sigma, next) = (self.sigmas[index / 2], self.sigmas[index / 2 + 1]);
        // The score is minus the noise over its level.
        let noise = self
            .prediction
            .derivative(given.prediction, given.latents, sigma)?;
        if index.is_multiple_of(2) {
            let drawn = given.draw()?;
            let score_norm = norm(&noise)? / sigma;
            if score_norm == 0.0 {
                return Ok(given.latents.clone());
            }
            let size = 2.0 * (SNR * norm(&drawn)? / score_norm).powi(2);
            return Ok(weighted_sum(&[
                (1.0, given.latents),
                (-size / sigma, &noise),
                ((2.0 * size).sqrt(), &drawn),
            ])?);
        }
        let diffusion = sigma * sigma - next * next;
        let mean = weighted_sum(&[(1.0, given.latents), (-diffusion / sigma, &noise)])?;
        if next == 0.0 {
            // The run ends with the mean, as upstream's pipeline does.
            return Ok(mean);
        }
        Ok(weighted_sum(&[(1.0, &mean), (diffusion.sqrt(), &given.draw()?)])?)
    }
}
