//! Gathers the rows of many images into one UNet batch, and makes each image's model output of the UNet's answer.
//!
//! Latents live in main memory: the UNet uploads all samples before its forward, and downloads all predictions after it.

use candle_core::{DType, Device, Result, Tensor};
use pentimento_models::{PreparedConditioning, RowNetwork};
use pentimento_schedulers::{Evaluation, Latents};

use crate::PipelineError;
use crate::guidance::Guidance;
use crate::state::DenoiseState;

/// The inputs of one UNet forward. A guided image has two neighbouring rows of text, the unconditional one first.
#[derive(Debug)]
pub(crate) struct UNetRows {
    /// C, h and w of each image's sample, the channels of an inpainting UNet included.
    shape: [usize; 3],
    /// The samples, one after the other.
    samples: Vec<f32>,
    timesteps: Vec<f32>,
    /// Of each row.
    conditioning: Vec<PreparedConditioning>,
    guidance_embeddings: Vec<Tensor>,
    /// Of each image.
    merging: Vec<bool>,
    /// Rows of each image, in order.
    counts: Vec<usize>,
    /// Of each image.
    networks: Vec<RowNetwork>,
}

impl UNetRows {
    /// An empty batch with room for `images`.
    pub(crate) fn with_capacity(images: usize) -> Self {
        Self {
            shape: [0; 3],
            samples: Vec::new(),
            timesteps: Vec::with_capacity(images),
            conditioning: Vec::with_capacity(2 * images),
            guidance_embeddings: Vec::new(),
            merging: Vec::with_capacity(images),
            counts: Vec::with_capacity(images),
            networks: Vec::with_capacity(images),
        }
    }

    /// Adds one image and its rows.
    ///
    /// # Errors
    /// When its sample has not the shape of those that are there.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "diffusers gives the UNet f32 timesteps too"
    )]
    pub(crate) fn push(
        &mut self,
        state: &DenoiseState,
        evaluation: &Evaluation,
    ) -> std::result::Result<(), PipelineError> {
        let Evaluation { sample, timestep } = evaluation;
        let more = state.mask_channels();
        let [channels, h, w] = sample.shape();
        let shape = [channels + more.map_or(0, |more| more.shape()[0]), h, w];
        if self.counts.is_empty() {
            self.shape = shape;
            let all = self.timesteps.capacity() * shape.iter().product::<usize>();
            self.samples.reserve_exact(all);
        } else if self.shape != shape {
            return Err(PipelineError::MixedShapes {
                expected: self.shape,
                found: shape,
            });
        }
        self.samples.extend_from_slice(sample.values());
        self.samples.extend_from_slice(more.map_or(&[], Latents::values));
        self.timesteps.push(*timestep as f32);
        let before = self.conditioning.len();
        self.conditioning.extend(state.uncond.clone());
        self.conditioning.push(state.cond.clone());
        self.counts.push(self.conditioning.len() - before);
        self.merging.push(state.merges_tokens);
        self.networks.push(state.network.clone());
        if let Guidance::Embedded { embedding } = &state.guidance {
            self.guidance_embeddings.push(embedding.clone());
        }
        Ok(())
    }

    /// `(P, C, h, w)`: what the UNet uploads. The samples leave this batch.
    pub(crate) fn take_sample(&mut self) -> Result<Tensor> {
        let [channels, h, w] = self.shape;
        let samples = std::mem::take(&mut self.samples);
        Tensor::from_vec(samples, (self.counts.len(), channels, h, w), &Device::Cpu)
    }

    /// One for each image.
    pub(crate) fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    /// Of B rows.
    pub(crate) fn conditioning(&self) -> &[PreparedConditioning] {
        &self.conditioning
    }

    /// `(P, time_cond_proj_dim)`; None for a UNet without guidance embedding.
    pub(crate) fn guidance_embedding(&self) -> Result<Option<Tensor>> {
        if self.guidance_embeddings.is_empty() {
            return Ok(None);
        }
        Ok(Some(Tensor::cat(&self.guidance_embeddings, 0)?))
    }

    /// How many rows each image has, B in all.
    pub(crate) fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Which images merge tokens.
    pub(crate) fn merging(&self) -> &[bool] {
        &self.merging
    }

    /// The network of each image.
    pub(crate) fn networks(&self) -> &[RowNetwork] {
        &self.networks
    }

    /// Each image's model output, joined by its guidance, of the UNet's output `(B, C, h, w)`, which is in main memory.
    pub(crate) fn model_outputs<'a>(
        &self,
        output: &Tensor,
        guidances: impl Iterator<Item = &'a Guidance>,
    ) -> Result<Vec<Latents>> {
        let (_, channels, h, w) = output.dims4()?;
        let values = output.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let mut rest = values.as_slice();
        let joined = guidances.zip(&self.counts).map(|(guidance, count)| {
            let (rows, after) = rest.split_at(count * channels * h * w);
            rest = after;
            Latents::new([channels, h, w], guidance.combine(rows)).expect("guidance leaves one row")
        });
        Ok(joined.collect())
    }
}
