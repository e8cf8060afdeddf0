//! Timesteps and guidance scales as vectors (Vaswani et al., 2017, section 3.5; diffusers `embeddings.py`).
//!
//! The arguments of sine and cosine reach thousands of radians, so a last-bit difference of a frequency is visible;
//! each operation here is rounded to f32 where PyTorch rounds it.

use super::config::{TextTime, UNetConfig};
use super::row_map::RowMap;
use crate::ModelError;
use crate::error::During;
use crate::layers::{
    Activation, HostTensor, KernelError, Layer, LayerSource, Linear, Result, Tensor, host_tensor,
};

/// Two linear layers on the sinusoidal embedding, to which a projected guidance embedding is added first.
#[derive(Clone, Debug)]
pub(super) struct TimeEmbedding {
    linear1: Linear,
    linear2: Linear,
    guidance: Option<Linear>,
    /// SDXL's pooled state and size conditions, which are added last.
    added: Option<AddedEmbedding>,
}

/// Two linear layers on the pooled state of a text and its size conditions.
#[derive(Clone, Debug)]
struct AddedEmbedding {
    linear1: Linear,
    linear2: Linear,
    sizes: TextTime,
}

impl TimeEmbedding {
    /// Loads it from `from`, at the root of the UNet.
    pub(super) fn new(config: &UNetConfig, from: &LayerSource<'_>) -> Result<Self> {
        let (input, width) = (config.block_out_channels[0], config.time_embed_dim);
        let time = from.pp("time_embedding");
        let guidance = |e| Linear::without_bias(e, input, &time.pp("cond_proj"));
        let linear2 = Linear::new(width, width, &time.pp("linear_2"))?;
        let added = |sizes: TextTime| -> Result<_> {
            let from = from.pp("add_embedding");
            let linear1 = Linear::new(sizes.width(), width, &from.pp("linear_1"))?;
            Ok(AddedEmbedding {
                linear1: linear1.with_activation(Activation::Silu),
                linear2: Linear::new(width, width, &from.pp("linear_2"))?,
                sizes,
            })
        };
        Ok(Self {
            linear1: Linear::new(input, width, &time.pp("linear_1"))?.with_activation(Activation::Silu),
            // With something to add, the activation of the sum comes after that.
            linear2: match config.text_time {
                None => linear2.with_activation(Activation::Silu),
                Some(_) => linear2,
            },
            guidance: config.time_cond_proj_dim.map(guidance).transpose()?,
            added: config.text_time.map(added).transpose()?,
        })
    }

    /// `time`: (P, input); `guidance`: (P, E). Result: (P, 1, width), through the SiLU that every block applies first, or
    /// (B, 1, width) where every row of `rows` has something to add: `added` (B, 1, width).
    pub(super) fn forward_activated(
        &self,
        time: &Tensor,
        guidance: Option<&Tensor>,
        (added, rows): (Option<&Tensor>, &RowMap),
    ) -> Result<Tensor> {
        let mut x = time.unsqueeze(1)?;
        if let (Some(projection), Some(guidance)) = (&self.guidance, guidance) {
            x = projection.forward_add(&guidance.unsqueeze(1)?, &x)?;
        }
        let x = self.linear2.forward(&self.linear1.forward(&x)?)?;
        match added {
            Some(added) => rows.expand(&x)?.add(added)?.silu(),
            None => Ok(x),
        }
    }

    /// What [`Self::embed_added`] takes of a pooled state (1, P) and these sizes, (1, 1, P + 6 · the width of a size); None
    /// for networks without `text_time`.
    pub(super) fn pooled_and_sizes(
        &self,
        pooled: &HostTensor,
        sizes: &[f32; 6],
        like: &UNetConfig,
    ) -> Result<Option<HostTensor>> {
        let Some(added) = &self.added else {
            return Ok(None);
        };
        let sizes = embed(sizes, added.sizes.size_dim, like)?.reshape((1, ()))?;
        let both = HostTensor::cat(&[pooled, &sizes], 1)?;
        Ok(Some(both.unsqueeze(1)?))
    }

    /// What a network with `text_time` adds for a row of this pooled state and these sizes: (1, 1, width).
    pub(super) fn embed_added(&self, pooled_and_sizes: &Tensor) -> Result<Tensor> {
        let Some(added) = &self.added else {
            return Err(KernelError::mismatch("the network adds nothing for a text"));
        };
        added.linear2.forward(&added.linear1.forward(pooled_and_sizes)?)
    }

