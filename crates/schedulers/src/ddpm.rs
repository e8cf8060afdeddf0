//! DDPM: Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, equations 6, 7 and 15.
//!
//! Upstream: `schedulers/scheduling_ddpm.py` of diffusers 0.42.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::{TimestepSpacing, unknown};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, Threshold};
use crate::run::Setup;
use crate::timesteps::{Rounding, spaced};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_at};

/// How much noise a step puts back.
#[derive(Clone, Copy, Debug)]
enum Variance {
    /// The variance of the posterior.
    Small,
    /// β itself.
    Large,
}

#[derive(Debug)]
struct Ddpm {
    schedule: NoiseSchedule,
    timesteps: Vec<f64>,
    variance: Variance,
    prediction: PredictionType,
    threshold: Option<Threshold>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let config = setup.config;
    let variance = match config.variance_type.as_deref() {
        None | Some("fixed_small" | "fixed_small_log") => Variance::Small,
        // Upstream takes the square root of a logarithm for the second, which is not a number.
        Some("fixed_large" | "fixed_large_log") => Variance::Large,
        Some(other) => return Err(unknown("variance_type", other)),
    };
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Exact))?;
    let spacing = config.timestep_spacing(TimestepSpacing::Leading)?;
    let timesteps =
        setup.timesteps_or(|| spaced(spacing, schedule.len(), setup.steps(), Rounding::Whole));
    let prediction = PredictionType::of(config)?;
    let begin_index = setup.first_step();
    for timestep in timesteps.iter().skip(begin_index) {
        schedule.check_finite(*timestep, prediction)?;
    }
    let rule = Ddpm {
        schedule,
        timesteps: timesteps.clone(),
        variance,
        prediction,
        threshold: Threshold::of(config)?,
    };
    Ok(Schedule {
        timesteps,
        begin_index,
        rule: Box::new(rule),
    })
}

impl UpdateRule for Ddpm {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        noised_at(&self.schedule, self.timesteps[index], init_latents, noise)
    }

    fn step(&mut self, index: usize, mut inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let timestep = self.timesteps[index];
        let here = self.schedule.alpha_bar(timestep)?;
        let there = match self.timesteps.get(index + 1) {
            Some(next) => self.schedule.alpha_bar(*next)?,
            None => 1.0,
        };
        let alpha = here / there;
        let beta = 1.0 - alpha;
        let original_sample =
            self.prediction
                .original_sample(inputs.model_output, inputs.sample, Level::of_alpha_bar(here));
        let original_sample = Threshold::apply(self.threshold, original_sample);
        let of_original = there.sqrt() * beta / (1.0 - here);
        let of_sample = alpha.sqrt() * (1.0 - there) / (1.0 - here);
        let mean = weighted_sum(&[(of_original, &original_sample), (of_sample, inputs.sample)]);
        if timestep <= 0.0 {
            return Ok(mean);
        }
        let variance = match self.variance {
            Variance::Small => ((1.0 - there) / (1.0 - here) * beta).max(1e-20),
            Variance::Large => beta,
        };
        Ok(weighted_sum(&[
            (1.0, &mean),
            (variance.sqrt(), &inputs.draw_noise()),
        ]))
    }
}
