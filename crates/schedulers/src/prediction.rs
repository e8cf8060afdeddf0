//! What the UNet's output means, and the tensor arithmetic that every update rule shares.

use candle_core::{DType, Result, Tensor};

use crate::config::unknown;
use crate::schedule::Level;
use crate::{SchedulerConfig, SchedulerError};

/// The quantity that the UNet predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PredictionType {
    /// The noise.
    Epsilon,
    /// `alpha * noise - std * clean` (Salimans & Ho 2022, arXiv 2202.00512, section 4).
    V,
    /// The clean picture.
    Sample,
}

/// `sum of coefficient * tensor`. Terms whose coefficient is 0 are left out, so that an infinite tensor does no harm.
pub(crate) fn weighted_sum(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (coefficient, tensor) in terms {
        if *coefficient == 0.0 && terms.len() > 1 {
            continue;
        }
        let term = if *coefficient == 1.0 {
            (*tensor).clone()
        } else {
            (*tensor * *coefficient)?
        };
        sum = Some(match sum {
            None => term,
            Some(sum) => (sum + term)?,
        });
    }
    match (sum, terms) {
        (Some(sum), _) => Ok(sum),
        (None, [(_, tensor), ..]) => tensor.zeros_like(),
        (None, []) => candle_core::bail!("a sum of no terms"),
    }
}

/// The model input for latents `clean + sigma * noise`: scaled to the variance that the model was trained on.
pub(crate) fn scaled_input(latents: &Tensor, sigma: f64) -> Result<Tensor> {
    divide(latents, sigma.mul_add(sigma, 1.0).sqrt())
}

/// A true division, as upstream's: multiplying by the reciprocal rounds differently.
fn divide(tensor: &Tensor, divisor: f64) -> Result<Tensor> {
    let divisor = Tensor::new(divisor, tensor.device())?.to_dtype(tensor.dtype())?;
    tensor.broadcast_div(&divisor)
}

impl PredictionType {
    /// `prediction_type` of the configuration; every class defaults to epsilon.
    pub(crate) fn of(config: &SchedulerConfig) -> std::result::Result<Self, SchedulerError> {
        match config.prediction_type.as_deref() {
            None | Some("epsilon") => Ok(Self::Epsilon),
            Some("v_prediction") => Ok(Self::V),
            Some("sample" | "original_sample") => Ok(Self::Sample),
            Some(other) => Err(unknown("prediction_type", other)),
        }
    }

    /// The clean picture, for latents `alpha * clean + std * noise`.
    pub(crate) fn clean(self, prediction: &Tensor, latents: &Tensor, level: Level) -> Result<Tensor> {
        let Level { alpha, std } = level;
        match self {
            Self::Epsilon => weighted_sum(&[(1.0 / alpha, latents), (-std / alpha, prediction)]),
            Self::V => weighted_sum(&[(alpha, latents), (-std, prediction)]),
            Self::Sample => Ok(prediction.clone()),
        }
    }

    /// The noise, for latents `alpha * clean + std * noise`.
    pub(crate) fn noise(self, prediction: &Tensor, latents: &Tensor, level: Level) -> Result<Tensor> {
        let Level { alpha, std } = level;
        match self {
            Self::Epsilon => Ok(prediction.clone()),
            Self::V => weighted_sum(&[(alpha, prediction), (std, latents)]),
            Self::Sample => weighted_sum(&[(1.0 / std, latents), (-alpha / std, prediction)]),
        }
    }

    /// The noise, for latents `clean + sigma * noise`: the derivative of the probability flow ODE in sigma
    /// (Karras et al. 2022, arXiv 2206.00364, equation 3).
    ///
    /// It goes through the clean picture even where the prediction is the noise already, in upstream's order and with a
    /// true division: at the sigma of 4096 where zero-SNR runs begin, the rounding is visible in the latents.
    pub(crate) fn derivative(self, prediction: &Tensor, latents: &Tensor, sigma: f64) -> Result<Tensor> {
        let clean = match self {
            Self::Epsilon => weighted_sum(&[(1.0, latents), (-sigma, prediction)])?,
            Self::V => {
                let Level { alpha, std } = Level::of_sigma(sigma);
                weighted_sum(&[(-std, prediction), (alpha * alpha, latents)])?
            }
            Self::Sample => prediction.clone(),
        };
        divide(&(latents - clean)?, sigma)
    }
}

