//! Everything one image carries between two evaluations. The checkpoint itself never holds any of it.

use std::sync::Arc;

use pentimento_models::{ConditioningShape, PreparedConditioning, ProgramsId, RowNetwork};
use pentimento_schedulers::{Latents, Scheduler};
use pentimento_types::{RgbImage, SchedulerKind, Size};

use crate::PipelineError;
use crate::guidance::Guidance;
use crate::inpainting::Inpainting;

/// One image on its way from noise to latents.
#[derive(Debug)]
pub struct DenoiseState {
    pub(crate) scheduler: Scheduler,
    pub(crate) kind: SchedulerKind,
    pub(crate) evaluations: u32,
    pub(crate) done: u32,
    pub(crate) guidance: Guidance,
    /// What its rows have of the UNet that they were prepared for.
    pub(crate) network: RowNetwork,
    /// Whether the UNet merges tokens: asked for, and the image large enough.
    pub(crate) merges_tokens: bool,
    /// One row.
    pub(crate) cond: PreparedConditioning,
    /// One row of the same shape; present only under classifier-free guidance.
    pub(crate) uncond: Option<PreparedConditioning>,
    /// Of the result, in pixels.
    pub(crate) size: Size,
    /// The image it started from, which strength 0 gives back; None in text to image.
    pub(crate) init: Option<Arc<RgbImage>>,
    /// Present when only a part of the image is made anew, or when the UNet wants to be told which.
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

    /// Rows of one forward that this image needs: 2 under classifier-free guidance, else 1.
    #[must_use]
    pub const fn rows(&self) -> u32 {
        self.guidance.rows()
    }

    /// Height and width of the latents.
    #[must_use]
    pub const fn latent_size(&self) -> (usize, usize) {
        let [_, height, width] = self.scheduler.latents().shape();
        (height, width)
    }

    /// Shape of the conditioning, which images of one forward must share.
    #[must_use]
    pub const fn conditioning_shape(&self) -> ConditioningShape {
        self.cond.shape()
    }

    /// Where the UNet's predictions are computed, which images of one forward must share.
    #[must_use]
    pub const fn programs(&self) -> ProgramsId {
        self.network.programs()
    }

    /// What an inpainting UNet takes beside the scheduler's sample.
    pub(crate) fn mask_channels(&self) -> Option<&Latents> {
        self.inpainting.as_ref()?.channels.as_ref()
    }

    /// Takes the guided model output of one evaluation.
    pub(crate) fn advance(&mut self, model_output: &Latents) -> Result<(), PipelineError> {
        self.scheduler.advance(model_output)?;
        match &self.inpainting {
            Some(inpainting) => inpainting.restore(&mut self.scheduler, (self.done + 1, self.evaluations)),
            None => Ok(()),
        }
    }

    /// The latents as they stand, `[4, h, w]`; for previews and tests.
    #[must_use]
    pub const fn latents(&self) -> &Latents {
        self.scheduler.latents()
    }
}
