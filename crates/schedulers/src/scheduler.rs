//! The contract between a scheduler and the step loop, whose unit is one UNet evaluation.
//!
//! A [`SchedulerPlan`] knows how many evaluations a run takes before any tensor exists.
//! A [`Scheduler`] offers one [`Evaluation`] at a time and takes its prediction; schedulers of second order offer two
//! per step, multistep ones remember earlier predictions, and the loop sees no difference.

use candle_core::Tensor;
use pentimento_types::{AlgorithmType, SchedulerKind};

use crate::schedule::{Level, NoiseSchedule};
use crate::start::{NoiseAlone, Start};
use crate::{NoiseSource, SchedulerConfig, SchedulerError};

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Steps of the whole schedule, at least 1.
    pub steps: u32,
    /// How much of the schedule runs, 0 to 1: the last `min(int(steps * strength), steps)` steps.
    pub strength: f64,
}

impl Run {
    /// How many steps at the end of the schedule run.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "Python's int() on a product between 0 and the number of steps"
    )]
    pub(crate) fn last_steps(self) -> usize {
        let wanted = ((f64::from(self.steps) * self.strength) as u32).min(self.steps);
        // diffusers fails when the product is below 1; a caller who asked for some change gets one step of it.
        let wanted = if wanted == 0 && self.strength > 0.0 {
            1
        } else {
            wanted
        };
        wanted as usize
    }
}

/// Everything that a scheduler's plan is made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) config: &'a SchedulerConfig,
    pub(crate) run: Run,
    /// The request asks for Karras spacing; the configuration may ask for it too.
    pub(crate) karras: bool,
    pub(crate) algorithm: Option<AlgorithmType>,
}

impl Setup<'_> {
    /// Steps of the whole schedule.
    pub(crate) const fn steps(&self) -> usize {
        self.run.steps as usize
    }

    /// The first step that runs, diffusers' `t_start`.
    pub(crate) fn first_step(&self) -> usize {
        self.steps() - self.run.last_steps()
    }
}

/// A scheduler's schedule and rule, before the registry makes a plan of it.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) timesteps: Vec<f64>,
    /// Evaluations before the first step that runs.
    pub(crate) skipped: usize,
    pub(crate) rule: Box<dyn UpdateRule>,
}

/// What the UNet is asked next.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The model input, already scaled, of the latents' shape (1, C, h, w).
    pub sample: Tensor,
    /// The timestep, 0 to the number of training steps; not always a whole number.
    pub timestep: f64,
}

/// The denoising of one picture, one UNet evaluation at a time.
pub trait Scheduler: Send + std::fmt::Debug {
    /// The next evaluation, or `None` when the run is finished. Calling it twice gives the same answer.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    fn next_evaluation(&self) -> Result<Option<Evaluation>, SchedulerError>;

    /// Takes the guided prediction for [`Self::next_evaluation`] and goes on to the next one.
    /// The only place where the count of evaluations moves.
    ///
    /// # Errors
    /// When no evaluation is left, when the shapes differ, or when tensor arithmetic fails.
    fn advance(&mut self, prediction: &Tensor) -> Result<(), SchedulerError>;

    /// The latents as they stand, (1, C, h, w); after the last evaluation, the result.
    fn latents(&self) -> &Tensor;

    /// For runs that know a part of their picture: the encoded picture `clean` with the noise `drawn` at the level where
    /// the latents stand, so that it can be put in their place. The picture itself after the last evaluation; None while
    /// the latents are to be left alone, as DDIM inversion wants on its way up.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    fn known(&self, clean: &Tensor, drawn: &Tensor) -> Result<Option<Tensor>, SchedulerError>;

    /// Puts other latents in the place of those that stand. The count of evaluations does not move.
    ///
    /// # Errors
    /// When the shapes differ.
    fn replace_latents(&mut self, latents: Tensor) -> Result<(), SchedulerError>;
}

/// The update rule of one scheduler, with its schedule inside.
///
/// Evaluations are counted over the whole schedule, so `index` is diffusers' `step_index` and the first one of a run
/// with strength below 1 is not 0.
pub(crate) trait UpdateRule: Send + std::fmt::Debug {
    /// The clean picture brought to the noise level of evaluation `index`, diffusers' `add_noise`.
    fn add_noise(&self, index: usize, clean: &Tensor, noise: &Tensor) -> Result<Tensor, SchedulerError>;

    /// The latents that a run starts from, with the start noise `drawn`; `noise` is for what a rule draws besides.
    fn start(
        &mut self,
        index: usize,
        clean: &Tensor,
        drawn: &Tensor,
        noise: &mut NoiseSource,
    ) -> Result<Tensor, SchedulerError> {
        let _ = noise;
        self.add_noise(index, clean, drawn)
    }

    /// As [`Scheduler::known`], before evaluation `index`.
    fn known(&self, index: usize, clean: &Tensor, drawn: &Tensor) -> Result<Option<Tensor>, SchedulerError> {
        self.add_noise(index, clean, drawn).map(Some)
    }

