//! Classifier-free guidance: Ho and Salimans 2022, equation 6, in the form that diffusers uses.

use candle_core::Tensor;
use pentimento_models::UNetConfig;
use pentimento_types::Recipe;

/// As diffusers' `do_classifier_free_guidance`: a scale of 1 or less turns it off, and a UNet with a guidance embedding takes
/// the scale as an input instead.
pub(crate) fn is_guided(request: &Recipe, unet: &UNetConfig) -> bool {
    request.is_guided() && unet.time_cond_proj_dim.is_none()
}

/// How one image is steered towards its prompt.
#[derive(Clone, Debug)]
pub(crate) enum Guidance {
    /// One row: the prompt alone.
    Off,
    /// Two rows: `uncond + scale * (cond - uncond)`.
    ClassifierFree {
        /// Above 1.
        scale: f64,
    },
    /// One row whose scale goes into the UNet as an embedding `(1, time_cond_proj_dim)`:
    /// distilled checkpoints (Meng et al. 2023; Luo et al. 2023, section 4.2).
    Embedded {
        /// The sinusoidal embedding of `scale - 1`.
        embedding: Tensor,
    },
}

impl Guidance {
    /// Rows that one evaluation needs.
    pub(crate) const fn rows(&self) -> u32 {
        match self {
            Self::Off | Self::Embedded { .. } => 1,
            Self::ClassifierFree { .. } => 2,
        }
    }

    /// Joins an image's rows, unconditional first, into one prediction. Difference, product and sum are rounded one by
    /// one, in f32.
    pub(crate) fn combine(&self, rows: &[f32]) -> Vec<f32> {
        match self {
            Self::Off | Self::Embedded { .. } => rows.to_vec(),
            Self::ClassifierFree { scale } => {
                #[expect(clippy::cast_possible_truncation, reason = "the predictions are f32")]
                let scale = *scale as f32;
                let (uncond, cond) = rows.split_at(rows.len() / 2);
                // A product's zero is never negative, as in `weighted_sum` of the schedulers.
                let guided = |(uncond, cond): (&f32, &f32)| uncond + ((cond - uncond) * scale + 0.0);
                uncond.iter().zip(cond).map(guided).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_moves_away_from_the_unconditional_row() {
        let found = Guidance::ClassifierFree { scale: 7.5 }.combine(&[1.0, -1.0, 3.0, -2.0]);
        assert_eq!(found, [16.0, -8.5]);
        assert_eq!(Guidance::Off.combine(&[1.0, 3.0]), [1.0, 3.0]);
    }
}
