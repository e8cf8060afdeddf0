//! Everything one picture carries between two evaluations. The checkpoint itself never holds any of it.

use std::sync::Arc;

use candle_core::Tensor;
use pentimento_models::{ConditioningShape, PreparedConditioning};
use pentimento_schedulers::Scheduler;
use pentimento_types::{RgbPicture, SchedulerKind};

use crate::PipelineError;
use crate::guidance::Guidance;
use crate::inpaint::Inpainting;

/// One picture on its way from noise to latents.
#[derive(Debug)]
pub struct DenoiseState {
    pub(crate) scheduler: Box<dyn Scheduler>,
    pub(crate) kind: SchedulerKind,
    pub(crate) evaluations: u32,
    pub(crate) done: u32,
    pub(crate) guidance: Guidance,
    /// Whether the UNet merges tokens: asked for, and the picture large enough.
    pub(crate) merges_tokens: bool,
    /// One row.
    pub(crate) cond: PreparedConditioning,
    /// One row of the same shape; present only under classifier-free guidance.
    pub(crate) uncond: Option<PreparedConditioning>,
    /// The picture it started from: its size is the result's size, and strength 0 gives it back.
    pub(crate) init: Arc<RgbPicture>,
    /// Present when only a part of the picture is made anew, or when the UNet wants to be told which.
    pub(crate) inpainting: Option<Inpainting>,
    /// Set when the latents stopped being finite; the next use of this state reports it.
    pub(crate) broken: bool,
}

impl DenoiseState {
    /// UNet forwards that are still to run.
    #[must_use]
    pub const fn evaluations_left(&self) -> u32 {
        self.evaluations - self.done
    }

    /// Rows of one forward that this picture needs: 2 under classifier-free guidance, else 1.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.guidance.rows()
    }

    /// Height and width of the latents.
    #[must_use]
    pub fn latent_size(&self) -> (usize, usize) {
        let dims = self.scheduler.latents().dims();
        (dims[2], dims[3])
    }

    /// Shape of the conditioning, which images of one forward must share.
    #[must_use]
    pub const fn conditioning_shape(&self) -> ConditioningShape {
        self.cond.shape()
    }

    /// Tokens of the conditioning, a multiple of 77.
    #[must_use]
    pub const fn context_tokens(&self) -> usize {
        self.conditioning_shape().tokens
    }

    /// What the UNet takes for the scheduler's sample `(1, 4, h, w)`.
    pub(crate) fn input(&self, sample: Tensor) -> Result<Tensor, PipelineError> {
        match &self.inpainting {
            Some(inpainting) => inpainting.input(sample),
            None => Ok(sample),
        }
    }

    /// Takes the guided prediction of one evaluation.
    pub(crate) fn advance(&mut self, prediction: &Tensor) -> Result<(), PipelineError> {
        self.scheduler.advance(prediction)?;
        match &self.inpainting {
            Some(inpainting) => inpainting.restore(self.scheduler.as_mut()),
            None => Ok(()),
        }
    }

    /// The latents after the last evaluation, `(1, 4, h, w)`, for tests and previews.
    #[must_use]
    pub fn latents(&self) -> &Tensor {
        self.scheduler.latents()
    }
}