    /// The model input for the latents at evaluation `index`, diffusers' `scale_model_input`.
    fn input(&self, index: usize, latents: &Tensor) -> Result<Tensor, SchedulerError> {
        let _ = index;
        Ok(latents.clone())
    }

    /// The latents after evaluation `index`, diffusers' `step`.
    fn step(&mut self, index: usize, at: Given<'_>) -> Result<Tensor, SchedulerError>;
}

/// What an update rule is given at one evaluation.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    /// The UNet's (guided) prediction.
    pub(crate) prediction: &'a Tensor,
    /// The latents before the step, not scaled.
    pub(crate) latents: &'a Tensor,
    /// For stochastic rules.
    pub(crate) noise: &'a mut NoiseSource,
}

impl Given<'_> {
    /// Fresh noise like the latents.
    pub(crate) fn draw(&mut self) -> Result<Tensor, SchedulerError> {
        Ok(self.noise.normal_like(self.latents)?)
    }
}

/// `add_noise` of the classes that look the level up by timestep.
pub(crate) fn add_noise_at(
    schedule: &NoiseSchedule,
    timestep: f64,
    clean: &Tensor,
    noise: &Tensor,
) -> Result<Tensor, SchedulerError> {
    let level = Level::of_alpha_bar(schedule.alpha_bar(timestep)?);
    Ok(crate::prediction::weighted_sum(&[
        (level.alpha, clean),
        (level.std, noise),
    ])?)
}

/// A run that is decided but has not touched a tensor yet.
#[derive(Debug)]
pub struct SchedulerPlan {
    pub(crate) kind: SchedulerKind,
    /// The timestep of every evaluation of the whole schedule.
    pub(crate) timesteps: Vec<f64>,
    /// The first evaluation that runs.
    pub(crate) begin: usize,
    pub(crate) rule: Box<dyn UpdateRule>,
    pub(crate) noise_alone: NoiseAlone,
    pub(crate) karras_ignored: bool,
}

impl SchedulerPlan {
    /// How many evaluations the run takes. 0 only for strength 0.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a schedule has a few thousand evaluations at most"
    )]
    pub fn evaluations(&self) -> u32 {
        (self.timesteps.len() - self.begin) as u32
    }

    /// The timesteps of the evaluations, in order.
    #[must_use]
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps[self.begin..]
    }

    /// Which scheduler runs.
    #[must_use]
    pub const fn kind(&self) -> SchedulerKind {
        self.kind
    }

    /// Whether Karras spacing was asked for and this scheduler has no place for it.
    #[must_use]
    pub const fn karras_ignored(&self) -> bool {
        self.karras_ignored
    }

    /// Starts from the encoded picture `clean` (1, C, h, w), already multiplied by the VAE's scaling factor.
    /// Draws the start noise from `noise`, brings the picture to the start level and keeps `noise` for stochastic steps.
    /// With strength 0 the latents are `clean`.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn begin(self, clean: &Tensor, noise: NoiseSource) -> Result<Box<dyn Scheduler>, SchedulerError> {
        let mut noise = noise;
        let drawn = noise.normal_like(clean)?;
        self.begin_from(Start::Picture { clean, drawn: &drawn }, noise)
    }
}

/// The one implementation of [`Scheduler`]: it keeps the counter, the latents and the noise for any update rule.
#[derive(Debug)]
pub(crate) struct Steps {
    pub(crate) rule: Box<dyn UpdateRule>,
    pub(crate) timesteps: Vec<f64>,
    pub(crate) index: usize,
    pub(crate) latents: Tensor,
    pub(crate) noise: NoiseSource,
}

impl Scheduler for Steps {
    fn next_evaluation(&self) -> Result<Option<Evaluation>, SchedulerError> {
        let Some(timestep) = self.timesteps.get(self.index).copied() else {
            return Ok(None);
        };
        let sample = self.rule.input(self.index, &self.latents)?;
        Ok(Some(Evaluation { sample, timestep }))
    }

    fn advance(&mut self, prediction: &Tensor) -> Result<(), SchedulerError> {
        if self.index >= self.timesteps.len() {
            return Err(SchedulerError::Finished);
        }
        if prediction.dims() != self.latents.dims() {
            return Err(SchedulerError::PredictionShape {
                expected: self.latents.dims().to_vec(),
                found: prediction.dims().to_vec(),
            });
        }
        let given = Given {
            prediction,
            latents: &self.latents,
            noise: &mut self.noise,
        };
        self.latents = self.rule.step(self.index, given)?;
        self.index += 1;
        Ok(())
    }

    fn latents(&self) -> &Tensor {
        &self.latents
    }

    fn known(&self, clean: &Tensor, drawn: &Tensor) -> Result<Option<Tensor>, SchedulerError> {
        if self.index >= self.timesteps.len() {
            return Ok(Some(clean.clone()));
        }
        self.rule.known(self.index, clean, drawn)
    }

    fn replace_latents(&mut self, latents: Tensor) -> Result<(), SchedulerError> {
        if latents.dims() != self.latents.dims() {
            return Err(SchedulerError::LatentsShape {
                expected: self.latents.dims().to_vec(),
                found: latents.dims().to_vec(),
            });
        }
        self.latents = latents;
        Ok(())
    }
}
