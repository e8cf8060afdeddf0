//! What the UNet's output means: the noise, the image, or a mixture of both, and each of them from the others.

use crate::config::{SchedulerConfig, unknown};
use crate::error::SchedulerError;
use crate::latents::{Latents, weighted_sum};
use crate::level::Level;

/// The quantity that the UNet predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PredictionType {
    /// The noise.
    Epsilon,
    /// `alpha * noise - std * image` (Salimans & Ho 2022, arXiv 2202.00512, section 4).
    V,
    /// The image.
    Sample,
}

/// The model input for latents `image + sigma * noise`: scaled to the variance that the model was trained on.
pub(crate) fn scaled_by_sigma(sample: &Latents, sigma: f64) -> Latents {
    sample.clone().divided(sigma.mul_add(sigma, 1.0).sqrt())
}

impl PredictionType {
    /// `prediction_type` of the configuration; every class defaults to epsilon.
    pub(crate) fn of(config: &SchedulerConfig) -> Result<Self, SchedulerError> {
        match config.prediction_type.as_deref() {
            None | Some("epsilon") => Ok(Self::Epsilon),
            Some("v_prediction") => Ok(Self::V),
            Some("sample" | "original_sample") => Ok(Self::Sample),
            Some(other) => Err(unknown("prediction_type", other)),
        }
    }

    /// The image, for latents `alpha * image + std * noise`; diffusers' `pred_original_sample`, also `x0_pred`.
    pub(crate) fn original_sample(self, model_output: &Latents, sample: &Latents, level: Level) -> Latents {
        let Level { alpha, std } = level;
        match self {
            Self::Epsilon => weighted_sum(&[(1.0 / alpha, sample), (-std / alpha, model_output)]),
            Self::V => weighted_sum(&[(alpha, sample), (-std, model_output)]),
            Self::Sample => model_output.clone(),
        }
    }

    /// The noise, for latents `alpha * image + std * noise`; diffusers' `pred_epsilon`.
    pub(crate) fn epsilon(self, model_output: &Latents, sample: &Latents, level: Level) -> Latents {
        let Level { alpha, std } = level;
        match self {
            Self::Epsilon => model_output.clone(),
            Self::V => weighted_sum(&[(alpha, model_output), (std, sample)]),
            Self::Sample => weighted_sum(&[(1.0 / std, sample), (-alpha / std, model_output)]),
        }
    }

    /// The noise, for latents `image + sigma * noise`: the derivative of the probability flow ODE in sigma
    /// (Karras et al. 2022, arXiv 2206.00364, equation 3).
    ///
    /// It goes through the predicted image even where the prediction is the noise already, in upstream's order and with
    /// a true division: at the sigma of 4096 where zero-SNR runs begin, the rounding is visible in the latents.
    pub(crate) fn derivative(self, model_output: &Latents, sample: &Latents, sigma: f64) -> Latents {
        let original_sample = match self {
            Self::Epsilon => &weighted_sum(&[(1.0, sample), (-sigma, model_output)]),
            Self::V => {
                let Level { alpha, std } = Level::of_sigma(sigma);
                &weighted_sum(&[(-std, model_output), (alpha * alpha, sample)])
            }
            Self::Sample => model_output,
        };
        sample.clone().minus(original_sample).divided(sigma)
    }
}

/// Dynamic thresholding of the predicted image (Saharia et al. 2022, arXiv 2205.11487, section 2.3).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threshold {
    quantile: f64,
    largest: f64,
}

impl Threshold {
    /// `None` unless the configuration asks for it.
    pub(crate) fn of(config: &SchedulerConfig) -> Result<Option<Self>, SchedulerError> {
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

    /// The predicted image, clamped to the quantile of its own magnitudes and scaled back to -1..1; diffusers'
    /// `_threshold_sample`. As it is without a threshold.
    pub(crate) fn apply(threshold: Option<Self>, original_sample: Latents) -> Latents {
        let Some(Self { quantile, largest }) = threshold else {
            return original_sample;
        };
        let mut magnitudes: Vec<f32> = original_sample.values().iter().map(|x| x.abs()).collect();
        magnitudes.sort_unstable_by(f32::total_cmp);
        let bound = linear_quantile(&magnitudes, quantile).clamp(1.0, largest);
        original_sample.clamped(bound).scaled(1.0 / bound)
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
    use pentimento_testkit::{Tolerance, assert_values_close};

    use super::*;

    fn line(values: &[f32]) -> Latents {
        Latents::new([1, 1, values.len()], values.to_vec()).unwrap()
    }

    #[test]
    fn every_prediction_type_names_the_same_image() {
        let image = line(&[0.5, -1.0, 2.0]);
        let noise = line(&[1.0, 0.25, -0.5]);
        let level = Level::of_sigma(1.7);
        let sample = weighted_sum(&[(level.alpha, &image), (level.std, &noise)]);
        let exploding = weighted_sum(&[(1.0, &image), (1.7, &noise)]);
        let v = weighted_sum(&[(level.alpha, &noise), (-level.std, &image)]);
        for (kind, model_output) in [
            (PredictionType::Epsilon, &noise),
            (PredictionType::V, &v),
            (PredictionType::Sample, &image),
        ] {
            let close = |found: &Latents, expected: &Latents| {
                assert_values_close(
                    &format!("{kind:?}"),
                    found.values(),
                    expected.values(),
                    Tolerance::SCHEDULER,
                );
            };
            close(&kind.original_sample(model_output, &sample, level), &image);
            close(&kind.epsilon(model_output, &sample, level), &noise);
            close(&kind.derivative(model_output, &exploding, 1.7), &noise);
        }
    }

    #[test]
    fn thresholding_brings_the_image_into_range() {
        let config =
            SchedulerConfig::from_json(br#"{"thresholding": true, "sample_max_value": 4.0}"#).unwrap();
        let threshold = Threshold::of(&config).unwrap();
        let wide = line(&[0.0, 3.0, -9.0, 2.0]);
        let found = Threshold::apply(threshold, wide);
        assert_eq!(found.values(), [0.0, 0.75, -1.0, 0.5]);
        assert!(Threshold::of(&SchedulerConfig::default()).unwrap().is_none());
    }
}