/// Dynamic thresholding of the predicted clean picture (Saharia et al. 2022, arXiv 2205.11487, section 2.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threshold {
    quantile: f64,
    largest: f64,
}

impl Threshold {
    /// `None` unless the configuration asks for it.
    pub(crate) fn of(config: &SchedulerConfig) -> std::result::Result<Option<Self>, SchedulerError> {
        if !config.thresholding.unwrap_or(false) {
            return Ok(None);
        }
        let quantile = config.dynamic_thresholding_ratio.unwrap_or(0.995);
        if !(0.0..=1.0).contains(&quantile) {
            return Err(SchedulerError::Setting {
                key: "dynamic_thresholding_ratio",
                problem: format!("{quantile} is not between 0 and 1"),
            });
        }
        let largest = config.sample_max_value.unwrap_or(1.0);
        if largest.is_nan() || largest < 1.0 {
            return Err(SchedulerError::Setting {
                key: "sample_max_value",
                problem: format!("{largest} is below 1"),
            });
        }
        Ok(Some(Self { quantile, largest }))
    }

    /// The picture, clamped to the quantile of its own magnitudes and scaled back to -1..1.
    pub(crate) fn apply(threshold: Option<Self>, clean: Tensor) -> Result<Tensor> {
        let Some(Self { quantile, largest }) = threshold else {
            return Ok(clean);
        };
        let mut magnitudes = clean
            .abs()?
            .flatten_all()?
            .to_dtype(DType::F32)?
            .to_vec1::<f32>()?;
        magnitudes.sort_unstable_by(f32::total_cmp);
        let bound = linear_quantile(&magnitudes, quantile).clamp(1.0, largest);
        clean.clamp(-bound, bound)? / bound
    }
}

/// `torch.quantile` of sorted values, with linear interpolation.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rank among the values"
)]
fn linear_quantile(sorted: &[f32], quantile: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 1.0;
    };
    let rank = quantile * last as f64;
    let below = rank.floor() as usize;
    let (low, high) = (f64::from(sorted[below]), f64::from(sorted[(below + 1).min(last)]));
    low + (high - low) * rank.fract()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn every_prediction_type_names_the_same_picture() {
        let clean = Tensor::new(&[0.5_f32, -1.0, 2.0], &Device::Cpu).unwrap();
        let noise = Tensor::new(&[1.0_f32, 0.25, -0.5], &Device::Cpu).unwrap();
        let level = Level::of_sigma(1.7);
        let latents = weighted_sum(&[(level.alpha, &clean), (level.std, &noise)]).unwrap();
        let scaled = weighted_sum(&[(1.0, &clean), (1.7, &noise)]).unwrap();
        let v = weighted_sum(&[(level.alpha, &noise), (-level.std, &clean)]).unwrap();
        for (kind, prediction) in [
            (PredictionType::Epsilon, &noise),
            (PredictionType::V, &v),
            (PredictionType::Sample, &clean),
        ] {
            let close = |a: &Tensor, b: &Tensor| {
                pentimento_testkit::assert_close(
                    &format!("{kind:?}"),
                    a,
                    b,
                    pentimento_testkit::Tolerance::SCHEDULER,
                );
            };
            close(&kind.clean(prediction, &latents, level).unwrap(), &clean);
            close(&kind.noise(prediction, &latents, level).unwrap(), &noise);
            close(&kind.derivative(prediction, &scaled, 1.7).unwrap(), &noise);
        }
    }

    #[test]
    fn thresholding_brings_the_picture_into_range() {
        let config =
            SchedulerConfig::from_json(br#"{"thresholding": true, "sample_max_value": 4.0}"#).unwrap();
        let threshold = Threshold::of(&config).unwrap();
        let wide = Tensor::new(&[0.0_f32, 3.0, -9.0, 2.0], &Device::Cpu).unwrap();
        let found = Threshold::apply(threshold, wide)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        assert_eq!(found, [0.0, 0.75, -1.0, 0.5]);
        assert!(Threshold::of(&SchedulerConfig::default()).unwrap().is_none());
    }
}
