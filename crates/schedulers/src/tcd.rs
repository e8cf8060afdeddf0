//! Trajectory consistency distillation: Zheng et al. 2024, arXiv 2402.19159, algorithm 4 (strategic stochastic sampling).
//!
//! Upstream: `schedulers/scheduling_tcd.py` of diffusers 0.42 with its own gamma, 0.3 (there called eta), on the timesteps of
//! latent consistency models, of which strength takes the end as everywhere else.

use crate::betas::{BetaDefaults, ZeroSnr};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::lcm;
use crate::level::Level;
use crate::noise_schedule::NoiseSchedule;
use crate::prediction::PredictionType;
use crate::run::Setup;
use crate::update_rule::{Schedule, StepInputs, UpdateRule, noised_at};

/// How far beyond the next timestep a step goes before noise brings it back: 0 never, 1 all the way.
const GAMMA: f32 = 0.3;

const BETAS: BetaDefaults = BetaDefaults {
    start: 0.00085,
    end: 0.012,
    schedule: "scaled_linear",
    zero_snr: ZeroSnr::Exact,
};

#[derive(Debug)]
struct Tcd {
    schedule: NoiseSchedule,
    timesteps: Vec<f64>,
    prediction: PredictionType,
}

pub(crate) fn plan(setup: &Setup<'_>) -> Result<Schedule, SchedulerError> {
    let schedule = NoiseSchedule::for_run(setup, BETAS)?;
    let timesteps = lcm::timesteps(setup, schedule.len(), 1.0)?;
    let prediction = PredictionType::of(setup.config)?;
    let begin_index = setup.first_step();
    for timestep in timesteps.iter().skip(begin_index) {
        schedule.check_finite(*timestep, prediction)?;
    }
    let rule = Tcd {
        schedule,
        timesteps: timesteps.clone(),
        prediction,
    };
    Ok(Schedule {
        timesteps,
        begin_index,
        rule: Box::new(rule),
    })
}

impl UpdateRule for Tcd {
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError> {
        noised_at(&self.schedule, self.timesteps[index], init_latents, noise)
    }

    fn step(&mut self, index: usize, mut inputs: StepInputs<'_>) -> Result<Latents, SchedulerError> {
        let here = Level::of_alpha_bar(self.schedule.alpha_bar(self.timesteps[index])?);
        let next = self.timesteps.get(index + 1).copied();
        let there = self.schedule.alpha_bar(next.unwrap_or(0.0))?;
        let beyond = self.schedule.alpha_bar(beyond(next.unwrap_or(0.0)))?;
        let original_sample = self
            .prediction
            .original_sample(inputs.model_output, inputs.sample, here);
        let epsilon = self.prediction.epsilon(inputs.model_output, inputs.sample, here);
        let level = Level::of_alpha_bar(beyond);
        let less_noisy = weighted_sum(&[(level.alpha, &original_sample), (level.std, &epsilon)]);
        if next.is_none() {
            return Ok(less_noisy);
        }
        let kept = there / beyond;
        Ok(weighted_sum(&[
            (kept.sqrt(), &less_noisy),
            ((1.0 - kept).sqrt(), &inputs.draw_noise()),
        ]))
    }
}

/// The timestep that a step goes to, in upstream's f32.
#[expect(clippy::cast_possible_truncation, reason = "upstream multiplies in f32")]
fn beyond(next: f64) -> f64 {
    f64::from(((1.0 - GAMMA) * next as f32).floor())
}
