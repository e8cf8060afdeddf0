//! DDIM inversion for img2img: the image is carried deterministically up to the start level with the model's own
//! predictions, and DDIM brings it down again (Song, Meng & Ermon 2020, arXiv 2010.02502, section 4.3; Dhariwal &
//! Nichol 2021, arXiv 2105.05233, appendix F).
//!
//! Upstream, `schedulers/scheduling_ddim_inverse.py` of diffusers 0.42, only goes up, so the img2img pipeline cannot run
//! it. Our definition is `docs/adr/0003-schedulers-that-diffusers-img2img-cannot-run.md`: its steps first, then those of
//! `scheduling_ddim.py`, twice as many evaluations as steps, and no noise is used.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::TimestepSpacing;
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise::NoiseSource;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::PredictionType;
use crate::run::Setup;
use crate::timesteps::{Rounding, count, spaced};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_at};

#[derive(Debug)]
struct DdimInverse {
    schedule: NoiseSchedule,
    /// Rising for the inversion, then falling.
    timesteps: Vec<f64>,
    /// How far one step goes, in training timesteps.
    stride: f64,
    /// ᾱ of the image itself, before the first step and after the last.
    image_alpha_bar: f64,
    prediction: PredictionType,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let config = setup.config;
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Exact))?;
    let spacing = config.timestep_spacing(TimestepSpacing::Leading)?;
    let all = spaced(spacing, schedule.len(), setup.steps(), Rounding::Whole);
    let falling = &all[setup.first_step().min(all.len())..];
    let prediction = PredictionType::of(config)?;
    for timestep in falling {
        schedule.check_finite(*timestep, prediction)?;
    }
    let timesteps: Vec<f64> = falling.iter().rev().chain(falling).copied().collect();
    // Noise cannot be derived from a predicted image at a level without noise.
    let noiseless_end = config.set_alpha_to_one.unwrap_or(true) && prediction != PredictionType::Sample;
    let rule = DdimInverse {
        stride: count(schedule.len() / setup.steps()),
        image_alpha_bar: if noiseless_end {
            1.0
        } else {
            schedule.first_alpha_bar()
        },
        timesteps: timesteps.clone(),
        schedule,
        prediction,
    };
    Ok(Schedule {
        timesteps,
        begin_index: 0,
        rule: Box::new(rule),
    })
}

impl DdimInverse {
    /// The level one stride below a timestep.
    fn below(&self, timestep: f64) -> Result<Level, SchedulerError> {
        let before = timestep - self.stride;
        Ok(Level::of_alpha_bar(if before >= 0.0 {
            self.schedule.alpha_bar(before)?
        } else {
            self.image_alpha_bar
        }))
    }
}

impl UpdateRule for DdimInverse {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        noised_at(&self.schedule, self.timesteps[index], init_latents, noise)
    }

    fn prepare_latents(
        &self,
        _index: usize,
        init_latents: &Latents,
        _noise: &Latents,
        _noise_source: &mut NoiseSource,
    ) -> Result<Latents, SchedulerError> {
        Ok(init_latents.clone())
    }

    /// On the way up the latents follow the model alone; the image is put back on the way down only.
    fn noised_init(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Option<Latents>, SchedulerError> {
        if index < self.timesteps.len() / 2 {
            return Ok(None);
        }
        self.add_noise(index, init_latents, noise).map(Some)
    }

    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let StepInputs {
            model_output, sample, ..
        } = inputs;
        let timestep = self.timesteps[index];
        let high = Level::of_alpha_bar(self.schedule.alpha_bar(timestep)?);
        let low = self.below(timestep)?;
        let (from, to) = if index < self.timesteps.len() / 2 {
            (low, high)
        } else {
            (high, low)
        };
        let original_sample = self.prediction.original_sample(model_output, sample, from);
        let epsilon = self.prediction.epsilon(model_output, sample, from);
        Ok(weighted_sum(&[(to.alpha, &original_sample), (to.std, &epsilon)]))
    }
}
