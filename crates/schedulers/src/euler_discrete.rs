//! Euler's method on the probability flow ODE: Karras et al. 2022, arXiv 2206.00364, algorithm 2 without churn.
//!
//! Upstream: `schedulers/scheduling_euler_discrete.py` of diffusers 0.42.

use candle_core::Tensor;

use crate::SchedulerError;
use crate::config::unknown;
use crate::prediction::{PredictionType, weighted_sum};
use crate::schedule::{BetaDefaults, NoiseSchedule, ZeroSnr};
use crate::scheduler::{Given, Planned, Setup, UpdateRule};
use crate::sigma_steps::{FinalSigma, Respacing, SigmaSteps};
use crate::timesteps::{linspace, to_f32};

#[derive(Debug)]
struct Euler {
    sigmas: Vec<f64>,
    prediction: PredictionType,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let config = setup.config;
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Finite))?;
    let prediction = PredictionType::of(config)?;
    let SigmaSteps {
        mut timesteps,
        mut sigmas,
        ..
    } = SigmaSteps::euler_family(setup, &schedule, Respacing::of(setup))?;
    let all = schedule.sigmas();
    let last = setup.steps();
    match config.interpolation_type.as_deref() {
        None | Some("linear") => sigmas[last] = to_f32(FinalSigma::of(config)?.value(all[0])),
        // Upstream lays out one level more than steps, so the run ends at the smallest level and never at the last.
        Some("log_linear") if Respacing::of(setup).is_none() => {
            let levels = linspace(all[all.len() - 1].ln(), all[0].ln(), last + 1);
            sigmas = levels.into_iter().map(|l| to_f32(l.exp())).collect();
        }
        Some("log_linear") => {
            return Err(SchedulerError::Setting {
                key: "interpolation_type",
                problem: "log_linear cannot be combined with another spacing of the noise levels".to_owned(),
            });
        }
        Some(other) => return Err(unknown("interpolation_type", other)),
    }
    if config.timestep_type.as_deref() == Some("continuous") && prediction == PredictionType::V {
        timesteps = sigmas[..last].iter().map(|s| to_f32(0.25 * s.ln())).collect();
    }
    let rule = Euler { sigmas, prediction };
    Ok(Planned {
        timesteps,
        skipped: setup.first_step(),
        rule: Box::new(rule),
    })
}

impl UpdateRule for Euler {
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(weighted_sum(&[(1.0, clean), (self.sigmas[index], noise)])?)
    }

    fn input(&self, index: usize, latents: &Tensor) -> Result<Tensor, SchedulerError> {
        Ok(crate::prediction::scaled_input(latents, self.sigmas[index])?)
    }

    fn step(&mut self, index: usize, given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let (sigma, next) = (self.sigmas[index], self.sigmas[index + 1]);
        let derivative = self
            .prediction
            .derivative(given.prediction, given.latents, sigma)?;
        Ok(weighted_sum(&[
            (1.0, given.latents),
            (next - sigma, &derivative),
        ])?)
    }
}
