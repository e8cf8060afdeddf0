//! Gathers the rows of many pictures into one UNet batch and scatters the predictions back.

use candle_core::{DType, Result, Tensor};
use pentimento_models::PreparedConditioning;

use crate::guidance::Guidance;
use crate::state::DenoiseState;

/// The inputs of one UNet forward. A guided picture has two neighbouring rows of text, the unconditional one first.
#[derive(Debug)]
pub(crate) struct UNetRows {
    samples: Vec<Tensor>,
    timesteps: Vec<f32>,
    /// Of each row.
    conditioning: Vec<PreparedConditioning>,
    guidance_embeddings: Vec<Tensor>,
    /// Of each picture.
    merging: Vec<bool>,
    /// Rows of each picture, in order.
    counts: Vec<usize>,
}

impl UNetRows {
    /// An empty batch with room for `pictures`.
    pub(crate) fn with_capacity(pictures: usize) -> Self {
        Self {
            samples: Vec::with_capacity(pictures),
            timesteps: Vec::with_capacity(pictures),
            conditioning: Vec::with_capacity(2 * pictures),
            guidance_embeddings: Vec::new(),
            merging: Vec::with_capacity(pictures),
            counts: Vec::with_capacity(pictures),
        }
    }

    /// Adds one picture and its rows: `sample` is `(1, C, h, w)`, already scaled by its scheduler.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "diffusers gives the UNet f32 timesteps too"
    )]
    pub(crate) fn push(&mut self, state: &DenoiseState, sample: &Tensor, timestep: f64) {
        let before = self.conditioning.len();
        self.conditioning.extend(state.uncond.clone());
        self.conditioning.push(state.cond.clone());
        self.counts.push(self.conditioning.len() - before);
        self.samples.push(sample.clone());
        self.timesteps.push(timestep as f32);
        self.merging.push(state.merges_tokens);
        if let Guidance::Embedded { embedding } = &state.guidance {
            self.guidance_embeddings.push(embedding.clone());
        }
    }

    /// `(P, C, h, w)`
    pub(crate) fn sample(&self, dtype: DType) -> Result<Tensor> {
        Tensor::cat(&self.samples, 0)?.to_dtype(dtype)
    }

    /// Of P pictures.
    pub(crate) fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// Of B rows.
    pub(crate) fn conditioning(&self) -> &[PreparedConditioning] {
        &self.conditioning
    }

    /// `(P, time_cond_proj_dim)`; None for a UNet without guidance embedding.
    pub(crate) fn guidance_embedding(&self, dtype: DType) -> Result<Option<Tensor>> {
        if self.guidance_embeddings.is_empty() {
            return Ok(None);
        }
        Ok(Some(Tensor::cat(&self.guidance_embeddings, 0)?.to_dtype(dtype)?))
    }

    /// How many rows each picture has, B in all.
    pub(crate) fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Which pictures merge tokens.
    pub(crate) fn merging(&self) -> &[bool] {
        &self.merging
    }

    /// Cuts the UNet's output `(B, C, h, w)` into one tensor per picture, `(rows, C, h, w)` each.
    pub(crate) fn scatter(&self, predictions: &Tensor) -> Result<Vec<Tensor>> {
        let mut start = 0;
        let mut parts = Vec::with_capacity(self.counts.len());
        for &count in &self.counts {
            parts.push(predictions.narrow(0, start, count)?);
            start += count;
        }
        Ok(parts)
    }
}
