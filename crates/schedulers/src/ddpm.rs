//! DDPM: Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, equations 6, 7 and 15.
//!
//! Upstream: `schedulers/scheduling_ddpm.py` of diffusers 0.42.

use candle_core::Tensor;

use crate::SchedulerError;
use crate::config::{TimestepSpacing, unknown};
use crate::prediction::{PredictionType, Threshold, weighted_sum};
use crate::schedule::{BetaDefaults, Level, NoiseSchedule, ZeroSnr};
use crate::scheduler::{Given, Planned, Setup, UpdateRule, add_noise_at};
use crate::timesteps::{Rounding, spaced};

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

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let config = setup.config;
    let variance = match config.variance_type.as_deref() {
        None | Some("fixed_small" | "fixed_small_log") => Variance::Small,
        // Upstream takes the square root of a logarithm for the second, which is not a number.
        Some("fixed_large" | "fixed_large_log") => Variance::Large,
        Some(other) => return Err(unknown("variance_type", other)),
    };
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Exact))?;
    let spacing = config.timestep_spacing(TimestepSpacing::Leading)?;
    let timesteps = spaced(spacing, schedule.len(), setup.steps(), Rounding::Whole);
    let prediction = PredictionType::of(config)?;
    let skipped = setup.first_step();
    for timestep in timesteps.iter().skip(skipped) {
        schedule.check_finite(*timestep, prediction)?;
    }
    let rule = Ddpm {
        schedule,
        timesteps: timesteps.clone(),
        variance,
        prediction,
        threshold: Threshold::of(config)?,
    };
    Ok(Planned {
        timesteps,
        skipped,
        rule: Box::new(rule),
    })
}

impl UpdateRule for Ddpm {
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        add_noise_at(&self.schedule, self.timesteps[index], clean, noise)
    }

    fn step(&mut self, index: usize, mut given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let timestep = self.timesteps[index];
        let here = self.schedule.alpha_bar(timestep)?;
        let there = match self.timesteps.get(index + 1) {
            Some(next) => self.schedule.alpha_bar(*next)?,
            None => 1.0,
        };
        let alpha = here / there;
        let beta = 1.0 - alpha;
        let clean = self
            .prediction
            .clean(given.prediction, given.latents, Level::of_alpha_bar(here))?;
        let clean = Threshold::apply(self.threshold, clean)?;
        let of_clean = there.sqrt() * beta / (1.0 - here);
        let of_latents = alpha.sqrt() * (1.0 - there) / (1.0 - here);
        let mean = weighted_sum(&[(of_clean, &clean), (of_latents, given.latents)])?;
        if timestep <= 0.0 {
            return Ok(mean);
        }
        let variance = match self.variance {
            Variance::Small => ((1.0 - there) / (1.0 - here) * beta).max(1e-20),
            Variance::Large => beta,
        };
        Ok(weighted_sum(&[(1.0, &mean), (variance.sqrt(), &given.draw()?)])?)
    }
}
