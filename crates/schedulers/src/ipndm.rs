//! Improved PNDM for img2img: the linear multistep method of order 4 with lower orders as its beginning (Zhang & Chen
//! 2022, arXiv 2204.13902, section 4, "iPNDM"), on the checkpoint's own noise levels.
//!
//! Upstream, `schedulers/scheduling_ipndm.py` of diffusers 0.42, has levels of its own and no `add_noise`, so the img2img
//! pipeline cannot run it. Our definition is `docs/adr/0003-schedulers-that-diffusers-img2img-cannot-run.md`: its step
//! on the levels of the checkpoint, which its tests compare with.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::config::TimestepSpacing;
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::PredictionType;
use crate::run::Setup;
use crate::timesteps::{Rounding, spaced};
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised};

const ORDER: usize = 4;

#[derive(Debug)]
struct Ipndm {
    /// One per step and the finished image.
    levels: Vec<Level>,
    prediction: PredictionType,
    /// Predicted noise of earlier evaluations, the latest last; diffusers' `ets`.
    history: Vec<Latents>,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BetaDefaults::linear(ZeroSnr::Ignored))?;
    let spacing = setup.config.timestep_spacing(TimestepSpacing::Leading)?;
    let timesteps = spaced(spacing, schedule.len(), setup.steps(), Rounding::Whole);
    let mut levels = Vec::with_capacity(timesteps.len() + 1);
    for timestep in &timesteps {
        levels.push(Level::of_alpha_bar(schedule.alpha_bar(*timestep)?));
    }
    levels.push(Level::of_alpha_bar(1.0));
    let rule = Ipndm {
        levels,
        prediction: PredictionType::of(setup.config)?,
        history: Vec::with_capacity(ORDER),
    };
    Ok(Schedule {
        timesteps,
        begin_index: setup.first_step(),
        rule: Box::new(rule),
    })
}

impl UpdateRule for Ipndm {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        Ok(noised(self.levels[index], init_latents, noise))
    }

    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let StepInputs {
            model_output, sample, ..
        } = inputs;
        let (here, there) = (self.levels[index], self.levels[index + 1]);
        let epsilon = self.prediction.epsilon(model_output, sample, here);
        if self.history.len() == ORDER {
            self.history.remove(0);
        }
        self.history.push(epsilon);
        let epsilon = adams_bashforth(&self.history);
        // As DDIM: the image from the blended noise, then back to the next level with the same noise.
        let keep = there.alpha / here.alpha;
        Ok(weighted_sum(&[
            (keep, sample),
            (there.std - keep * here.std, &epsilon),
        ]))
    }
}

/// The blend of the latest one to four values, the latest last.
pub(crate) fn adams_bashforth(history: &[Latents]) -> Latents {
    let weights: &[f64] = match history.len() {
        0 | 1 => &[1.0],
        2 => &[1.5, -0.5],
        3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
        _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
    };
    let terms: Vec<_> = weights.iter().copied().zip(history.iter().rev()).collect();
    weighted_sum(&terms)
}