    /// Its layers.
    pub(super) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        if let Some(guidance) = &mut self.guidance {
            visit(guidance);
        }
        visit(&mut self.linear1);
        visit(&mut self.linear2);
        if let Some(added) = &mut self.added {
            visit(&mut added.linear1);
            visit(&mut added.linear2);
        }
    }
}

/// Sinusoidal embedding of P `timesteps` with the first width as its length: (P, width), f32.
pub(super) fn timestep_embedding(timesteps: &[f32], config: &UNetConfig) -> Result<HostTensor> {
    embed(timesteps, config.block_out_channels[0], config)
}

/// Sinusoidal embedding of each of `values`: (count, width), f32, with the configuration's order and shift.
fn embed(values: &[f32], width: usize, config: &UNetConfig) -> Result<HostTensor> {
    let half = width / 2;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "as PyTorch rounds it"
    )]
    let frequencies: Vec<f32> = {
        let spread = (half as f64 - config.freq_shift) as f32;
        let log_period = -(10_000_f64.ln()) as f32;
        (0..half).map(|i| exp(log_period * i as f32 / spread)).collect()
    };
    sinusoids(values, &frequencies, (width, config.flip_sin_to_cos))
}

/// The embedding of a guidance scale that distilled latent consistency models take (Luo et al., 2023, section 4.2;
/// diffusers `get_guidance_scale_embedding`): `w` is the guidance scale minus 1, `dim` the UNet's
/// `time_cond_proj_dim`. Result: (1, dim), f32.
///
/// # Errors
/// When the tensor cannot be made.
pub fn guidance_embedding(w: f64, dim: usize) -> std::result::Result<HostTensor, ModelError> {
    let half = dim / 2;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "as PyTorch rounds it"
    )]
    let (w, frequencies) = {
        let step = (10_000_f64.ln() as f32) / (half as f32 - 1.0);
        let frequencies: Vec<f32> = (0..half).map(|i| exp(i as f32 * -step)).collect();
        (w as f32 * 1000.0, frequencies)
    };
    sinusoids(&[w], &frequencies, (dim, false)).during("embedding the guidance scale")
}

/// Sines and cosines of every value times every frequency, side by side and padded by a zero to an odd width.
fn sinusoids(
    values: &[f32],
    frequencies: &[f32],
    (width, cosine_first): (usize, bool),
) -> Result<HostTensor> {
    let mut out = Vec::with_capacity(values.len() * width);
    for value in values {
        let start = out.len();
        let angles = frequencies.iter().map(|f| f64::from(value * f));
        #[expect(clippy::cast_possible_truncation, reason = "correctly rounded to f32")]
        if cosine_first {
            out.extend(angles.clone().map(|a| a.cos() as f32));
            out.extend(angles.map(|a| a.sin() as f32));
        } else {
            out.extend(angles.clone().map(|a| a.sin() as f32));
            out.extend(angles.map(|a| a.cos() as f32));
        }
        out.resize(start + width, 0.0);
    }
    host_tensor(out, &[values.len(), width])
}

/// e^x, correctly rounded. PyTorch takes it from MKL, whose last bit differs in about one value of fifty; that cannot
/// be copied and shows as up to 6e-5 in the sine of a timestep and 1e-3 in that of a guidance scale of 20.
#[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is the point")]
fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

#[cfg(test)]
mod tests {
    use pentimento_testkit::{Golden, Tolerance, assert_close};

    use super::*;

    #[test]
    fn timesteps_are_embedded_as_in_diffusers() {
        let golden = Golden::open("components/embeddings.safetensors");
        for (name, width, rest) in [
            ("time.320", 320, r#""flip_sin_to_cos": true, "freq_shift": 0"#),
            ("time.32", 32, r#""flip_sin_to_cos": false, "freq_shift": 1"#),
        ] {
            let text = format!("{{\"block_out_channels\": [{width}, 32, 32, 32], {rest}}}");
            let config: UNetConfig = serde_json::from_str(&text).unwrap();
            let steps: Vec<f32> = golden.tensor("steps").to_vec1().unwrap();
            let found = timestep_embedding(&steps, &config).unwrap();
            assert_close(name, &found, golden.tensor(name), Tolerance::EMBEDDING);
        }
    }
}
