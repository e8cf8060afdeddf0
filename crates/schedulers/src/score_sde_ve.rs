//! The predictor-corrector sampler of the variance-exploding equation, for img2img: Song et al. 2020, "Score-Based
//! Generative Modeling through Stochastic Differential Equations", arXiv 2011.13456, algorithms 2 and 4.
//!
//! Upstream, `schedulers/scheduling_sde_ve.py` of diffusers 0.42, samples unconditional pixel models. Our definition is
//! `docs/adr/0003-schedulers-that-diffusers-img2img-cannot-run.md`: its two steps on the checkpoint's own noise levels.
//! Evaluation 2k is the Langevin corrector at level k, 2k + 1 the reverse diffusion from there to the next level.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, scaled_by_sigma};
use crate::run::Setup;
use crate::sigma_steps::{Respacing, SigmaSteps};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_by_sigma};

/// `snr`: the signal-to-noise ratio of a corrector step.
const SNR: f64 = 0.15;

#[derive(Debug)]
struct ScoreSdeVe {
    /// One per step and the end.
    sigmas: Vec<f64>,
    prediction: PredictionType,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Finite))?;
    let steps = SigmaSteps::euler_family(setup, &schedule, Respacing::of(setup))?;
    let rule = ScoreSdeVe {
        sigmas: steps.sigmas,
        prediction: PredictionType::of(setup.config)?,
    };
    Ok(Schedule {
        timesteps: steps.timesteps.iter().flat_map(|t| [*t, *t]).collect(),
        begin_index: 2 * setup.first_step(),
        rule: Box::new(rule),
    })
}

impl UpdateRule for ScoreSdeVe {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        Ok(noised_by_sigma(self.sigmas[index / 2], init_latents, noise))
    }

    fn scale_model_input(&self, index: usize, sample: &Latents) -> Latents {
        scaled_by_sigma(sample, self.sigmas[index / 2])
    }

    fn step(&mut self, index: usize, mut inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let (sigma, next) = (self.sigmas[index / 2], self.sigmas[index / 2 + 1]);
        // The score is minus the noise over its level.
        let epsilon = self
            .prediction
            .derivative(inputs.model_output, inputs.sample, sigma);
        if index.is_multiple_of(2) {
            let noise = inputs.draw_noise();
            let score_norm = epsilon.norm() / sigma;
            if score_norm == 0.0 {
                return Ok(inputs.sample.clone());
            }
            let size = 2.0 * (SNR * noise.norm() / score_norm).powi(2);
            return Ok(weighted_sum(&[
                (1.0, inputs.sample),
                (-size / sigma, &epsilon),
                ((2.0 * size).sqrt(), &noise),
            ]));
        }
        let diffusion = sigma * sigma - next * next;
        let mean = weighted_sum(&[(1.0, inputs.sample), (-diffusion / sigma, &epsilon)]);
        if next == 0.0 {
            // The run ends with the mean, as upstream's pipeline does.
            return Ok(mean);
        }
        Ok(weighted_sum(&[
            (1.0, &mean),
            (diffusion.sqrt(), &inputs.draw_noise()),
        ]))
    }
}
