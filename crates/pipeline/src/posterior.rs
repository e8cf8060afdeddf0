//! The VAE's answer to an image: a Gaussian for every latent value, of which each image of a job takes its own sample, or the
//! latent itself.

use candle_core::{DType, Tensor};
use pentimento_models::VaeConfig;
use pentimento_schedulers::{Latents, NoiseSource};

use crate::PipelineError;

/// An encoded image, on the host and unscaled.
#[derive(Clone, Debug)]
pub(crate) enum EncodedImage {
    Distribution(DiagonalGaussian),
    /// Of a tiny autoencoder, which knows no distribution.
    Exact(Latents),
}

/// Whether what a VAE has made of an image has neither NaN nor infinity.
pub(crate) fn is_finite(encoded: &Tensor) -> Result<bool, PipelineError> {
    let values = encoded.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().all(|value| value.is_finite()))
}

impl EncodedImage {
    /// From what a VAE with this configuration has encoded, of one image.
    pub(crate) fn of(encoded: &Tensor, vae: &VaeConfig) -> Result<Self, PipelineError> {
        if !vae.is_exact() {
            return DiagonalGaussian::from_moments(encoded).map(Self::Distribution);
        }
        let (_, channels, h, w) = encoded.dims4()?;
        let values = encoded.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let latents = Latents::new([channels, h, w], values);
        Ok(Self::Exact(latents.expect("the VAE gives one image's latents")))
    }

    /// A sample of the distribution; nothing is drawn where there is none, as diffusers' `retrieve_latents` has it.
    pub(crate) fn sample(&self, noise_source: &mut NoiseSource) -> Latents {
        match self {
            Self::Distribution(gaussian) => gaussian.sample(noise_source),
            Self::Exact(latents) => latents.clone(),
        }
    }
}

/// diffusers' `DiagonalGaussianDistribution` (`vae.py`), on the host.
#[derive(Clone, Debug)]
pub(crate) struct DiagonalGaussian {
    mean: Latents,
    /// exp(log-variance / 2)
    std: Latents,
}

impl DiagonalGaussian {
    /// From the VAE's moments `(1, 2C, h, w)`: C channels of means, then C of log-variances.
    fn from_moments(moments: &Tensor) -> Result<Self, PipelineError> {
        let (_, channels, h, w) = moments.dims4()?;
        let values = moments.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let (mean, log_variance) = values.split_at(values.len() / 2);
        let gaussian = Self::new([channels / 2, h, w], mean.to_vec(), log_variance);
        Ok(gaussian.expect("the VAE gives one image's means and as many log-variances"))
    }

    /// The log-variance is kept in -30..20, as upstream keeps it. `None` when an array has not the shape's size.
    fn new(shape: [usize; 3], mean: Vec<f32>, log_variance: &[f32]) -> Option<Self> {
        let std = |x: &f32| (x.clamp(-30.0, 20.0) * 0.5).exp();
        Some(Self {
            mean: Latents::new(shape, mean)?,
            std: Latents::new(shape, log_variance.iter().map(std).collect())?,
        })
    }

    /// `mean + std * noise`, with noise of its own: each product is rounded, then the sum.
    fn sample(&self, noise_source: &mut NoiseSource) -> Latents {
        let mut sample = noise_source.normal(self.mean.shape());
        let parameters = self.mean.values().iter().zip(self.std.values());
        for (x, (mean, std)) in sample.values_mut().iter_mut().zip(parameters) {
            *x = mean + std * *x;
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_variance_is_kept_between_minus_30_and_20() {
        let log_variance = [-1e4, -30.0, 0.0, 20.0, 1e4, f32::INFINITY];
        let gaussian = DiagonalGaussian::new([1, 1, 6], vec![0.0; 6], &log_variance).unwrap();
        let [low, high] = [(-15.0_f32).exp(), 10.0_f32.exp()];
        assert_eq!(gaussian.std.values(), [low, low, 1.0, high, high, high]);
    }

    #[test]
    fn a_sample_is_the_mean_and_its_share_of_the_noise() {
        let mean = vec![3.0, -1.0];
        let gaussian = DiagonalGaussian::new([1, 1, 2], mean, &[0.0, -1e4]).unwrap();
        let noise = NoiseSource::new(9).normal([1, 1, 2]);
        let sample = gaussian.sample(&mut NoiseSource::new(9));
        assert_eq!(sample.values()[0], 3.0 + noise.values()[0]);
        assert!((sample.values()[1] + 1.0).abs() < 1e-5);
        assert!(DiagonalGaussian::new([1, 1, 3], vec![0.0; 2], &[0.0; 3]).is_none());
    }
}
