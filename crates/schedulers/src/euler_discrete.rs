//! Euler's method on the probability flow ODE: Karras et al. 2022, arXiv 2206.00364, algorithm 2 without churn.
//!
//! Upstream: `schedulers/scheduling_euler_discrete.py` of diffusers 0.42.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::unknown;
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, scaled_by_sigma};
use crate::run::Setup;
use crate::sigma_steps::{FinalSigma, Respacing, SigmaSteps};
use crate::timesteps::{linspace, to_f32};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_by_sigma};

#[derive(Debug)]
struct Euler {
    sigmas: Vec<f64>,
    prediction: PredictionType,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
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
    Ok(Schedule {
        timesteps,
        begin_index: setup.first_step(),
        rule: Box::new(rule),
    })
}

impl UpdateRule for Euler {
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

    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let (sigma, next) = (self.sigmas[index], self.sigmas[index + 1]);
        let derivative = self
            .prediction
            .derivative(inputs.model_output, inputs.sample, sigma);
        Ok(weighted_sum(&[(1.0, inputs.sample), (next - sigma, &derivative)]))
    }
}
