//! The second act: one evaluation of every picture in the batch, in one UNet forward.

use candle_core::{DType, Tensor};
use pentimento_models::UNetInput;
use pentimento_types::SchedulerKind;

use crate::state::DenoiseState;
use crate::unet_rows::UNetRows;
use crate::{PipelineError, StableDiffusion};

impl StableDiffusion {
    /// Runs exactly one evaluation of each picture.
    ///
    /// All pictures must have latents and conditioning of one shape. They may differ in everything else.
    /// All or nothing: on an error no state has moved, so the caller may try the pictures one by one.
    ///
    /// # Errors
    /// When a picture has no evaluation left, the forward fails, or a prediction is not finite.
    pub fn denoise(&self, states: &mut [&mut DenoiseState]) -> Result<(), PipelineError> {
        let mut rows = UNetRows::with_capacity(states.len());
        for state in states.iter() {
            if state.broken {
                return Err(not_finite(state.kind, state.done));
            }
            let Some(evaluation) = state.scheduler.next_evaluation()? else {
                return Err(PipelineError::Mismatch {
                    name: self.name.clone(),
                    detail: format!("{} has no evaluation left", state.kind),
                });
            };
            rows.push(state, &state.input(evaluation.sample)?, evaluation.timestep);
        }
        if states.is_empty() {
            return Ok(());
        }
        let prediction = self.unet.forward(UNetInput {
            sample: &rows.sample(self.dtype)?,
            timesteps: rows.timesteps(),
            conditioning: rows.conditioning(),
            rows: rows.counts(),
            guidance_embedding: rows.guidance_embedding(self.dtype)?.as_ref(),
            merging: rows.merging(),
        })?;
        let mut predictions = Vec::with_capacity(states.len());
        for (state, part) in states
            .iter()
            .zip(rows.scatter(&prediction.to_dtype(DType::F32)?)?)
        {
            let prediction = state.guidance.combine(&part)?;
            if !is_finite(&prediction)? {
                return Err(not_finite(state.kind, state.done));
            }
            predictions.push(prediction);
        }
        for (state, prediction) in states.iter_mut().zip(predictions) {
            // From here on a failure belongs to this picture alone; the others have already moved or still will.
            let moved = state.advance(&prediction).is_ok();
            state.broken = !moved || !is_finite(state.scheduler.latents()).unwrap_or(false);
            state.done += 1;
        }
        Ok(())
    }
}

/// Whether every element is a number. A sum would miss +inf beside -inf only by turning into NaN, which is caught too.
pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool, PipelineError> {
    let sum = tensor
        .abs()?
        .to_dtype(DType::F64)?
        .sum_all()?
        .to_scalar::<f64>()?;
    Ok(sum.is_finite())
}

pub(crate) fn not_finite(kind: SchedulerKind, evaluation: u32) -> PipelineError {
    PipelineError::NotFinite {
        scheduler: kind.class_name().to_owned(),
        evaluation,
    }
}
