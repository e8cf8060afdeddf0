//! The second act: one evaluation of every image in the batch, in one UNet forward.

use pentimento_models::{DeviceLocation, ProgramMemory, UNetInput};
use pentimento_types::SchedulerKind;

use crate::state::DenoiseState;
use crate::unet_rows::UNetRows;
use crate::{PipelineError, StableDiffusion};

impl StableDiffusion {
    /// Runs exactly one evaluation of each image.
    ///
    /// All images must have latents and conditioning of one shape, and networks of the same programs as this model's
    /// ([`DenoiseState::programs`]). They may differ in everything else.
    /// All or nothing: on an error no state has moved, so the caller may try the images one by one.
    ///
    /// # Errors
    /// When an image has no evaluation left, the forward fails, or a prediction is not finite.
    pub fn denoise(&self, states: &mut [&mut DenoiseState]) -> Result<(), PipelineError> {
        let mut rows = self.rows_of(states.iter().map(|state| &**state))?;
        if states.is_empty() {
            return Ok(());
        }
        let output = self.unet.forward(UNetInput {
            sample: &rows.take_sample()?,
            timesteps: rows.timesteps(),
            conditioning: rows.conditioning(),
            rows: rows.counts(),
            guidance_embedding: rows.guidance_embedding()?.as_ref(),
            merging: rows.merging(),
            networks: rows.networks(),
        })?;
        let model_outputs = rows.model_outputs(&output, states.iter().map(|state| &state.guidance))?;
        for (state, model_output) in states.iter().zip(&model_outputs) {
            if !model_output.is_finite() {
                return Err(not_finite(state.kind, state.done));
            }
        }
        for (state, model_output) in states.iter_mut().zip(&model_outputs) {
            // From here on a failure belongs to this image alone; the others have already moved or still will.
            let moved = state.advance(model_output).is_ok();
            state.broken = !moved || !state.latents().is_finite();
            state.done += 1;
        }
        Ok(())
    }

    /// What the next evaluation of these images would take of the device's memory, exactly, and whether there is so much now.
    /// None on the CPU, and of no images. On a GPU it is written down for that, and found by the evaluation itself.
    ///
    /// # Errors
    /// As [`StableDiffusion::denoise`].
    pub fn measure(&self, states: &[&DenoiseState]) -> Result<Option<ProgramMemory>, PipelineError> {
        if states.is_empty() || !matches!(self.unet.device(), DeviceLocation::Gpu(..)) {
            return Ok(None);
        }
        let mut rows = self.rows_of(states.iter().copied())?;
        let measured = self.unet.measure(UNetInput {
            sample: &rows.take_sample()?,
            timesteps: rows.timesteps(),
            conditioning: rows.conditioning(),
            rows: rows.counts(),
            guidance_embedding: rows.guidance_embedding()?.as_ref(),
            merging: rows.merging(),
            networks: rows.networks(),
        });
        Ok(measured?)
    }

    /// The rows of the next evaluation.
    fn rows_of<'a>(
        &self,
        states: impl ExactSizeIterator<Item = &'a DenoiseState>,
    ) -> Result<UNetRows, PipelineError> {
        let mut rows = UNetRows::with_capacity(states.len());
        for state in states {
            if state.broken {
                return Err(not_finite(state.kind, state.done));
            }
            let Some(evaluation) = state.scheduler.next_evaluation() else {
                return Err(PipelineError::Mismatch {
                    name: self.name.clone(),
                    detail: format!("{} has no evaluation left", state.kind),
                });
            };
            rows.push(state, &evaluation)?;
        }
        Ok(rows)
    }
}

pub(crate) fn not_finite(kind: SchedulerKind, evaluation: u32) -> PipelineError {
    PipelineError::NotFinite {
        scheduler: kind.class_name().to_owned(),
        evaluation,
    }
}
