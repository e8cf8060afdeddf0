//! DDIM: Song, Meng & Ermon 2020, "Denoising Diffusion Implicit Models", arXiv 2010.02502, equation 12 with η = 0.
//!
//! Upstream: `schedulers/scheduling_ddim.py` of diffusers 0.42.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::TimestepSpacing;
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::{PredictionType, Threshold};
use crate::run::Setup;
use crate::timesteps::{Rounding, count, spaced};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_at};

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

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let config = setup.config;
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Exact))?;
    let spacing = config.timestep_spacing(TimestepSpacing::Leading)?;
    let timesteps = spaced(spacing, schedule.len(), setup.steps(), Rounding::Whole);
    let prediction = PredictionType::of(config)?;
    let begin_index = setup.first_step();
    for timestep in timesteps.iter().skip(begin_index) {
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
    Ok(Schedule {
        timesteps,
        begin_index,
        rule: Box::new(rule),
    })
}

impl UpdateRule for Ddim {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        noised_at(&self.schedule, self.timesteps[index], init_latents, noise)
    }

    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let StepInputs {
            model_output, sample, ..
        } = inputs;
        let timestep = self.timesteps[index];
        let here = Level::of_alpha_bar(self.schedule.alpha_bar(timestep)?);
        // Upstream goes one stride back, which is not always the next timestep of the list.
        let before = timestep - self.stride;
        let there = Level::of_alpha_bar(if before >= 0.0 {
            self.schedule.alpha_bar(before)?
        } else {
            self.final_alpha_bar
        });
        let original_sample = self.prediction.original_sample(model_output, sample, here);
        let original_sample = Threshold::apply(self.threshold, original_sample);
        // The noise is the prediction's own, not derived again from the thresholded image.
        let epsilon = self.prediction.epsilon(model_output, sample, here);
        Ok(weighted_sum(&[
            (there.alpha, &original_sample),
            (there.std, &epsilon),
        ]))
    }
}
