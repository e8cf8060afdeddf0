//! One image's run, whose unit is one UNet evaluation.
//!
//! A [`Scheduler`] offers one [`Evaluation`] at a time and takes the model's output for it; schedulers of second order
//! offer two per step, multistep ones remember earlier outputs, and the step loop sees no difference.

use crate::error::SchedulerError;
use crate::latents::Latents;
use crate::noise::NoiseSource;
use crate::update_rule::{StepInputs, UpdateRule};

/// What the UNet is asked next.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The model input, already scaled, of the latents' shape.
    pub sample: Latents,
    /// The timestep, 0 to the number of training steps; not always a whole number.
    pub timestep: f64,
}

/// The denoising of one image, one UNet evaluation at a time.
///
/// It keeps the count of evaluations, the latents and the noise source for any update rule.
#[derive(Debug)]
pub struct Scheduler {
    rule: Box<dyn UpdateRule>,
    timesteps: Vec<f64>,
    /// diffusers' `step_index`.
    index: usize,
    latents: Latents,
    noise_source: NoiseSource,
}

impl Scheduler {
    /// Stands before evaluation `index` with `latents` at its noise level.
    pub(crate) fn new(
        rule: Box<dyn UpdateRule>,
        timesteps: Vec<f64>,
        index: usize,
        latents: Latents,
        noise_source: NoiseSource,
    ) -> Self {
        Self {
            rule,
            timesteps,
            index,
            latents,
            noise_source,
        }
    }

    /// The next evaluation, or `None` when the run is finished. Calling it twice gives the same answer.
    #[must_use]
    pub fn next_evaluation(&self) -> Option<Evaluation> {
        let timestep = *self.timesteps.get(self.index)?;
        Some(Evaluation {
            sample: self.rule.scale_model_input(self.index, &self.latents),
            timestep,
        })
    }

    /// Takes the guided output for [`Self::next_evaluation`] and goes on to the next one.
    /// The only place where the count of evaluations moves.
    ///
    /// # Errors
    /// When no evaluation is left, or when the shapes differ.
    pub fn advance(&mut self, model_output: &Latents) -> Result<(), SchedulerError> {
        if self.index >= self.timesteps.len() {
            return Err(SchedulerError::Finished);
        }
        self.check_shape("the model's output", model_output)?;
        let inputs = StepInputs {
            model_output,
            sample: &self.latents,
            noise_source: &mut self.noise_source,
        };
        self.latents = self.rule.step(self.index, inputs)?;
        self.index += 1;
        Ok(())
    }

    /// The latents as they stand, `[C, h, w]`; after the last evaluation, the result.
    #[must_use]
    pub const fn latents(&self) -> &Latents {
        &self.latents
    }

    /// For inpainting: the encoded image with `noise` at the level where the latents stand, so that it can take the
    /// place of what is to be kept. The encoded image itself after the last evaluation; `None` while the latents are to
    /// be left alone, as DDIM inversion wants on its way up.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn noised_init(
        &self,
        init_latents: &Latents,
        noise: &Latents,
    ) -> Result<Option<Latents>, SchedulerError> {
        self.check_shape("the encoded image", init_latents)?;
        self.check_shape("the noise", noise)?;
        if self.index >= self.timesteps.len() {
            return Ok(Some(init_latents.clone()));
        }
        self.rule.noised_init(self.index, init_latents, noise)
    }

    /// Puts other latents in the place of those that stand. The count of evaluations does not move.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn replace_latents(&mut self, latents: Latents) -> Result<(), SchedulerError> {
        self.check_shape("the new latents", &latents)?;
        self.latents = latents;
        Ok(())
    }

    fn check_shape(&self, what: &'static str, found: &Latents) -> Result<(), SchedulerError> {
        SchedulerError::check_shape(what, self.latents.shape(), found)
    }
}
