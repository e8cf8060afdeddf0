//! The contract between one scheduler's mathematics and the run that it serves.

use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;
use crate::noise::NoiseSource;
use crate::noise_schedule::NoiseSchedule;

/// The update rule of one scheduler, with its noise levels inside.
///
/// Evaluations are counted over the whole schedule, so `index` is diffusers' `step_index`, and the first one of a run
/// with strength below 1 is not 0.
pub(crate) trait UpdateRule: Send + std::fmt::Debug {
    /// The encoded image brought to the noise level of evaluation `index`, diffusers' `add_noise`.
    fn add_noise(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Latents, SchedulerError>;

    /// The latents that a run starts from; `noise_source` is for what a rule draws besides the start noise.
    fn prepare_latents(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
        noise_source: &mut NoiseSource,
    ) -> Result<Latents, SchedulerError> {
        let _ = noise_source;
        self.add_noise(index, init_latents, noise)
    }

    /// As [`crate::Scheduler::noised_init`], before evaluation `index`.
    fn noised_init(
        &self,
        index: usize,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Option<Latents>, SchedulerError> {
        self.add_noise(index, init_latents, noise).map(Some)
    }

    /// The model input for the latents at evaluation `index`, diffusers' `scale_model_input`.
    fn scale_model_input(&self, index: usize, sample: &Latents) -> Latents {
        let _ = index;
        sample.clone()
    }

    /// The latents after evaluation `index`, diffusers' `step` and its `prev_sample`.
    fn step(&mut self, index: usize, inputs: StepInputs<'_>) -> Result<Latents, SchedulerError>;
}

/// What [`UpdateRule::step`] takes, as diffusers' `step` does.
#[derive(Debug)]
pub(crate) struct StepInputs<'a> {
    /// The UNet's output, joined by guidance.
    pub(crate) model_output: &'a Latents,
    /// The latents before the step, not scaled.
    pub(crate) sample: &'a Latents,
    /// For stochastic rules.
    pub(crate) noise_source: &'a mut NoiseSource,
}

impl StepInputs<'_> {
    /// Fresh noise of the sample's shape.
    pub(crate) fn draw_noise(&mut self) -> Latents {
        self.noise_source.normal(self.sample.shape())
    }
}

/// A scheduler's timesteps and rule, before the registry makes a plan of them.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// The timestep of every evaluation of the whole schedule.
    pub(crate) timesteps: Vec<f64>,
    /// The first evaluation that runs, diffusers' `begin_index`.
    pub(crate) begin_index: usize,
    pub(crate) rule: Box<dyn UpdateRule>,
}

/// `add_noise` of the variance-preserving classes: `alpha * image + std * noise`.
pub(crate) fn noised(level: Level, init_latents: &Latents, noise: &Latents) -> Latents {
    weighted_sum(&[(level.alpha, init_latents), (level.std, noise)])
}

/// `add_noise` of the variance-exploding classes: `image + sigma * noise`.
pub(crate) fn noised_by_sigma(sigma: f64, init_latents: &Latents, noise: &Latents) -> Latents {
    weighted_sum(&[(1.0, init_latents), (sigma, noise)])
}

/// `add_noise` of the classes that look the level up by timestep.
pub(crate) fn noised_at(
    schedule: &NoiseSchedule,
    timestep: f64,
    init_latents: &Latents,
    noise: &Latents,
) -> Result<Latents, SchedulerError> {
    let level = Level::of_alpha_bar(schedule.alpha_bar(timestep)?);
    Ok(noised(level, init_latents, noise))
}
