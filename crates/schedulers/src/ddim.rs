//! DDIM: Song, Meng & Ermon 2020, "Denoising Diffusion Implicit Models", arXiv 2010.02502, equation 12 with η = 0.
//!
//! Upstream: `schedulers/scheduling_ddim.py` of diffusers 0.42.

use candle_core::Tensor;

use crate::SchedulerError;
use crate::config::TimestepSpacing;
use crate::prediction::{PredictionType, Threshold, weighted_sum};
use crate::schedule::{BetaDefaults, Level, NoiseSchedule, ZeroSnr};
use crate::scheduler::{Given, Planned, Setup, UpdateRule, add_noise_at};
use crate::timesteps::{Rounding, count, spaced};

#[derive(Debug)]
struct Ddim {
    schedule: NoiseSchedule,
    timesteps: Vec<f64>,
    /// How far one step goes, in training timesteps.
    stride: f64,
    /// ᾱ after the last step.
    final_alpha_bar: f64,
    prediction: PredictionType,
    threshold: Option<Threshold>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Planned, SchedulerError> {
    let config = setup.config;
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Exact))?;
    let spacing = config.timestep_spacing(TimestepSpacing::Leading)?;
    let timesteps = spaced(spacing, schedule.len(), setup.steps(), Rounding::Whole);
    let prediction = PredictionType::of(config)?;
    let skipped = setup.first_step();
    for timestep in timesteps.iter().skip(skipped) {
        schedule.check_finite(*timestep, prediction)?;
    }
    let rule = Ddim {
        stride: count(schedule.len() / setup.steps()),
        final_alpha_bar: if config.set_alpha_to_one.unwrap_or(true) {
            1.0
        } else {
            schedule.first_alpha_bar()
        },
        timesteps: timesteps.clone(),
        schedule,
        prediction,
        threshold: Threshold::of(config)?,
    };
    Ok(Planned {
        timesteps,
        skipped,
        rule: Box::new(rule),
    })
}

impl UpdateRule for Ddim {
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError> {
        add_noise_at(&self.schedule, self.timesteps[index], clean, noise)
    }

    fn step(&mut self, index: usize, given: Given<'_>) -> Result<Tensor, SchedulerError> {
        let Given {
            prediction, latents, ..
        } = given;
        let timestep = self.timesteps[index];
        let here = Level::of_alpha_bar(self.schedule.alpha_bar(timestep)?);
        // Upstream goes one stride back, which is not always the next timestep of the list.
        let before = timestep - self.stride;
        let there = Level::of_alpha_bar(if before >= 0.0 {
            self.schedule.alpha_bar(before)?
        } else {
            self.final_alpha_bar
        });
        let clean = self.prediction.clean(prediction, latents, here)?;
        let clean = Threshold::apply(self.threshold, clean)?;
        // The noise is the prediction's own, not derived again from the thresholded picture.
        let noise = self.prediction.noise(prediction, latents, here)?;
        Ok(weighted_sum(&[(there.alpha, &clean), (there.std, &noise)])?)
    }
}
